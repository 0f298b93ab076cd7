//! One instance as the supervisor sees it: what is wished, where it is in its life, what is known of it, how views see it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::check::{Check, Unrecognised};
use super::health::Monitor;
use super::restart::Backoff;
use crate::engine::report::{Attempt, ErrorKind, Exit, Started};
use crate::event::{InstanceState, InstanceView, Kind, ModuleView};
use crate::model::{InstanceName, Module, Resolved};
use crate::plan::observed::{Existing, Health, PublishedPort, RunState};
use crate::plan::unit::{Action, Addresses, Edge, EdgeCondition, InstanceSpec, UnitId};

/// What is wished of an instance. The core moves the instance towards it, a step at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To run, or to have run.
    Run,
    /// Not to run.
    Rest,
    /// To end, then to run anew.
    Again,
}

/// Where an instance is in its life.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Not started since it was last wished to run.
    Idle,
    /// The engine was asked; facts that arrive before its answer are kept until then.
    Starting {
        /// What progress says when it runs; absent for a restart by policy.
        announce: Option<&'static str>,
        /// `Started` was reported.
        started: bool,
        /// The engine's call returned: there is a handle now.
        returned: bool,
        /// It ended already.
        exit: Option<Exit>,
    },
    /// Runs.
    Running {
        /// Since then, counted from the supervisor's start.
        since: Duration,
        /// Frozen.
        paused: bool,
    },
    /// Asked to end.
    Stopping {
        /// How the last run ended, where it was between two runs.
        last: Option<(i64, Option<String>)>,
    },
    /// Ended.
    Exited {
        /// Exit code.
        code: i64,
        /// More than the code.
        reason: Option<String>,
    },
    /// Ended; the core will start it again.
    Backoff {
        /// At this time.
        until: Duration,
        /// Exit code.
        code: i64,
        /// More than the code.
        reason: Option<String>,
    },
    /// Ended; its engine will start it again.
    Restarting {
        /// Exit code.
        code: i64,
        /// More than the code.
        reason: Option<String>,
    },
    /// Could not be started or stopped, or what it depends on failed.
    Failed {
        /// Why.
        problem: Problem,
        /// What failed first, where it is not the instance itself.
        origin: Origin,
    },
}

/// Where a failure came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The instance itself, or an instance it depends on.
    Instance,
    /// A step of the plan, which tells its failure itself.
    Step,
}

/// Why something did not work, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What sort of failure, where an engine told.
    pub kind: Option<ErrorKind>,
}

impl Problem {
    /// A problem without advice.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, kind: None }
    }
}

/// Facts that views show and decisions do not need.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Facts {
    id: Option<String>,
    addresses: Addresses,
    ports: Vec<PublishedPort>,
    pub(super) created: Option<Timestamp>,
    pub(super) started: Option<Timestamp>,
    pub(super) finished: Option<Timestamp>,
}

/// What a running instance is to become without being stopped.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    /// This, as soon as it may begin.
    Wanted(Arc<InstanceSpec>),
    /// This: the engine is at it.
    Underway(Arc<InstanceSpec>),
    /// The same anew, in its own place: the engine is at it.
    Anew(Arc<InstanceSpec>),
}

/// What is waited for of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// That a dependent may start.
    Condition(EdgeCondition),
    /// That it is ready, for whoever brought it up.
    Ready,
}

/// One instance.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) spec: Arc<InstanceSpec>,
    pub(super) action: Action,
    /// What must hold before it starts; whom it outlives when both are stopped.
    pub(super) after: Vec<Edge>,
    /// Optional dependencies that failed and are no longer waited for.
    pub(super) waived: Vec<UnitId>,
    pub(super) wish: Wish,
    pub(super) state: State,
    pub(super) attempt: Attempt,
    /// What it is to become while it runs.
    pub(super) next: Option<Next>,
    /// Instead of its own grace period, for the next stop.
    pub(super) grace: Option<Duration>,
    /// SIGKILL was sent in this attempt.
    pub(super) killed: bool,
    pub(super) backoff: Backoff,
    pub(super) restarts: u32,
    pub(super) health: Option<Health>,
    /// What the last failed probe said.
    pub(super) last_probe: Option<String>,
    pub(super) check: Result<Option<Check>, Unrecognised>,
    pub(super) monitor: Option<Monitor>,
    /// Progress said that somebody waits for this of it.
    pub(super) awaited: Option<Awaited>,
    pub(super) facts: Facts,
    /// As views were last told.
    pub(super) shown: Option<InstanceView>,
    /// The edge of `after` that it waited for then, by its index.
    pub(super) blocked: Option<usize>,
}

