//! What exists now, in words no engine owns. A snapshot: planning asks nothing further.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::{InstanceName, NetworkKey, ServiceName, VolumeKey};

/// Everything of one project that the engines know.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    /// Containers, agents and guests, one-offs and orphans included.
    pub instances: Vec<Existing>,
    /// Networks that carry the project's labels, or a name the project uses.
    pub networks: Vec<ExistingNetwork>,
    /// Volumes that carry the project's labels, or a name the project uses.
    pub volumes: Vec<ExistingVolume>,
}

/// Something that runs or ran a replica.
#[derive(Debug, Clone, PartialEq)]
pub struct Existing {
    /// Id in its engine: 64 hex digits of a container, or the guest's own id.
    pub id: String,
    /// Container name, without the leading slash.
    pub name: String,
    /// What stands behind it.
    pub kind: ExistingKind,
    /// `com.docker.compose.service`.
    pub service: Option<ServiceName>,
    /// `com.docker.compose.container-number`.
    pub number: Option<u32>,
    /// `com.docker.compose.oneoff=True`.
    pub one_off: bool,
    /// Its state now.
    pub state: RunState,
    /// Health, where a check is declared.
    pub health: Option<Health>,
    /// Exit code of the last run; meaningful when exited.
    pub exit_code: i64,
    /// `com.docker.compose.config-hash`.
    pub config_hash: Option<String>,
    /// `dev.wcompose.hash`: only Wasm instances carry it.
    pub wasm_hash: Option<String>,
    /// `com.docker.compose.image`: image id it was created from.
    pub image_id: Option<String>,
    /// The image reference, as `ps` shows it.
    pub image: String,
    /// Entrypoint and command as one line.
    pub command: String,
    /// Networks joined, by the engine's network name, with the addresses there.
    pub networks: BTreeMap<String, Vec<IpAddr>>,
    /// Named volumes mounted, by the engine's volume name.
    pub volumes: Vec<String>,
    /// Anonymous volumes, by target path, with the engine's volume name.
    pub anonymous_volumes: BTreeMap<String, String>,
    /// Published ports.
    pub ports: Vec<PublishedPort>,
    /// Creation, seconds since the Unix epoch.
    pub created: i64,
    /// Last start, seconds since the Unix epoch, 0 when never started.
    pub started: i64,
    /// Last end, seconds since the Unix epoch, 0 when it never ended.
    pub finished: i64,
    /// Restarts the engine made.
    pub restarts: u32,
    /// All labels.
    pub labels: BTreeMap<String, String>,
}

impl Existing {
    /// Service and number, where both labels are there.
    pub fn instance(&self) -> Option<InstanceName> {
        Some(InstanceName::new(self.service.clone()?, self.number?))
    }
}

/// What stands behind an [`Existing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExistingKind {
    /// A Linux container.
    Container,
    /// The agent container of a Wasm instance. Running only says that a supervisor holds it.
    Agent,
    /// A guest of this process without an agent.
    Guest,
}

/// States of a container, in the engine's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Made, never started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Between two runs.
    Restarting,
    /// On its way out.
    Removing,
    /// Ended.
    Exited,
    /// The engine lost it.
    Dead,
}

impl RunState {
    /// The engine's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// Outcome of health checks so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// No verdict yet.
    Starting,
    /// The last check passed.
    Healthy,
    /// Too many checks failed in a row.
    Unhealthy,
}

impl Health {
    /// The engine's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// A port bound on the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Host address, e.g. `0.0.0.0`, `::`; empty when the port is only exposed.
    pub address: String,
    /// Host port, 0 when the port is only exposed.
    pub published: u16,
    /// Port inside.
    pub target: u16,
    /// `tcp` or `udp`.
    pub protocol: crate::model::Protocol,
}

/// A network the engine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingNetwork {
    /// The engine's id.
    pub id: String,
    /// The engine's name.
    pub name: String,
    /// `com.docker.compose.network`, when it belongs to the project.
    pub key: Option<NetworkKey>,
    /// Carries the project's label.
    pub owned: bool,
    /// `com.docker.compose.config-hash`.
    pub config_hash: Option<String>,
}

/// A volume the engine has (or a folder of the supervisor's, where there is no engine).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingVolume {
    /// The engine's name.
    pub name: String,
    /// `com.docker.compose.volume`, when it belongs to the project.
    pub key: Option<VolumeKey>,
    /// Carries the project's label.
    pub owned: bool,
    /// `com.docker.compose.config-hash`.
    pub config_hash: Option<String>,
    /// A folder of the supervisor's, not a volume of the engine's.
    pub in_process: bool,
}
