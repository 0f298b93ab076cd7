//! `wcompose top`: processes of containers, and guests beside them, in one table.

use std::process::ExitCode;

use jiff::Timestamp;

use super::args::Top;
use super::outcome::Outcome;
use super::screen::ask;
use super::settings::Settings;
use super::target::Target;
use crate::control::client;
use crate::engine::Engine as _;
use crate::event::{InstanceState, InstanceView, Kind, Snapshot};
use crate::model::{ServiceName, Usage};
use crate::plan::observed::{ExistingKind, RunState};
use crate::session::{Command, LogInterest, Reply};
use crate::view::table::Table;

/// Columns of `ps -ef`, behind service and replica.
const HEADINGS: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];

/// Runs `top`.
pub async fn top(settings: Settings, args: Top) -> Outcome {
    let target = Target::find(&settings).await?;
    let paths = settings.paths.project(&target.name);
    let services = target.services(&args.services)?;
    let wanted = |service: &ServiceName| services.is_empty() || services.contains(service);
    let mut rows: Vec<(String, u32, [String; 8])> = Vec::new();
    if let Some(session) = client::connect(&paths.socket, LogInterest::default()).await? {
        let usage = match ask(&session.commands, Command::Usage).await.await {
            Ok(Reply::Usage(usage)) => usage,
            Ok(Reply::Refused(_) | Reply::Settled { .. }) | Err(_) => Vec::new(),
        };
        rows.extend(guests(&session.snapshot, &usage).filter(|(name, ..)| wanted(&name.as_str().into())));
    }
    if target.may_use_engine(&paths) {
        let engines = settings.engines(&paths);
        let docker = engines.docker().await?;
        for existing in docker.observe(&target.name).await?.instances {
            let Some(service) = existing.service.as_ref().filter(|service| wanted(service)) else { continue };
            if existing.kind != ExistingKind::Container || existing.state != RunState::Running {
                continue;
            }
            let processes = docker.processes(&existing.name).await?;
            let place = HEADINGS.map(|heading| processes.titles.iter().position(|title| title == heading));
            for row in &processes.rows {
                let cells = place.map(|at| at.and_then(|at| row.get(at)).cloned().unwrap_or_default());
                rows.push((service.to_string(), existing.number.unwrap_or(0), cells));
            }
        }
    }
    if rows.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    rows.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let mut table = Table::new(["SERVICE", "#", "UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    for (service, number, [uid, pid, parent, share, start, tty, time, command]) in rows {
        let number = if number == 0 { String::new() } else { number.to_string() };
        table.row([service, number, uid, pid, parent, share, start, tty, time, command]);
    }
    table.write(&mut std::io::stdout())?;
    Ok(ExitCode::SUCCESS)
}

/// A row for each running guest: it runs in its supervisor's process, under that one's user.
fn guests<'a>(snapshot: &'a Snapshot, usage: &'a [Usage]) -> impl Iterator<Item = (String, u32, [String; 8])> + 'a {
    let runs = |view: &&InstanceView| view.kind == Kind::Wasm && matches!(view.state, InstanceState::Running);
    snapshot.instances.values().filter(runs).map(|view| {
        let used = usage.iter().find(|usage| usage.instance == view.name);
        let cpu = used.map_or(0, |usage| usage.cpu.as_secs());
        let alive = view.started.map_or(0, |at| Timestamp::now().duration_since(at).as_secs().max(1));
        let share = if alive > 0 { cpu * 100 / alive.unsigned_abs() } else { 0 };
        let started = view.started.map(|at| at.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M").to_string());
        let cells = [
            rustix::process::getuid().as_raw().to_string(),
            snapshot.supervisor.to_string(),
            String::from("-"),
            share.to_string(),
            started.unwrap_or_default(),
            "?".to_owned(),
            format!("{:02}:{:02}:{:02}", cpu / 3600, cpu / 60 % 60, cpu % 60),
            view.command.clone(),
        ];
        (view.name.service.to_string(), view.name.number, cells)
    })
}
