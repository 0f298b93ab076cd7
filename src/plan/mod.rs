//! Project + Observed → Plan. Pure and total: the same inputs give the same text, nothing is asked of an engine.
//!
//! [`plan`] is the way towards a project, [`run`] towards a one-off in it, [`down()`] towards nothing. Planning cannot fail: cycles and dangling names
//! were diagnostics before, and what only an engine can tell (an external network that is not there) fails as a step.
//!
//! The law both keep: units stand in an order that respects their edges, and planning again once a plan was carried out
//! gives nothing but adoptions.

pub mod digest;
mod down;
pub mod label;
pub mod observed;
mod once;
mod replicas;
mod resources;
pub mod select;
mod spec;
#[cfg(test)]
mod tests;
pub mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use self::observed::Observed;
use self::replicas::Replicas;
use self::spec::Specs;
use self::unit::{Action, Cause, Edge, EdgeCondition, Plan, Unit, UnitId, Work};
use crate::model::{Condition, NetworkMode, Project, Service, ServiceName};
pub use crate::net::wiring::Resolution;
pub use down::{DownOptions, Target, down};
pub use once::{OneOff, is_one_off_of, run};
pub use select::Dependencies;

/// What is asked of a plan towards a project.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Services named on the command line; empty means all.
    pub services: Vec<ServiceName>,
    /// Whether what they depend on comes with them.
    pub dependencies: Dependencies,
    /// When existing instances are replaced.
    pub recreate: Recreate,
    /// What becomes of a running guest of which nothing but the module changed.
    pub new_module: NewModule,
    /// How many replicas there are to be.
    pub count: Count,
    /// Create only.
    pub no_start: bool,
    /// What happens to containers of services that are not declared.
    pub orphans: Orphans,
    /// Grace period of what is removed, instead of its own.
    pub timeout: Option<Duration>,
    /// Replicas, instead of the declared number.
    pub scale: BTreeMap<ServiceName, u32>,
    /// Reach granted for this run, on top of `x-wasm.egress`.
    pub allow_egress: Vec<(ServiceName, String)>,
}

/// When existing instances are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recreate {
    /// When they differ from what is declared.
    #[default]
    Changed,
    /// Those of the services named on the command line always, others when they differ.
    Always,
    /// Never.
    Never,
}

/// What becomes of a running guest of which nothing but the module changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NewModule {
    /// It is replaced, as a container is whose image changed.
    #[default]
    Replaces,
    /// It takes the new module while it runs.
    Swaps,
}

/// How many replicas of a service there are to be that has some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Count {
    /// The declared number, or that of [`Options::scale`].
    #[default]
    Declared,
    /// As many as there are.
    AsBefore,
}

/// What happens to containers of services that are not declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Orphans {
    /// They stay, and a warning names them.
    #[default]
    Warn,
    /// They stay.
    Ignore,
    /// They are removed.
    Remove,
}

/// The way from what exists to a project that is up.
///
/// `resolution` names every enabled service, also those not brought up, since their kind decides about networks.
/// `observed` tells of agents what is true of their guests: the caller marks an agent that runs while no guest of this
/// process stands behind it as [`RunState::Exited`](observed::RunState::Exited).
pub fn plan(project: &Project, resolution: &Resolution, observed: &Observed, options: &Options) -> Plan {
    let selected = select::services(project, &options.services, options.dependencies);
    let specs = Specs::new(project, resolution, options);
    let mut warnings = Vec::new();

    let resources = resources::wanted(&specs, &selected, observed, &mut warnings);
    let mut removals = orphans(project, observed, options, &mut warnings);
    let mut replicas: BTreeMap<&ServiceName, Replicas> = BTreeMap::new();
    for service in &selected {
        let Some(resolved) = resolution.get(&service.name) else {
            warnings.push(format!("service `{}` is left out: its image was not resolved", service.name));
            continue;
        };
        let renewed = renewed_beneath(service, &replicas);
        let found = replicas::decide(&specs, service, resolved, observed, &resources, renewed);
        removals.extend(found.removals(options.timeout));
        replicas.insert(&service.name, found);
    }

    let gone = edges_to(&removals);
    let mut creates = Vec::new();
    for service in &selected {
        let Some(found) = replicas.get(&service.name) else { continue };
        let mut after = resources.edges(&specs, service);
        after.extend(gone.iter().cloned());
        after.extend(namespaces(service).iter().filter_map(|other| replicas.get(other)).flat_map(Replicas::created));
        creates.extend(found.creates(&after));
    }

    let made: Vec<Edge> = edges_to(&creates).into_iter().chain(gone).collect();
    let mut instances = Vec::new();
    for service in selected.iter().filter(|_| !options.no_start) {
        let Some(found) = replicas.get(&service.name) else { continue };
        let conditions = conditions(service, &replicas);
        let mut after = resources.edges(&specs, service);
        after.extend(made.iter().cloned());
        after.extend(conditions.iter().cloned());
        instances.extend(found.instances(&after, &conditions));
    }

    let units = [resources.units, removals, creates, instances].concat();
    Plan { units, warnings }
}

