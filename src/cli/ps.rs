//! `ps`: rows from what the engines know and what a supervisor, if there is one, knows better.
//!
//! An engine tells what exists; of a Wasm instance it sees the agent at most. A supervisor's snapshot tells how the guest
//! is, and why something that is wanted does not run. Where both speak of an instance, the engine is believed about
//! containers, the snapshot about guests.

use std::io;
use std::process::ExitCode;

use jiff::Timestamp;

use super::args::Ps;
use super::outcome::{Failure, Outcome};
use super::settings::Settings;
use super::target::Target;
use crate::control::client;
use crate::engine::Engine as _;
use crate::event::{Health, InstanceState, InstanceView, Kind, PublishedPort, Snapshot};
use crate::model::{ProjectName, ServiceName};
use crate::plan::observed::{Existing, ExistingKind, Observed, RunState};
use crate::session::LogInterest;
use crate::view::Out;
use crate::view::row::{self, Clock, Row, Shortening};

/// Which rows are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Of these services; empty means all.
    pub services: Vec<ServiceName>,
    /// Also what has ended, and one-off containers.
    pub extent: Extent,
    /// In these states, as the engine names them; empty means all. Implies [`Extent::All`].
    pub status: Vec<String>,
}

/// How much is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Extent {
    /// What runs, and what waits without a container yet.
    #[default]
    Running,
    /// `-a`: everything.
    All,
}

/// What is printed of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The table.
    Table(Shortening),
    /// One JSON object a line.
    Json(Shortening),
    /// `-q`: ids.
    Ids,
    /// `--services`: names of services.
    Services,
}

/// States that `--status` may name.
pub const STATES: [&str; 7] = ["paused", "restarting", "removing", "running", "dead", "created", "exited"];

/// Runs `ps`.
pub async fn ps(settings: Settings, args: Ps) -> Outcome {
    let target = Target::find(&settings).await?;
    let paths = settings.paths.project(&target.name);
    if let Some(unknown) = args.status.iter().find(|state| !STATES.contains(&state.as_str())) {
        return Err(Failure::new(format!("unknown state `{unknown}`"), [format!("use one of {}", STATES.join(", "))]));
    }
    let shortening = if args.no_trunc { Shortening::Off } else { Shortening::On };
    let format = match (args.quiet, args.service_names, args.format.as_str()) {
        (true, _, _) => Format::Ids,
        (false, true, _) => Format::Services,
        (false, false, "table") => Format::Table(shortening),
        (false, false, "json") => Format::Json(shortening),
        (false, false, other) => {
            return Err(Failure::new(format!("unknown format `{other}`"), ["use `table` or `json`".to_owned()]));
        }
    };
    let session = client::connect(&paths.socket, LogInterest::default()).await?;
    let snapshot = session.map(|session| session.snapshot);
    let observed = if target.may_use_engine(&paths) {
        let engines = settings.engines(&paths);
        engines.docker().await?.observe(&target.name).await?
    } else {
        Observed::default()
    };
    let selection = Selection {
        services: target.services(&args.services)?,
        extent: if args.all { Extent::All } else { Extent::Running },
        status: args.status,
    };
    let clock = Clock { now: Timestamp::now(), zone: jiff::tz::TimeZone::system() };
    let rows = rows(&target.name, &observed, snapshot.as_ref(), &selection, &clock);
    print(&rows, format, &clock, &mut std::io::stdout())?;
    Ok(ExitCode::SUCCESS)
}

