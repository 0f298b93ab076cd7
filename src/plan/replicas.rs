//! What becomes of a service's replicas: kept, replaced, added, removed.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::observed::{Existing, ExistingKind, Observed, RunState};
use super::resources::Resources;
use super::spec::Specs;
use super::unit::{Action, Cause, Edge, InstanceSpec, Step, Unit, UnitId, Work};
use super::{Count, NewModule, Recreate, down, instance};
use crate::model::{InstanceName, Resolved, Service, ServiceName};
use crate::net::wiring::Place;

/// A service's replicas as they shall be, and those that go.
pub(super) struct Replicas {
    wanted: Vec<Replica>,
    leaving: Leaving,
}

/// What goes, and why.
type Leaving = Vec<(Existing, &'static str)>;

/// One replica that shall be.
struct Replica {
    spec: Arc<InstanceSpec>,
    fate: Fate,
}

enum Fate {
    /// There is none: it is made.
    New,
    /// What there is, is replaced, for this reason.
    Replaced(Box<Existing>, Cause),
    /// What there is, is right.
    Kept(Box<Existing>),
    /// What there is, is right but for its module, which it takes while it runs.
    Swapped(Box<Existing>, Cause),
}

/// Decides about a service. `renewed` is a dependency whose replacement pulls its dependents along.
pub(super) fn decide(
    specs: &Specs<'_>,
    service: &Service,
    resolved: &Resolved,
    observed: &Observed,
    resources: &Resources,
    renewed: Option<&ServiceName>,
) -> Replicas {
    let (numbered, mut leaving) = existing_of(specs, service, observed);
    let highest = numbered.iter().map(|(number, _)| *number).max().unwrap_or(0);
    let mut judged: Vec<(Option<Cause>, u32, Existing)> = numbered
        .into_iter()
        .map(|(number, existing)| {
            let spec = specs.spec(service, resolved, number, None);
            (difference(specs, &spec, &existing, resources, renewed), number, existing)
        })
        .collect();
    let scale = match specs.options.count {
        Count::AsBefore if !judged.is_empty() => judged.len() as u32,
        Count::AsBefore | Count::Declared => specs.scale(service),
    };

    // The outdated go first, then the highest numbers.
    judged.sort_by_key(|(cause, number, _)| (cause.is_none(), Reverse(*number)));
    let surplus = judged.len().saturating_sub(scale as usize);
    leaving.extend(judged.drain(..surplus).map(|(_, _, existing)| (existing, "scaled down")));
    judged.sort_by_key(|(_, number, _)| *number);

    let mut wanted: Vec<Replica> = judged
        .into_iter()
        .map(|(cause, number, existing)| match cause {
            Some(cause) => {
                let spec = specs.spec(service, resolved, number, None);
                let fate = if swaps(specs, &spec, &existing, resources, renewed) {
                    Fate::Swapped(Box::new(existing), cause)
                } else {
                    Fate::Replaced(Box::new(existing), cause)
                };
                Replica { spec, fate }
            }
            None => Replica {
                spec: specs.spec(service, resolved, number, Some(&existing.name)),
                fate: Fate::Kept(Box::new(existing)),
            },
        })
        .collect();
    let missing = scale - wanted.len() as u32;
    wanted.extend(
        (1..=missing)
            .map(|next| Replica { spec: specs.spec(service, resolved, highest + next, None), fate: Fate::New }),
    );
    Replicas { wanted, leaving }
}

/// Whether all that differs is the module, and the instance can take the new one while it runs. Other files and settings of
/// an image it came in count as what it was made from, so that they are the same.
fn swaps(
    specs: &Specs<'_>,
    spec: &InstanceSpec,
    existing: &Existing,
    resources: &Resources,
    renewed: Option<&ServiceName>,
) -> bool {
    let Resolved::Wasm(module) = &spec.resolved else { return false };
    let old = existing.image_id.as_deref().and_then(|id| id.strip_prefix("sha256:"));
    specs.options.new_module == NewModule::Swaps
        && specs.options.recreate == Recreate::Changed
        && existing.state == RunState::Running
        && wanted_kind(spec) == existing.kind
        && existing.name == spec.container
        && existing.config_hash.as_ref() == Some(&spec.config_hash)
        && old.is_some_and(|old| old != module.digest)
        && existing.wasm_hash == old.map(|old| specs.wasm_hash(&spec.service, old))
        && membership_difference(spec, existing, resources).is_none()
        && renewed.is_none()
}

/// What there is of a service, each with a number of its own, and what an interrupted replacement left beside it.
fn existing_of(specs: &Specs<'_>, service: &Service, observed: &Observed) -> (Vec<(u32, Existing)>, Leaving) {
    let mut found: Vec<&Existing> = observed
        .instances
        .iter()
        .filter(|existing| existing.service.as_ref() == Some(&service.name) && !existing.one_off)
        .filter(|existing| existing.state != RunState::Removing)
        .collect();
    // Of two with one number, the one with the right name stays, else the one that runs, else the newer.
    found.sort_by_key(|existing| {
        let named = existing.number.is_some_and(|number| existing.name == specs.container(service, number));
        (!named, existing.state != RunState::Running, Reverse(existing.created), existing.name.clone())
    });
    let mut taken = BTreeSet::new();
    let (mut numbered, mut unnumbered, mut leaving) = (Vec::new(), Vec::new(), Vec::new());
    for existing in found {
        match existing.number {
            Some(number) if taken.insert(number) => numbered.push((number, existing.clone())),
            Some(_) => leaving.push((existing.clone(), "left by an interrupted recreate")),
            None => unnumbered.push(existing.clone()),
        }
    }
    let highest = taken.last().copied().unwrap_or(0);
    numbered.extend((highest + 1..).zip(unnumbered));
    (numbered, leaving)
}

/// Why an existing instance has to be replaced; absent when it is as it should be.
fn difference(
    specs: &Specs<'_>,
    spec: &InstanceSpec,
    existing: &Existing,
    resources: &Resources,
    renewed: Option<&ServiceName>,
) -> Option<Cause> {
    let cause = |text: &str| Some(Cause(text.to_owned()));
    // These cannot be started as they are, whatever was asked for.
    match (wanted_kind(spec), existing.kind) {
        (wanted, found) if wanted == found => {}
        (ExistingKind::Container, ExistingKind::Agent | ExistingKind::Guest) => return cause("now a Linux service"),
        (ExistingKind::Agent | ExistingKind::Guest, ExistingKind::Container) => return cause("now a Wasm service"),
        (ExistingKind::Agent, _) => return cause("now beside Linux services"),
        (ExistingKind::Guest | ExistingKind::Container, _) => return cause("now beside Wasm services only"),
    }
    if existing.number.is_none() {
        return cause("without a number");
    }
    if existing.state == RunState::Dead {
        return cause("dead");
    }
    if existing.name.strip_suffix(&spec.container).is_some_and(is_temporary_prefix) {
        return cause("left by an interrupted recreate");
    }
    let named = &specs.options.services;
    match specs.options.recreate {
        Recreate::Never => return None,
        Recreate::Always if named.is_empty() || named.contains(&spec.name.service) => return cause("forced"),
        Recreate::Always | Recreate::Changed => {}
    }
    if existing.config_hash.as_deref() != Some(&spec.config_hash) {
        return cause("config changed");
    }
    if let Some(text) = image_difference(spec, existing).or_else(|| membership_difference(spec, existing, resources)) {
        return Some(Cause(text));
    }
    renewed.map(|name| Cause(format!("`{name}` is recreated")))
}

fn wanted_kind(spec: &InstanceSpec) -> ExistingKind {
    match (&spec.resolved, spec.place) {
        (Resolved::Linux { .. }, _) => ExistingKind::Container,
        (Resolved::Wasm(_), Place::Agent) => ExistingKind::Agent,
        (Resolved::Wasm(_), Place::InProcess) => ExistingKind::Guest,
    }
}

/// `0123456789ab_`, before the name of a container that is about to take another's place.
fn is_temporary_prefix(prefix: &str) -> bool {
    prefix.strip_suffix('_').is_some_and(|id| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn image_difference(spec: &InstanceSpec, existing: &Existing) -> Option<String> {
    match &spec.resolved {
        Resolved::Linux { id, .. } => (existing.image_id.as_ref() != Some(id)).then(|| "image changed".to_owned()),
        Resolved::Wasm(module) => {
            if existing.wasm_hash == spec.wasm_hash {
                return None;
            }
            let id = format!("sha256:{}", module.digest);
            let same_module = existing.image_id.as_ref() == Some(&id);
            Some(if same_module { "config changed: x-wasm" } else { "module changed" }.to_owned())
        }
    }
}

/// Networks left and volumes not mounted. Of a guest without a container, the hashes tell it all.
fn membership_difference(spec: &InstanceSpec, existing: &Existing, resources: &Resources) -> Option<String> {
    if existing.kind == ExistingKind::Guest {
        return None;
    }
    let mut joins = spec.engine_networks();
    let left = joins.find_map(|join| {
        if resources.renewed.contains_key(&join.key) {
            return Some(format!("network new: {}", join.name));
        }
        let left = existing.state == RunState::Running && !existing.networks.contains_key(&join.name);
        left.then(|| format!("network left: {}", join.name))
    });
    left.or_else(|| {
        let name = spec.volumes.values().find(|name| !existing.volumes.contains(name))?;
        Some(format!("volume not mounted: {name}"))
    })
}

impl Replicas {
    /// The replicas that shall be.
    pub(super) fn names(&self) -> impl Iterator<Item = &InstanceName> {
        self.wanted.iter().map(|replica| &replica.spec.name)
    }

    /// Whether something that exists is replaced.
    pub(super) fn replaces(&self) -> bool {
        self.wanted.iter().any(|replica| matches!(replica.fate, Fate::Replaced(..)))
    }

    /// Edges to what is made.
    pub(super) fn created(&self) -> impl Iterator<Item = Edge> {
        let made = self.wanted.iter().filter(|replica| matches!(replica.fate, Fate::New | Fate::Replaced(..)));
        made.map(|replica| Edge::done(UnitId::Create(replica.spec.name.clone())))
    }

    /// Units that remove what is not wanted.
    pub(super) fn removals(&self, grace: Option<Duration>) -> Vec<Unit> {
        self.leaving.iter().map(|(existing, cause)| down::removal(existing, cause, grace, false)).collect()
    }

    /// Units that make what is missing or differs.
    pub(super) fn creates(&self, after: &[Edge]) -> Vec<Unit> {
        let unit = |replica: &Replica| {
            let (replace, cause) = match &replica.fate {
                Fate::New => (None, Cause("not found".into())),
                Fate::Replaced(existing, cause) => (Some(existing.clone()), cause.clone()),
                Fate::Kept(_) | Fate::Swapped(..) => return None,
            };
            let step = Step::Create { spec: Arc::clone(&replica.spec), replace };
            let id = UnitId::Create(replica.spec.name.clone());
            Some(Unit { id, work: Work::Step(step), cause, after: after.to_vec() })
        };
        self.wanted.iter().filter_map(unit).collect()
    }

    /// Units that run them. What runs already is adopted; of `after`, only its `conditions` matter: whom it outlives.
    pub(super) fn instances(&self, after: &[Edge], conditions: &[Edge]) -> Vec<Unit> {
        let unit = |replica: &Replica| {
            let start = |cause: Cause| instance(&replica.spec, Action::Start, cause, after.to_vec());
            match &replica.fate {
                Fate::New => start(Cause("not found".into())),
                Fate::Replaced(_, cause) => start(cause.clone()),
                Fate::Swapped(existing, cause) => {
                    instance(&replica.spec, Action::Swap(existing.clone()), cause.clone(), conditions.to_vec())
                }
                Fate::Kept(existing) => {
                    let cause = Cause(existing.state.as_str().to_owned());
                    match existing.state {
                        RunState::Running | RunState::Paused | RunState::Restarting => {
                            let action = Action::Adopt(existing.clone());
                            instance(&replica.spec, action, cause, conditions.to_vec())
                        }
                        RunState::Created | RunState::Exited | RunState::Removing | RunState::Dead => start(cause),
                    }
                }
            }
        };
        self.wanted.iter().map(unit).collect()
    }
}