impl Instance {
    pub(super) fn new(spec: Arc<InstanceSpec>) -> Self {
        Self {
            check: check_of(&spec),
            spec,
            action: Action::Start,
            after: Vec::new(),
            waived: Vec::new(),
            wish: Wish::Rest,
            state: State::Idle,
            attempt: Attempt::default(),
            next: None,
            grace: None,
            killed: false,
            backoff: Backoff::default(),
            restarts: 0,
            health: None,
            last_probe: None,
            monitor: None,
            awaited: None,
            facts: Facts::default(),
            shown: None,
            blocked: None,
        }
    }

    pub(super) fn respecify(&mut self, spec: Arc<InstanceSpec>) {
        self.check = check_of(&spec);
        self.spec = spec;
    }

    /// Whether something of it runs or is about to, so that it takes a stop to end it.
    pub(super) fn is_active(&self) -> bool {
        match self.state {
            State::Starting { .. } | State::Running { .. } | State::Stopping { .. } | State::Restarting { .. } => true,
            State::Idle | State::Exited { .. } | State::Backoff { .. } | State::Failed { .. } => false,
        }
    }

    /// Whether it came as far as it was wished, or will not come any further.
    pub(super) fn has_arrived(&self) -> bool {
        match (self.wish, &self.state) {
            (Wish::Again, _) => false,
            (Wish::Rest, _) => !self.is_active(),
            (Wish::Run, State::Running { .. }) if self.next.is_some() => false,
            (Wish::Run, State::Idle | State::Starting { .. } | State::Stopping { .. }) => false,
            (
                Wish::Run,
                State::Running { .. }
                | State::Exited { .. }
                | State::Backoff { .. }
                | State::Restarting { .. }
                | State::Failed { .. },
            ) => true,
        }
    }

    /// `Container <name>`, as compose's progress calls it.
    pub(super) fn label(&self) -> String {
        container_label(&self.spec.container)
    }

    /// Takes what a start or restart told.
    pub(super) fn learn(&mut self, started: Started) {
        self.health = started.health;
        self.facts.id = Some(started.id);
        self.facts.addresses = started.addresses;
        self.facts.ports = started.ports;
        self.facts.started = Some(started.at);
        self.facts.finished = None;
        self.facts.created = self.facts.created.or(Some(started.at));
    }

    pub(super) fn moved(&mut self, addresses: Addresses) {
        self.facts.addresses = addresses;
    }

    /// Takes what was observed of it before.
    pub(super) fn recall(&mut self, existing: &Existing) {
        let time = |seconds: i64| Timestamp::from_second(seconds).ok().filter(|_| seconds > 0);
        self.facts.id = Some(existing.id.clone());
        self.facts.created = time(existing.created).or(self.facts.created);
        self.facts.started = time(existing.started).or(self.facts.started);
        self.restarts = existing.restarts;
    }

    /// As it was observed: it does not run, and nobody wishes it to.
    pub(super) fn leave(&mut self, existing: &Existing) {
        self.recall(existing);
        self.facts.finished = Timestamp::from_second(existing.finished).ok().filter(|_| existing.finished > 0);
        self.wish = Wish::Rest;
        self.action = Action::Start;
        self.state = match existing.state {
            RunState::Created => State::Idle,
            RunState::Running
            | RunState::Paused
            | RunState::Restarting
            | RunState::Removing
            | RunState::Exited
            | RunState::Dead => State::Exited { code: existing.exit_code, reason: None },
        };
    }