/// The rows of a project, sorted by name.
pub fn rows(
    project: &ProjectName,
    observed: &Observed,
    snapshot: Option<&Snapshot>,
    selection: &Selection,
    clock: &Clock,
) -> Vec<Row> {
    let views = || snapshot.into_iter().flat_map(|snapshot| snapshot.instances.values());
    let view_of = |existing: &Existing| views().find(|view| view.container == existing.name);
    let everything = selection.extent == Extent::All || !selection.status.is_empty();

    let known = observed.instances.iter().filter(|existing| everything || !existing.one_off).map(|existing| {
        let row = of_existing(project, existing, view_of(existing), clock);
        (everything || existing_is_listed(row.state), row)
    });
    let waiting = views()
        .filter(|view| !observed.instances.iter().any(|existing| existing.name == view.container))
        .map(|view| (everything || !has_ended(&view.state), of_view(project, view, clock)));

    let mut rows: Vec<Row> = known.chain(waiting).filter(|(listed, _)| *listed).map(|(_, row)| row).collect();
    rows.retain(|row| {
        let service =
            selection.services.is_empty() || selection.services.iter().any(|name| name.as_str() == row.service);
        service && (selection.status.is_empty() || selection.status.iter().any(|state| state == row.state))
    });
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

/// Prints rows.
pub fn print(rows: &[Row], format: Format, clock: &Clock, out: Out<'_>) -> io::Result<()> {
    match format {
        Format::Table(shortening) => row::table(rows, shortening, clock, out),
        Format::Json(shortening) => row::objects(rows, shortening, clock, out),
        Format::Ids => rows.iter().filter(|row| !row.id.is_empty()).try_for_each(|row| writeln!(out, "{}", row.id)),
        Format::Services => {
            let mut services: Vec<&str> = Vec::new();
            for row in rows.iter().filter(|row| !row.service.is_empty()) {
                if !services.contains(&row.service.as_str()) {
                    services.push(&row.service);
                }
            }
            services.iter().try_for_each(|service| writeln!(out, "{service}"))
        }
    }
}

/// The row of something an engine knows.
fn of_existing(project: &ProjectName, existing: &Existing, view: Option<&InstanceView>, clock: &Clock) -> Row {
    let time = |seconds: i64| (seconds != 0).then(|| Timestamp::from_second(seconds).ok()).flatten();
    let facts = Facts {
        state: existing.state,
        health: existing.health,
        exit_code: existing.exit_code,
        started: time(existing.started),
        finished: time(existing.finished),
    };
    let (facts, why) = match (view, existing.kind) {
        (Some(view), ExistingKind::Agent | ExistingKind::Guest) => (facts.corrected(view), why(&view.state)),
        // A container that was made and not started: the supervisor knows what for.
        (Some(view), ExistingKind::Container) if existing.state == RunState::Created => (facts, why(&view.state)),
        (Some(_) | None, _) => (facts, None),
    };
    let guest = view.filter(|view| view.kind == Kind::Wasm);
    let anonymous = existing.anonymous_volumes.values();
    Row {
        name: existing.name.clone(),
        id: existing.id.clone(),
        image: guest.map_or(&existing.image, |view| &view.image).clone(),
        command: guest.map_or(&existing.command, |view| &view.command).clone(),
        project: project.to_string(),
        service: existing.service.as_ref().map(ToString::to_string).unwrap_or_default(),
        created: time(existing.created),
        state: facts.state.as_str(),
        status: why.unwrap_or_else(|| facts.status(clock)),
        health: facts.health,
        exit_code: facts.exit_code,
        ports: guest.filter(|view| !view.ports.is_empty()).map_or_else(|| existing.ports.clone(), bound),
        labels: existing.labels.clone(),
        mounts: anonymous.chain(&existing.volumes).cloned().collect(),
        volumes: existing.anonymous_volumes.len() + existing.volumes.len(),
        networks: existing.networks.keys().cloned().collect(),
    }
}

/// The ports somebody listens on: those of what ended are free again.
fn bound(view: &InstanceView) -> Vec<PublishedPort> {
    let ended = matches!(view.state, InstanceState::Exited { .. } | InstanceState::Failed { .. });
    if ended { Vec::new() } else { view.ports.clone() }
}

/// The row of something only a supervisor knows: a guest without an agent, or what is still to be made.
fn of_view(project: &ProjectName, view: &InstanceView, clock: &Clock) -> Row {
    let never = Facts { state: RunState::Created, health: None, exit_code: 0, started: None, finished: None };
    let facts = never.corrected(view);
    Row {
        name: view.container.clone(),
        id: view.id.clone().unwrap_or_default(),
        image: view.image.clone(),
        command: view.command.clone(),
        project: project.to_string(),
        service: view.name.service.to_string(),
        created: view.created,
        state: facts.state.as_str(),
        status: why(&view.state).unwrap_or_else(|| facts.status(clock)),
        health: facts.health,
        exit_code: facts.exit_code,
        ports: bound(view),
        labels: Default::default(),
        mounts: Vec::new(),
        volumes: 0,
        networks: view.addresses.keys().cloned().collect(),
    }
}

/// What a status is made of.
#[derive(Debug, Clone, Copy)]
struct Facts {
    state: RunState,
    health: Option<Health>,
    exit_code: i64,
    started: Option<Timestamp>,
    finished: Option<Timestamp>,
}

impl Facts {
    /// The same as a supervisor sees it, in the engine's words.
    fn corrected(self, view: &InstanceView) -> Self {
        let (state, exit_code) = match &view.state {
            InstanceState::Running | InstanceState::Stopping => (RunState::Running, 0),
            InstanceState::Paused => (RunState::Paused, 0),
            InstanceState::Exited { code, .. } => (RunState::Exited, *code),
            InstanceState::Restarting { code, .. } => (RunState::Restarting, *code),
            InstanceState::Waiting { .. }
            | InstanceState::Starting
            | InstanceState::Failed { .. }
            | InstanceState::Created => (RunState::Created, 0),
        };
        let health = view.health.filter(|_| state == RunState::Running || state == RunState::Paused);
        let (started, finished) = (view.started.or(self.started), view.finished.or(self.finished));
        Self { state, health, exit_code, started, finished }
    }

    /// Docker's words for it.
    fn status(&self, clock: &Clock) -> String {
        let up = self.started.map_or_else(String::new, |at| clock.age(at));
        let ended = self.finished.or(self.started).map_or_else(String::new, |at| clock.ago(at));
        match (self.state, self.health) {
            (RunState::Running, Some(Health::Starting)) => format!("Up {up} (health: starting)"),
            (RunState::Running, Some(health)) => format!("Up {up} ({})", health.as_str()),
            (RunState::Running, None) => format!("Up {up}"),
            (RunState::Paused, _) => format!("Up {up} (Paused)"),
            (RunState::Restarting, _) => format!("Restarting ({}) {ended}", self.exit_code),
            (RunState::Removing, _) => "Removal In Progress".into(),
            (RunState::Dead, _) => "Dead".into(),
            (RunState::Created, _) => "Created".into(),
            (RunState::Exited, _) => format!("Exited ({}) {ended}", self.exit_code),
        }
    }
}

/// Why an instance does not run, where a supervisor knows.
fn why(state: &InstanceState) -> Option<String> {
    match state {
        InstanceState::Waiting { reason } => Some(format!("Waiting for {reason}")),
        InstanceState::Failed { reason } => Some(format!("Failed: {reason}")),
        InstanceState::Starting => Some("Starting".into()),
        InstanceState::Running
        | InstanceState::Paused
        | InstanceState::Stopping
        | InstanceState::Exited { .. }
        | InstanceState::Restarting { .. }
        | InstanceState::Created => None,
    }
}

/// Whether the reference tool lists a container in that state without `-a`.
fn existing_is_listed(state: &str) -> bool {
    matches!(state, "running" | "paused" | "restarting")
}

/// Whether an instance without a container has nothing left to say without `-a`.
fn has_ended(state: &InstanceState) -> bool {
    matches!(state, InstanceState::Exited { .. } | InstanceState::Created)
}

#[cfg(test)]
mod tests;
