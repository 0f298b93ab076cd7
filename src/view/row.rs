//! One line of `ps`, and how it is printed: the reference tool's columns, and its JSON keys in their order.

use std::collections::BTreeMap;
use std::io;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::table::Table;
use super::{Out, json, text};
use crate::event::{Health, PublishedPort};

/// An instance as `ps` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Container name.
    pub name: String,
    /// Whole id in its engine; empty when nothing was made yet.
    pub id: String,
    /// Image reference, or the module's path.
    pub image: String,
    /// Entrypoint and command as one line.
    pub command: String,
    /// The project.
    pub project: String,
    /// The service.
    pub service: String,
    /// Creation.
    pub created: Option<Timestamp>,
    /// One of the engine's words: `running`, `exited`, `created`, …
    pub state: &'static str,
    /// The state in words for people: `Up 2 seconds (healthy)`.
    pub status: String,
    /// Health, where a check is declared.
    pub health: Option<Health>,
    /// Exit code of the last run.
    pub exit_code: i64,
    /// Ports.
    pub ports: Vec<PublishedPort>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Volumes and folders mounted.
    pub mounts: Vec<String>,
    /// How many of them are volumes.
    pub volumes: usize,
    /// Networks joined.
    pub networks: Vec<String>,
}

/// Whether long words are shortened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shortening {
    /// They are.
    #[default]
    On,
    /// `--no-trunc`.
    Off,
}

/// The moment and place a table is printed at: ages count from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// Now.
    pub now: Timestamp,
    /// In this time zone absolute times are printed.
    pub zone: TimeZone,
}

impl Clock {
    /// How long ago something was, as docker says it: `5 seconds ago`.
    pub fn ago(&self, at: Timestamp) -> String {
        format!("{} ago", self.age(at))
    }

    /// How long something has lasted: `5 seconds`.
    pub fn age(&self, since: Timestamp) -> String {
        text::duration(self.now.duration_since(since).try_into().unwrap_or_default())
    }
}

/// Writes the table.
pub fn table(rows: &[Row], shortening: Shortening, clock: &Clock, out: Out<'_>) -> io::Result<()> {
    let mut table = Table::new(["NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"]);
    for row in rows {
        let created = row.created.map(|at| clock.ago(at)).unwrap_or_default();
        table.row([
            row.name.clone(),
            row.image.clone(),
            row.quoted_command(shortening),
            row.service.clone(),
            created,
            row.status.clone(),
            ports(&row.ports),
        ]);
    }
    table.write(out)
}

/// Writes one JSON object a line.
pub fn objects(rows: &[Row], shortening: Shortening, clock: &Clock, out: Out<'_>) -> io::Result<()> {
    rows.iter().try_for_each(|row| json::object(row.object(shortening, clock), &mut *out))
}

impl Row {
    /// The command in quotes.
    fn quoted_command(&self, shortening: Shortening) -> String {
        text::quote(&shorten(&self.command, 20, shortening))
    }

