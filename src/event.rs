//! What views see of a supervisor: a [`Snapshot`], and [`Event`]s that change it. Versioned, serialised as JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{InstanceName, ProjectName, ServiceName};
use crate::plan::observed::{Health, PublishedPort};

/// Version of the snapshot's and events' JSON. Adding a field is free; changing one adds one here.
pub const VERSION: u32 = 1;

/// Everything a view shows, at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`VERSION`].
    pub version: u32,
    /// The project.
    pub project: ProjectName,
    /// Its directory.
    pub directory: PathBuf,
    /// Its files.
    pub files: Vec<PathBuf>,
    /// Process id of the supervisor that holds it.
    pub supervisor: u32,
    /// What the supervisor is at.
    pub phase: Phase,
    /// Instances in start order.
    pub instances: IndexMap<InstanceName, InstanceView>,
}

/// What a supervisor is at, as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Loading, resolving images, starting.
    Starting,
    /// Every wanted instance reached its state, or failed.
    Running,
    /// Nothing is wanted any more.
    Stopping,
    /// Nothing runs.
    Stopped,
}

/// Linux container or Wasm guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A Linux container.
    Linux,
    /// A Wasm guest.
    Wasm,
}

/// One instance as views show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceView {
    /// Which replica.
    pub name: InstanceName,
    /// Container name.
    pub container: String,
    /// What runs it.
    pub kind: Kind,
    /// Image reference or module path.
    pub image: String,
    /// Entrypoint and command as one line.
    pub command: String,
    /// Where it is in its life.
    pub state: InstanceState,
    /// Health, where a check is declared.
    pub health: Option<Health>,
    /// Times it was started again after an exit.
    pub restarts: u32,
    /// Ports bound on the host.
    pub ports: Vec<PublishedPort>,
    /// Addresses by the engine's network name.
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
    /// Container id or guest id, once it was started.
    pub id: Option<String>,
    /// First seen or created.
    pub created: Option<Timestamp>,
    /// Last start.
    pub started: Option<Timestamp>,
    /// Last end.
    pub finished: Option<Timestamp>,
}

/// Where an instance is in its life: one state, not flags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum InstanceState {
    /// Wanted; its conditions do not hold yet.
    Waiting {
        /// What it waits for, by name: "`db` to become healthy".
        reason: String,
    },
    /// Being created or started.
    Starting,
    /// Runs.
    Running,
    /// Frozen.
    Paused,
    /// Asked to end.
    Stopping,
    /// Ended.
    Exited {
        /// Exit code.
        code: i64,
        /// More than the code: a trap, out of memory.
        reason: Option<String>,
    },
    /// Ended and will be started again.
    Restarting {
        /// Exit code of the last run.
        code: i64,
        /// More than the code.
        reason: Option<String>,
    },
    /// Could not be started, or what it depends on failed.
    Failed {
        /// Why.
        reason: String,
    },
    /// Created or known, not wanted to run.
    Created,
}

/// A change, with its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened, in the past tense.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A plan was taken over: these are the instances now, in start order.
    Planned {
        /// All of them.
        instances: Vec<InstanceView>,
    },
    /// The supervisor as a whole went on.
    PhaseChanged {
        /// To this.
        phase: Phase,
    },
    /// A step or the start of an instance began: progress for people. `id` as compose prints it (`Network x`, `Container y`).
    StepStarted {
        /// What.
        id: String,
        /// `Creating`, `Starting`, `Building`, …
        status: String,
    },
    /// It ended well.
    StepFinished {
        /// What.
        id: String,
        /// `Created`, `Started`, `Built`, …
        status: String,
    },
    /// It failed.
    StepFailed {
        /// What.
        id: String,
        /// Why.
        error: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// An instance's state changed, and with it whatever else is different in the view.
    Changed {
        /// The instance as it is now.
        instance: Box<InstanceView>,
    },
    /// An instance is gone.
    Removed {
        /// Which.
        instance: InstanceName,
    },
    /// A guest was refused something.
    Refused {
        /// Whose guest.
        instance: InstanceName,
        /// What it asked for.
        what: String,
        /// Why it was refused.
        why: String,
        /// The line to add to the file, where there is one.
        grant: Option<String>,
    },
    /// Something people should know.
    Warned {
        /// What.
        message: String,
    },
    /// A command was carried out, as far as it could be.
    Settled {
        /// The command's number.
        request: u64,
        /// What did not work, one phrase each; empty when all did.
        failures: Vec<Failure>,
    },
}

/// One thing that did not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The service, where it is about one.
    pub service: Option<ServiceName>,
    /// What.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}
