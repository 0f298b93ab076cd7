//! `wcompose logs`: containers' output from the engine, guests' from the supervisor or from what it left, in one order of time.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use super::args::{Ansi, Logs};
use super::outcome::{Failure, Outcome};
use super::settings::Settings;
use super::target::Target;
use crate::control::client;
use crate::engine::docker::Wanted;
use crate::engine::{OutputLine, Stream};
use crate::model::InstanceName;
use crate::plan::observed::{Existing, ExistingKind};
use crate::session::{LogInterest, LogLine, LogMode, LogStream};
use crate::supervisor::logs;
use crate::supervisor::signals::Signals;
use crate::view::Streams;
use crate::view::log::{LogFormat, LogPrinter, Names, Times};
use crate::view::merge::{Patience, merge};

use super::screen;

/// Lines of sources that go on are put in order within this time.
const WINDOW: Duration = Duration::from_millis(80);

/// Runs `logs`.
pub async fn logs(settings: Settings, args: Logs) -> Outcome {
    let target = Target::find(&settings).await?;
    let paths = settings.paths.project(&target.name);
    let interest = LogInterest {
        mode: if args.follow { LogMode::Follow } else { LogMode::Kept },
        services: target.services(&args.services)?,
        tail: tail(&args.tail)?,
        since: args.since.as_deref().map(time).transpose()?,
        until: args.until.as_deref().map(time).transpose()?,
    };
    let (out, err) = screen::palettes(&settings, if args.no_color { Ansi::Never } else { settings.ansi });
    let format = LogFormat {
        names: if args.no_log_prefix { Names::Hidden } else { Names::Shown },
        times: if args.timestamps { Times::Shown } else { Times::Hidden },
    };
    let mut printer = LogPrinter::new(format, out, err);
    let mut sources = Vec::new();
    let mut guests = None;
    let mut linux = BTreeSet::new();
    match client::connect(&paths.socket, interest.clone()).await? {
        Some(session) => {
            printer.learn_snapshot(&session.snapshot);
            guests = Some(session.logs);
            // Its updates are not read: a slow view gets a fresh state instead of a backlog.
            drop((session.updates, session.commands));
        }
        None => sources.push(kept(&paths.logs, &interest)),
    }
    if target.may_use_engine(&paths) {
        let engines = settings.engines(&paths);
        let docker = engines.docker().await?.clone();
        let observed = crate::engine::Engine::observe(&*docker, &target.name).await?;
        let containers: Vec<&Existing> =
            observed.instances.iter().filter(|existing| existing.kind == ExistingKind::Container).collect();
        linux.extend(containers.iter().filter_map(|existing| existing.instance()));
        for existing in containers.into_iter().filter(|existing| !existing.one_off) {
            let Some(instance) = existing.instance() else { continue };
            if interest.services.is_empty() || interest.services.contains(&instance.service) {
                let wanted =
                    Wanted { tail: interest.tail, since: interest.since, until: interest.until, follow: args.follow };
                printer.learn_name(target.name.as_str(), &instance, &existing.name);
                sources.push(tagged(instance, docker.output(&existing.id, wanted)));
            }
        }
    }
    // A supervisor that follows containers has their lines as well; the engine has them from the beginning.
    sources.extend(guests.map(|lines| without(linux, lines)));
    let (mut stdout, mut stderr) = (std::io::stdout(), std::io::stderr());
    let patience = if args.follow { Patience::Window(WINDOW) } else { Patience::Endless };
    let print = merge(sources, patience, |line| {
        let mut streams = Streams { out: &mut stdout, err: &mut stderr };
        printer.line(&line, &mut streams)
    });
    let mut signals = Signals::listen()?;
    tokio::select! {
        printed = print => match printed {
            // A reader that went away (`| head`) has seen enough.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(ExitCode::SUCCESS),
        },
        _ = signals.next() => Err(Failure::Interrupted),
    }
}

/// Lines that a supervisor left.
fn kept(folder: &std::path::Path, interest: &LogInterest) -> mpsc::Receiver<LogLine> {
    let (lines, receiver) = mpsc::channel(256);
    let backlog = logs::read(folder, interest);
    // Ends with its reader: the channel closes.
    tokio::task::spawn_blocking(move || {
        for line in backlog {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Lines of all but these instances.
fn without(left_out: BTreeSet<InstanceName>, mut lines: mpsc::Receiver<LogLine>) -> mpsc::Receiver<LogLine> {
    let (kept, receiver) = mpsc::channel(256);
    #[expect(clippy::disallowed_methods, reason = "ends with its reader: the channel closes")]
    tokio::spawn(async move {
        while let Some(line) = lines.recv().await {
            if !left_out.contains(&line.instance) && kept.send(line).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// A container's lines with its name.
fn tagged(instance: InstanceName, mut lines: mpsc::Receiver<OutputLine>) -> mpsc::Receiver<LogLine> {
    let (tagged, receiver) = mpsc::channel(256);
    #[expect(clippy::disallowed_methods, reason = "ends with its reader: the channel closes")]
    tokio::spawn(async move {
        while let Some(line) = lines.recv().await {
            let stream = match line.stream {
                Stream::Stdout => LogStream::Stdout,
                Stream::Stderr => LogStream::Stderr,
            };
            let line = LogLine { at: line.at, instance: instance.clone(), stream, text: line.text, dropped: 0 };
            if tagged.send(line).await.is_err() {
                return;
            }
        }
    });
    receiver
}

fn tail(text: &str) -> Result<Option<usize>, Failure> {
    match text {
        "all" => Ok(None),
        number => match number.parse::<i64>() {
            // As docker does, a negative number means all.
            Ok(number) => Ok(usize::try_from(number).ok()),
            Err(_) => Err(Failure::new(
                format!("`--tail {text}`: not a number"),
                ["give a number of lines, or `all`".to_owned()],
            )),
        },
    }
}

/// A time (RFC 3339), seconds since 1970, or an age (`42m`, `1h30m`).
pub(super) fn time(text: &str) -> Result<Timestamp, Failure> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Some(at) = text.parse::<i64>().ok().and_then(|seconds| Timestamp::from_second(seconds).ok()) {
        return Ok(at);
    }
    if let Ok(local) = text.parse::<jiff::civil::DateTime>()
        && let Ok(zoned) = local.to_zoned(jiff::tz::TimeZone::system())
    {
        return Ok(zoned.timestamp());
    }
    if let Ok(age) = text.parse::<SignedDuration>()
        && let Ok(at) = Timestamp::now().checked_sub(age)
    {
        return Ok(at);
    }
    Err(Failure::new(
        format!("`{text}` is not a time"),
        ["give a time such as `2026-11-23T20:00:00Z`, or an age such as `42m`".to_owned()],
    ))
}
