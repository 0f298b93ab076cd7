//! What instances use, as `stats` shows it: the reference tool's columns, and its JSON keys in their order. A guest's JSON
//! has what only guests tell behind them.

use std::io;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::table::Table;
use super::{Out, json};
use crate::model::Usage;

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Id in its engine.
    pub id: String,
    /// Container name.
    pub name: String,
    /// The look, and the share of one core it computed since the look before; absent of what does not run.
    pub look: Option<(Usage, f64)>,
}

impl Row {
    /// A row of two looks at one instance; without an earlier one, of all its time.
    pub fn new(now: Usage, earlier: Option<&Usage>) -> Self {
        let share = earlier.filter(|earlier| earlier.id == now.id).map_or(0.0, |earlier| {
            let elapsed = now.at.duration_since(earlier.at).as_secs_f64();
            let computed = now.cpu.saturating_sub(earlier.cpu).as_secs_f64();
            if elapsed > 0.0 { computed / elapsed } else { 0.0 }
        });
        Self { id: now.id.clone(), name: now.container.clone(), look: Some((now, share)) }
    }

    /// A row of what does not run.
    pub fn still(id: String, name: String) -> Self {
        Self { id, name, look: None }
    }

    /// The cells behind id and name. `machine` is the memory of the machine, for what has no limit of its own.
    fn cells(&self, machine: u64) -> [String; 6] {
        let Some((usage, share)) = &self.look else {
            return ["0.00%", "0B / 0B", "0.00%", "0B / 0B", "0B / 0B", "0"].map(str::to_owned);
        };
        let limit = usage.memory_limit.filter(|limit| machine == 0 || *limit < machine).unwrap_or(machine);
        let part = if limit > 0 { usage.memory as f64 / limit as f64 } else { 0.0 };
        [
            format!("{:.2}%", share * 100.0),
            format!("{} / {}", binary(usage.memory), binary(limit)),
            format!("{:.2}%", part * 100.0),
            format!("{} / {}", decimal(usage.received), decimal(usage.sent)),
            format!("{} / {}", decimal(usage.read), decimal(usage.written)),
            usage.tasks.to_string(),
        ]
    }

    fn shown_id(&self, whole: bool) -> &str {
        if whole { &self.id } else { self.id.get(..12).unwrap_or(&self.id) }
    }
}

/// The table.
pub fn table(rows: &[Row], machine: u64, whole_ids: bool, out: Out<'_>) -> io::Result<()> {
    let headings = ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
    let mut table = Table::new(headings);
    for row in rows {
        let [cpu, memory, part, net, block, tasks] = row.cells(machine);
        table.row([row.shown_id(whole_ids).to_owned(), row.name.clone(), cpu, memory, part, net, block, tasks]);
    }
    table.write(out)
}

/// One JSON object a line.
pub fn objects(rows: &[Row], machine: u64, whole_ids: bool, out: Out<'_>) -> io::Result<()> {
    for row in rows {
        let [cpu, memory, part, net, block, tasks] = row.cells(machine);
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put("BlockIO", json!(block));
        put("CPUPerc", json!(cpu));
        put("Container", json!(row.shown_id(whole_ids)));
        put("ID", json!(row.shown_id(whole_ids)));
        put("MemPerc", json!(part));
        put("MemUsage", json!(memory));
        put("Name", json!(row.name));
        put("NetIO", json!(net));
        put("PIDs", json!(tasks));
        if let Some(guest) = row.look.as_ref().and_then(|(usage, _)| usage.guest.as_ref()) {
            let quantile = |part| guest.latency.quantile(part).map(milliseconds);
            put("Requests", json!(guest.requests));
            put("Refusals", json!(guest.refusals));
            put("LatencyP50", json!(quantile(0.5)));
            put("LatencyP99", json!(quantile(0.99)));
        }
        writeln!(out, "{}", json::text(&Value::Object(object)))?;
    }
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// Bytes in powers of 1024, four digits: `12.5MiB`.
fn binary(bytes: u64) -> String {
    human(bytes, 1024.0, 4, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

/// Bytes in powers of 1000, three digits: `1.27kB`.
fn decimal(bytes: u64) -> String {
    human(bytes, 1000.0, 3, ["B", "kB", "MB", "GB", "TB", "PB"])
}

fn human(bytes: u64, base: f64, digits: usize, units: [&str; 6]) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    // As Go's `%.4g`: so many digits that count, without zeros at the end.
    let before = if value < 1.0 { 1 } else { value.log10() as usize + 1 };
    let text = format!("{value:.*}", digits.saturating_sub(before));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{GuestUsage, InstanceName};

    fn usage(second: i64, cpu: u64) -> Usage {
        Usage {
            instance: InstanceName::new("api".into(), 1),
            container: "shop-api-1".into(),
            id: "0123456789abcdef".into(),
            at: jiff::Timestamp::from_second(second).unwrap(),
            cpu: Duration::from_millis(cpu),
            memory: 13_107_200,
            memory_limit: Some(64 << 20),
            received: 1_266,
            sent: 0,
            read: 0,
            written: 4_096,
            tasks: 3,
            guest: Some(GuestUsage { requests: 7, ..GuestUsage::default() }),
        }
    }

    #[test]
    fn rows_are_laid_out_as_in_the_reference_tool() {
        let rows = [
            Row::new(usage(12, 1_500), Some(&usage(10, 1_000))),
            Row::still("fedcba98765432".into(), "shop-job-1".into()),
        ];
        let mut out = Vec::new();
        table(&rows, 8 << 30, false, &mut out).unwrap();
        objects(&rows[..1], 8 << 30, true, &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
        CONTAINER ID   NAME         CPU %     MEM USAGE / LIMIT   MEM %     NET I/O       BLOCK I/O    PIDS
        0123456789ab   shop-api-1   25.00%    12.5MiB / 64MiB     19.53%    1.27kB / 0B   0B / 4.1kB   3
        fedcba987654   shop-job-1   0.00%     0B / 0B             0.00%     0B / 0B       0B / 0B      0
        {"BlockIO":"0B / 4.1kB","CPUPerc":"25.00%","Container":"0123456789abcdef","ID":"0123456789abcdef","MemPerc":"19.53%","MemUsage":"12.5MiB / 64MiB","Name":"shop-api-1","NetIO":"1.27kB / 0B","PIDs":"3","Requests":7,"Refusals":0,"LatencyP50":null,"LatencyP99":null}
        "#);
    }
}
