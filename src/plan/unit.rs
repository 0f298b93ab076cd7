//! The plan: a graph of units, each with a cause. Units are *steps*, which end, or *instances*, which live on.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use super::observed::Existing;
use crate::model::{
    Attachment, InstanceName, Network, NetworkKey, ProjectName, Resolved, Service, ServiceName, Volume, VolumeKey,
};
use crate::net::wiring::Place;

/// What names a unit, stable from one plan to the next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnitId {
    /// Removing containers whose service or replica is no longer wanted, by container name.
    Remove(String),
    /// A network.
    Network(NetworkKey),
    /// A volume.
    Volume(VolumeKey),
    /// Creating what an instance needs, without running it.
    Create(InstanceName),
    /// The instance itself.
    Instance(InstanceName),
    /// Removing a network at the end of `down`, by the engine's name.
    RemoveNetwork(String),
    /// Removing a volume at the end of `down`, by the engine's name.
    RemoveVolume(String),
}

/// One line of the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    /// Its name.
    pub id: UnitId,
    /// What is done.
    pub work: Work,
    /// Why: "not found", "config changed: environment", "orphan", "running".
    pub cause: Cause,
    /// What must hold first.
    pub after: Vec<Edge>,
}

/// Why a unit is in the plan, one phrase for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause(pub String);

/// A condition on another unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The unit waited for.
    pub on: UnitId,
    /// What must hold of it.
    pub condition: EdgeCondition,
    /// When it can no longer hold, this unit fails; otherwise it goes on with a warning.
    pub required: bool,
}

impl Edge {
    /// A step has to end well first.
    pub fn done(on: UnitId) -> Self {
        Self { on, condition: EdgeCondition::Done, required: true }
    }
}

/// What an edge waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EdgeCondition {
    /// A step ended well.
    Done,
    /// An instance was started.
    Started,
    /// An instance is healthy.
    Healthy,
    /// An instance ended with exit code 0.
    Completed,
}

/// What a unit does.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Ends.
    Step(Step),
    /// Lives on.
    Instance(Arc<InstanceSpec>, Action),
}

/// How an instance comes to run.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Start what a `Create` unit made or what exists stopped.
    Start,
    /// It runs already as it should: only watch it.
    Adopt(Box<Existing>),
    /// It does not run, and is left so; a later wish may start it.
    Know(Box<Existing>),
    /// It runs, and nothing but its module is another one: the new one takes over while it runs.
    Swap(Box<Existing>),
}

/// Something done once.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Make a network; with `replace`, first remove the one whose configuration differs.
    CreateNetwork(Box<NetworkSpec>),
    /// Make a volume.
    CreateVolume(Box<VolumeSpec>),
    /// Make an instance's container, or compile and prepare its guest; with `replace`, in place of an existing one.
    Create {
        /// What to make.
        spec: Arc<InstanceSpec>,
        /// What it replaces: stopped, removed, its anonymous volumes carried over.
        replace: Option<Box<Existing>>,
    },
    /// Stop and remove an instance that is not wanted.
    Remove {
        /// What to remove.
        existing: Box<Existing>,
        /// Stop it this gently; absent means its own grace period.
        grace: Option<Duration>,
        /// Also its anonymous volumes.
        volumes: bool,
    },
    /// Remove a network by the engine's name.
    RemoveNetwork(String),
    /// Remove a volume by the engine's name.
    RemoveVolume(String),
}

/// A network to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkSpec {
    /// As declared.
    pub network: Network,
    /// Every label it gets.
    pub labels: BTreeMap<String, String>,
    /// Engine id of the network it replaces.
    pub replace: Option<String>,
    /// Of Wasm services alone: it lives in this process, and no engine has to make it.
    pub in_process: bool,
}

/// A volume to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeSpec {
    /// As declared.
    pub volume: Volume,
    /// Every label it gets.
    pub labels: BTreeMap<String, String>,
    /// Whether it is a folder of the user's instead of an engine's volume.
    pub in_process: bool,
}

/// What becomes of an instance once its run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtEnd {
    /// It is kept, and can be started again.
    #[default]
    Kept,
    /// Its engine removes it, with its anonymous volumes; a start that fails is an end, too.
    Removed,
}