/// What a service waits for before it starts: all replicas of each dependency that is brought up, too.
fn conditions(service: &Service, replicas: &BTreeMap<&ServiceName, Replicas>) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (name, dependency) in &service.depends_on {
        let condition = match dependency.condition {
            Condition::Started => EdgeCondition::Started,
            Condition::Healthy => EdgeCondition::Healthy,
            Condition::Completed => EdgeCondition::Completed,
        };
        for on in replicas.get(name).into_iter().flat_map(Replicas::names) {
            edges.push(Edge { on: UnitId::Instance(on.clone()), condition, required: dependency.required });
        }
    }
    edges
}

/// A dependency that is replaced, and pulls this service along: by `restart: true`, or since it lives in its namespace.
fn renewed_beneath<'a>(service: &'a Service, replicas: &BTreeMap<&ServiceName, Replicas>) -> Option<&'a ServiceName> {
    let restarting = service.depends_on.iter().filter(|(_, dependency)| dependency.restart).map(|(name, _)| name);
    let replaced = |name: &&ServiceName| replicas.get(name).is_some_and(Replicas::replaces);
    restarting.into_iter().find(replaced).or_else(|| {
        let beneath: BTreeSet<ServiceName> = namespaces(service).into_iter().collect();
        service.depends_on.keys().filter(|name| beneath.contains(*name)).find(replaced)
    })
}

/// Services whose network, IPC or process namespace or whose volumes this one shares, so that their container must be there first.
fn namespaces(service: &Service) -> Vec<ServiceName> {
    let mut names = Vec::new();
    if let Some(NetworkMode::Service(name)) = &service.network_mode {
        names.push(name.clone());
    }
    for key in ["ipc", "pid"] {
        let value = service.document.get(key).and_then(|value| value.as_str());
        names.extend(value.and_then(|value| value.strip_prefix("service:")).map(ServiceName::from));
    }
    let volumes = service.document.get("volumes_from").and_then(|value| value.as_array());
    for entry in volumes.into_iter().flatten().filter_map(|value| value.as_str()) {
        if !entry.starts_with("container:") {
            names.push(entry.split(':').next().unwrap_or(entry).into());
        }
    }
    names
}

fn orphans(project: &Project, observed: &Observed, options: &Options, warnings: &mut Vec<String>) -> Vec<Unit> {
    let found: Vec<_> = observed.instances.iter().filter(|existing| down::is_orphan(project, existing)).collect();
    match options.orphans {
        Orphans::Remove => {
            found.into_iter().map(|existing| down::removal(existing, "orphan", options.timeout, false)).collect()
        }
        Orphans::Warn if !found.is_empty() => {
            let names: Vec<&str> = found.iter().map(|existing| existing.name.as_str()).collect();
            warnings.push(format!(
                "Found orphan containers ([{}]) for this project. If you removed or renamed this service in your \
                 compose file, you can run this command with the --remove-orphans flag to clean it up.",
                names.join(" ")
            ));
            Vec::new()
        }
        Orphans::Warn | Orphans::Ignore => Vec::new(),
    }
}

fn edges_to(steps: &[Unit]) -> Vec<Edge> {
    steps.iter().map(|unit| Edge::done(unit.id.clone())).collect()
}

/// A unit that runs an instance.
fn instance(spec: &std::sync::Arc<unit::InstanceSpec>, action: Action, cause: Cause, after: Vec<Edge>) -> Unit {
    let id = UnitId::Instance(spec.name.clone());
    Unit { id, work: Work::Instance(std::sync::Arc::clone(spec), action), cause, after }
}