    /// Forgets what held of the last run only.
    pub(super) fn ended(&mut self, at: Timestamp) {
        self.facts.finished = Some(at);
        self.facts.addresses.clear();
        self.health = None;
        self.monitor = None;
        self.grace = None;
    }

    /// As views see it; `waiting` says what an idle instance waits for.
    pub(super) fn view(&self, waiting: Option<String>) -> InstanceView {
        let exited =
            |code: &i64, reason: &Option<String>| InstanceState::Exited { code: *code, reason: reason.clone() };
        let restarting =
            |code: &i64, reason: &Option<String>| InstanceState::Restarting { code: *code, reason: reason.clone() };
        let state = match &self.state {
            State::Idle => match (self.wish, waiting) {
                (Wish::Rest, _) => InstanceState::Created,
                (Wish::Run | Wish::Again, Some(reason)) => InstanceState::Waiting { reason },
                (Wish::Run | Wish::Again, None) => InstanceState::Starting,
            },
            State::Starting { .. } => InstanceState::Starting,
            State::Running { paused: true, .. } => InstanceState::Paused,
            State::Running { paused: false, .. } => InstanceState::Running,
            State::Stopping { .. } => InstanceState::Stopping,
            State::Exited { code, reason } => exited(code, reason),
            State::Backoff { code, reason, .. } | State::Restarting { code, reason } => restarting(code, reason),
            State::Failed { problem, .. } => InstanceState::Failed { reason: problem.message.clone() },
        };
        let (kind, image, module) = match &self.spec.resolved {
            Resolved::Linux { image, .. } => (Kind::Linux, image.clone(), None),
            Resolved::Wasm(module) => (Kind::Wasm, module.reference.clone(), Some(module_view(module))),
        };
        InstanceView {
            name: self.spec.name.clone(),
            container: self.spec.container.clone(),
            kind,
            image,
            module,
            command: command_line(&self.spec),
            state,
            health: self.health,
            restarts: self.restarts,
            ports: self.facts.ports.clone(),
            addresses: self.facts.addresses.clone(),
            id: self.facts.id.clone(),
            created: self.facts.created,
            started: self.facts.started,
            finished: self.facts.finished,
        }
    }
}

/// Linux health comes from the engine, so only guests have a check of ours.
fn check_of(spec: &InstanceSpec) -> Result<Option<Check>, Unrecognised> {
    if spec.resolved.is_wasm() { Check::of(spec) } else { Ok(None) }
}

/// How people call an instance: by its service, with the number where there are several.
pub(super) fn spoken(name: &InstanceName, replicas: usize) -> String {
    if replicas > 1 { format!("`{name}`") } else { format!("`{}`", name.service) }
}

/// `Container <name>`, as compose's progress calls it.
pub(super) fn container_label(container: &str) -> String {
    format!("Container {container}")
}

/// An image built without a platform of Wasm says another; a guest is Wasm all the same.
fn module_view(module: &Module) -> ModuleView {
    let platform = &module.config.platform;
    let is_wasm = platform.contains("wasi") || platform.contains("wasm");
    ModuleView {
        digest: module.digest.clone(),
        size: module.size,
        platform: if is_wasm { platform.clone() } else { "wasi/wasm".to_owned() },
    }
}

/// Entrypoint and command as one line; a declared entrypoint leaves out the image's command, as in the engine.
fn command_line(spec: &InstanceSpec) -> String {
    let (service, image) = (&spec.service, spec.resolved.config());
    let entrypoint = service.entrypoint.as_ref().unwrap_or(&image.entrypoint);
    let none = Vec::new();
    let command = match (&service.command, &service.entrypoint) {
        (Some(command), _) => command,
        (None, None) => &image.command,
        (None, Some(_)) => &none,
    };
    let mut words: Vec<&str> = entrypoint.iter().chain(command).map(String::as_str).collect();
    if let (true, Resolved::Wasm(module)) = (entrypoint.is_empty(), &spec.resolved)
        && let Some(file) = module.path.file_name().and_then(|file| file.to_str())
    {
        words.insert(0, file);
    }
    words.join(" ")
}