    fn object(&self, shortening: Shortening, clock: &Clock) -> Map<String, Value> {
        let id = match shortening {
            Shortening::On => self.id.get(..12).unwrap_or(&self.id),
            Shortening::Off => &self.id,
        };
        let labels: Vec<String> = self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mounts: Vec<String> = self.mounts.iter().map(|mount| shorten(mount, 15, shortening)).collect();
        let created = |at: Timestamp| at.to_zoned(clock.zone.clone()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string();
        [
            ("Command", json!(self.quoted_command(shortening))),
            ("CreatedAt", json!(self.created.map(created).unwrap_or_default())),
            ("ExitCode", json!(self.exit_code)),
            ("Health", json!(self.health.map_or("", Health::as_str))),
            ("ID", json!(id)),
            ("Image", json!(self.image)),
            ("Labels", json!(labels.join(","))),
            ("LocalVolumes", json!(self.volumes.to_string())),
            ("Mounts", json!(mounts.join(","))),
            ("Name", json!(self.name)),
            ("Names", json!(self.name)),
            ("Networks", json!(self.networks.join(","))),
            ("Ports", json!(ports(&self.ports))),
            ("Project", json!(self.project)),
            ("Publishers", Value::Array(sorted(&self.ports).into_iter().map(publisher).collect())),
            ("RunningFor", json!(self.created.map(|at| clock.ago(at)).unwrap_or_default())),
            ("Service", json!(self.service)),
            ("Size", json!("0B")),
            ("State", json!(self.state)),
            ("Status", json!(self.status)),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }
}

fn publisher(port: &PublishedPort) -> Value {
    json!({
        "URL": port.address,
        "TargetPort": port.target,
        "PublishedPort": port.published,
        "Protocol": port.protocol,
    })
}

fn shorten(text: &str, columns: usize, shortening: Shortening) -> String {
    match shortening {
        Shortening::On => text::shorten(text, columns),
        Shortening::Off => text.to_owned(),
    }
}

/// Ports as docker prints them: ranges of neighbours as one, ports mapped to another number at the end.
pub fn ports(ports: &[PublishedPort]) -> String {
    let mut shown: Vec<String> = Vec::new();
    let mut mapped: Vec<String> = Vec::new();
    let mut groups: Vec<Group> = Vec::new();
    for port in sorted(ports) {
        let protocol = port.protocol.to_string();
        if !port.address.is_empty() && port.published != port.target {
            mapped.push(format!("{}->{}/{protocol}", host(&port.address, port.published), port.target));
            continue;
        }
        let next = Group { address: port.address.clone(), protocol, first: port.target, last: port.target };
        match groups.iter_mut().find(|group| group.address == next.address && group.protocol == next.protocol) {
            None => groups.push(next),
            Some(group) if group.last.checked_add(1) == Some(next.first) => group.last = next.first,
            // A range ends: it is printed before those that may still grow.
            Some(group) => shown.push(std::mem::replace(group, next).text()),
        }
    }
    shown.extend(groups.iter().map(Group::text));
    shown.extend(mapped);
    shown.join(", ")
}

fn sorted(ports: &[PublishedPort]) -> Vec<&PublishedPort> {
    let mut sorted: Vec<&PublishedPort> = ports.iter().collect();
    sorted.sort_by_key(|port| (port.target, &port.address, port.published, port.protocol));
    sorted
}

/// Neighbouring ports with the same number on both sides.
struct Group {
    address: String,
    protocol: String,
    first: u16,
    last: u16,
}

impl Group {
    fn text(&self) -> String {
        let range =
            if self.first == self.last { self.first.to_string() } else { format!("{}-{}", self.first, self.last) };
        if self.address.is_empty() {
            format!("{range}/{}", self.protocol)
        } else {
            format!("{}->{range}/{}", host(&self.address, &range), self.protocol)
        }
    }
}

/// Address and port; a v6 address in brackets.
fn host(address: &str, port: impl std::fmt::Display) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{after, epoch, port};
    use super::*;
    use crate::model::Protocol;

    fn row() -> Row {
        Row {
            name: "p3-api-1".into(),
            id: "5dcdb30e97fc01234567".into(),
            image: "p3-api".into(),
            command: "/bin/busybox sh -c echo \"hi\"".into(),
            project: "p3".into(),
            service: "api".into(),
            created: Some(epoch()),
            state: "running",
            status: "Up 2 seconds (healthy)".into(),
            health: Some(Health::Healthy),
            exit_code: 0,
            ports: vec![port("0.0.0.0", 18080, 80), port("::", 18080, 80)],
            labels: BTreeMap::from([("a".into(), "<1>".into()), ("b".into(), "2".into())]),
            mounts: vec!["526659d2c8c688aabbcc".into(), "p3_dbdata".into()],
            volumes: 2,
            networks: vec!["p3_back".into(), "p3_default".into()],
        }
    }

    fn clock() -> Clock {
        Clock { now: after(5_300), zone: TimeZone::UTC }
    }

    #[test]
    fn the_table_is_the_reference_tools() {
        let bare = Row {
            name: "p3-db-1".into(),
            image: "bb:1".into(),
            command: "db".into(),
            service: "db".into(),
            created: None,
            ports: Vec::new(),
            ..row()
        };
        let mut out = Vec::new();
        table(&[row(), bare.clone()], Shortening::On, &clock(), &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
        NAME       IMAGE     COMMAND                  SERVICE   CREATED         STATUS                   PORTS
        p3-api-1   p3-api    "/bin/busybox sh -c …"   api       5 seconds ago   Up 2 seconds (healthy)   0.0.0.0:18080->80/tcp, [::]:18080->80/tcp
        p3-db-1    bb:1      "db"                     db                        Up 2 seconds (healthy)
        "#);
        let mut out = Vec::new();
        table(&[row()], Shortening::Off, &clock(), &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().contains(r#""/bin/busybox sh -c echo \"hi\"""#));
    }

    #[test]
    fn an_object_has_the_reference_tools_keys_in_their_order() {
        let mut out = Vec::new();
        objects(&[row()], Shortening::On, &clock(), &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r#"{"Command":"\"/bin/busybox sh -c …\"","CreatedAt":"2026-11-23 03:00:00 +0000 UTC","ExitCode":0,"Health":"healthy","ID":"5dcdb30e97fc","Image":"p3-api","Labels":"a=\u003c1\u003e,b=2","LocalVolumes":"2","Mounts":"526659d2c8c688…,p3_dbdata","Name":"p3-api-1","Names":"p3-api-1","Networks":"p3_back,p3_default","Ports":"0.0.0.0:18080-\u003e80/tcp, [::]:18080-\u003e80/tcp","Project":"p3","Publishers":[{"URL":"0.0.0.0","TargetPort":80,"PublishedPort":18080,"Protocol":"tcp"},{"URL":"::","TargetPort":80,"PublishedPort":18080,"Protocol":"tcp"}],"RunningFor":"5 seconds ago","Service":"api","Size":"0B","State":"running","Status":"Up 2 seconds (healthy)"}"#);
    }

    #[test]
    fn ports_read_as_in_docker() {
        let udp = PublishedPort { protocol: Protocol::Udp, ..port("0.0.0.0", 5353, 53) };
        let both = [port("0.0.0.0", 18080, 80), port("::", 18080, 80), port("127.0.0.1", 32768, 81), udp];
        insta::assert_snapshot!(ports(&both), @"0.0.0.0:5353->53/udp, 0.0.0.0:18080->80/tcp, [::]:18080->80/tcp, 127.0.0.1:32768->81/tcp");
        let exposed = [port("", 0, 5432), port("", 0, 80), port("", 0, 81)];
        insta::assert_snapshot!(ports(&exposed), @"80-81/tcp, 5432/tcp");
        let ranges = [port("0.0.0.0", 8000, 8000), port("0.0.0.0", 8001, 8001), port("::1", 9000, 9000)];
        insta::assert_snapshot!(ports(&ranges), @"0.0.0.0:8000-8001->8000-8001/tcp, [::1]:9000->9000/tcp");
        assert_eq!(ports(&[]), "");
    }
}