/// Everything an engine needs to run one replica.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceSpec {
    /// Which replica.
    pub name: InstanceName,
    /// The project.
    pub project: ProjectName,
    /// Container name (`<project>-<service>-<n>`, or `container_name`).
    pub container: String,
    /// As declared.
    pub service: Arc<Service>,
    /// What runs it.
    pub resolved: Resolved,
    /// Where a Wasm instance lives on the network; `InProcess` for Linux is meaningless and never read.
    pub place: Place,
    /// Every label its container gets (compose's and `dev.wcompose.*`).
    pub labels: BTreeMap<String, String>,
    /// `com.docker.compose.config-hash`.
    pub config_hash: String,
    /// `dev.wcompose.hash`, of a Wasm instance.
    pub wasm_hash: Option<String>,
    /// Networks: those an engine knows first, the primary one at their head, then those in process.
    pub networks: Vec<NetworkJoin>,
    /// Environment: the image's, the declared one over it, the link variables; what the guest sees.
    pub environment: IndexMap<String, String>,
    /// Named volumes: key → the engine's name.
    pub volumes: IndexMap<VolumeKey, String>,
    /// Container ports of the dependencies and names it may look up are in `net::directory`; what it may reach
    /// outside its networks is here, as written (`x-wasm.egress` and `--allow-egress`).
    pub egress: Vec<String>,
    /// What becomes of it at its end.
    pub at_end: AtEnd,
}

impl InstanceSpec {
    /// Whether it is one of `run`.
    pub fn is_one_off(&self) -> bool {
        self.labels.get(super::label::ONE_OFF).is_some_and(|flag| flag == "True")
    }

    /// The networks its container joins: all but those in process.
    pub fn engine_networks(&self) -> impl Iterator<Item = &NetworkJoin> {
        self.networks.iter().filter(|join| !join.in_process)
    }
}

/// How an instance joins one network.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkJoin {
    /// Key in the project.
    pub key: NetworkKey,
    /// The engine's name.
    pub name: String,
    /// All names it has there: container name, service, declared aliases.
    pub aliases: Vec<String>,
    /// As declared: addresses, MAC, driver options.
    pub attachment: Attachment,
    /// No way out of it (`internal: true`).
    pub internal: bool,
    /// It has IPv6 (`enable_ipv6: true`).
    pub ipv6: bool,
    /// Of Wasm services alone: it lives in this process, and no engine knows it.
    pub in_process: bool,
}

/// A plan: units in an order that respects their edges.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Units, dependencies before dependents.
    pub units: Vec<Unit>,
    /// What people should know: orphans left, networks not owned.
    pub warnings: Vec<String>,
}

impl Plan {
    /// The unit of that name.
    pub fn unit(&self, id: &UnitId) -> Option<&Unit> {
        self.units.iter().find(|unit| unit.id == *id)
    }
}

/// Addresses of one instance, by the engine's network name.
pub type Addresses = BTreeMap<String, Vec<IpAddr>>;

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remove(name) => write!(f, "remove {name}"),
            Self::Network(key) => write!(f, "network {key}"),
            Self::Volume(key) => write!(f, "volume {key}"),
            Self::Create(name) => write!(f, "create {name}"),
            Self::Instance(name) => write!(f, "{name}"),
            Self::RemoveNetwork(name) => write!(f, "remove network {name}"),
            Self::RemoveVolume(name) => write!(f, "remove volume {name}"),
        }
    }
}

/// One line a unit: what is done to what, why, and which instances it waits for.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for unit in &self.units {
            writeln!(f, "{unit}")?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { work, cause, after, .. } = self;
        write!(f, "{work} ({cause})")?;
        let mut separator = " after ";
        for edge in after {
            if let UnitId::Instance(on) = &edge.on {
                let optional = if edge.required { "" } else { "?" };
                write!(f, "{separator}{on} {}{optional}", edge.condition)?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(step) => write!(f, "{step}"),
            Self::Instance(spec, Action::Start) => write!(f, "start {}", spec.container),
            Self::Instance(spec, Action::Adopt(_)) => write!(f, "keep {}", spec.container),
            Self::Instance(spec, Action::Know(_)) => write!(f, "leave {}", spec.container),
            Self::Instance(spec, Action::Swap(_)) => write!(f, "swap the module of {}", spec.container),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateNetwork(spec) => {
                let verb = made(spec.network.external, spec.replace.is_some());
                write!(f, "{verb} network {}{}", spec.network.name, place(spec.in_process))
            }
            Self::CreateVolume(spec) => {
                write!(f, "{} volume {}{}", made(spec.volume.external, false), spec.volume.name, place(spec.in_process))
            }
            Self::Create { spec, replace } => write!(f, "{} {}", made(false, replace.is_some()), spec.container),
            Self::Remove { existing, .. } => write!(f, "remove {}", existing.name),
            Self::RemoveNetwork(name) => write!(f, "remove network {name}"),
            Self::RemoveVolume(name) => write!(f, "remove volume {name}"),
        }
    }
}

fn made(external: bool, replaces: bool) -> &'static str {
    match (external, replaces) {
        (true, _) => "find",
        (false, true) => "recreate",
        (false, false) => "create",
    }
}

fn place(in_process: bool) -> &'static str {
    if in_process { " in process" } else { "" }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for EdgeCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Started => "started",
            Self::Healthy => "healthy",
            Self::Completed => "completed",
        })
    }
}

/// A dependency's name and port as a Wasm service gets them in its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The dependency.
    pub service: ServiceName,
    /// Its first container port.
    pub port: Option<u16>,
}
