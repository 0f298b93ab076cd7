//! `wcompose stats`: what services use, of both kinds, live or once.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use super::args::Stats;
use super::outcome::{Failure, Outcome};
use super::screen::ask;
use super::settings::Settings;
use super::target::Target;
use crate::control::client;
use crate::engine::Engine as _;
use crate::engine::engines::Engines;
use crate::model::{ServiceName, Usage};
use crate::plan::observed::Existing;
use crate::session::{Command, LogInterest, Reply, Session};
use crate::supervisor::signals::Signals;
use crate::view::usage::{self, Row};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs `stats`.
pub async fn stats(settings: Settings, args: Stats) -> Outcome {
    let json = match args.format.as_str() {
        "table" => false,
        "json" => true,
        other => {
            return Err(Failure::new(format!("unknown format `{other}`"), ["use `table` or `json`".to_owned()]));
        }
    };
    let target = Target::find(&settings).await?;
    let services = target.services(&args.services)?;
    let source = Source::find(&settings, &target).await?;
    let mut signals = Signals::listen()?;
    let machine = memory_of_machine();
    let clears = !args.no_stream && std::io::stdout().is_terminal();
    let mut earlier = by_container(source.look(&services).await?);
    loop {
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = signals.next() => return Err(Failure::Interrupted),
        }
        let now = by_container(source.look(&services).await?);
        let mut rows: Vec<Row> =
            now.values().map(|usage| Row::new(usage.clone(), earlier.get(&usage.container))).collect();
        if args.all {
            let still = source.existing(&target, &services).await?;
            let still = still.into_iter().filter(|existing| !now.contains_key(&existing.name));
            rows.extend(still.map(|existing| Row::still(existing.id, existing.name)));
            rows.sort_by(|a, b| a.name.cmp(&b.name));
        }
        let mut text: Vec<u8> = Vec::new();
        if clears {
            text.extend_from_slice(b"\x1b[H\x1b[2J");
        }
        match json {
            true => usage::objects(&rows, machine, args.no_trunc, &mut text)?,
            false => usage::table(&rows, machine, args.no_trunc, &mut text)?,
        }
        let written = std::io::stdout().write_all(&text).and_then(|()| std::io::stdout().flush());
        // Whoever reads may go (`| head`).
        if written.is_err() || args.no_stream {
            return Ok(ExitCode::SUCCESS);
        }
        earlier = now;
    }
}

/// Who tells.
enum Source {
    /// The project's supervisor: it knows of guests and asks the engine for containers.
    Supervisor(Session, Option<Engines>),
    /// The engine alone.
    Engine(Engines, crate::model::ProjectName),
    /// Nothing runs anywhere.
    Nobody,
}

impl Source {
    async fn find(settings: &Settings, target: &Target) -> Result<Self, Failure> {
        let paths = settings.paths.project(&target.name);
        let engines = match target.may_use_engine(&paths) {
            true => {
                let engines = settings.engines(&paths);
                engines.docker().await?;
                Some(engines)
            }
            false => None,
        };
        match (client::connect(&paths.socket, LogInterest::default()).await?, engines) {
            (Some(session), engines) => Ok(Self::Supervisor(session, engines)),
            (None, Some(engines)) => Ok(Self::Engine(engines, target.name.clone())),
            (None, None) => Ok(Self::Nobody),
        }
    }

    async fn look(&self, services: &[ServiceName]) -> Result<Vec<Usage>, Failure> {
        let mut all = match self {
            Self::Supervisor(session, _) => match ask(&session.commands, Command::Usage).await.await {
                Ok(Reply::Usage(all)) => all,
                Ok(Reply::Refused(text)) => {
                    super::output::complain(&text);
                    return Err(Failure::Told(1));
                }
                Ok(Reply::Settled { .. }) | Err(_) => {
                    return Err(Failure::new("the supervisor ended", []));
                }
            },
            Self::Engine(engines, project) => engines.usage(project).await?,
            Self::Nobody => Vec::new(),
        };
        all.retain(|usage| services.is_empty() || services.contains(&usage.instance.service));
        Ok(all)
    }

    /// What exists, running or not.
    async fn existing(&self, target: &Target, services: &[ServiceName]) -> Result<Vec<Existing>, Failure> {
        let mut all = match self {
            Self::Supervisor(_, Some(engines)) | Self::Engine(engines, _) => {
                engines.observe(&target.name).await?.instances
            }
            Self::Supervisor(_, None) | Self::Nobody => Vec::new(),
        };
        all.retain(|existing| {
            existing.service.as_ref().is_some_and(|service| services.is_empty() || services.contains(service))
        });
        Ok(all)
    }
}

fn by_container(usage: Vec<Usage>) -> BTreeMap<String, Usage> {
    usage.into_iter().map(|usage| (usage.container.clone(), usage)).collect()
}

/// The machine's memory, which is the limit of whatever has none of its own; 0 where it cannot be told.
fn memory_of_machine() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}
