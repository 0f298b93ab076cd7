//! The way towards nothing: containers in reverse dependency order, then networks, then volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::label;
use super::observed::{Existing, ExistingKind, Observed, RunState};
use super::unit::{Cause, Edge, Plan, Step, Unit, UnitId, Work};
use crate::model::{Project, ServiceName};

/// What is taken down: a project whose files are at hand, or what carries a name.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// What the files declare.
    Project(&'a Project),
    /// Whatever carries the project's labels, in the order the labels tell.
    Labels,
}

/// What is asked of a plan towards nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DownOptions {
    /// Services named on the command line; empty means all.
    pub services: Vec<ServiceName>,
    /// Also named volumes of the file, and anonymous ones.
    pub volumes: bool,
    /// Also one-offs and services that are not declared.
    pub remove_orphans: bool,
    /// Grace period, instead of each container's own.
    pub timeout: Option<Duration>,
}

/// The way from what exists to nothing, as far as it was asked for; warnings name what stays.
pub fn down(target: Target<'_>, observed: &Observed, options: &DownOptions) -> Plan {
    let (leaving, staying): (Vec<&Existing>, Vec<&Existing>) =
        observed.instances.iter().partition(|existing| leaves(target, existing, options));
    let mut plan = Plan { units: removals(target, &leaving, options), warnings: Vec::new() };
    let after: Vec<Edge> =
        plan.units.iter().map(|unit| Edge { required: false, ..Edge::done(unit.id.clone()) }).collect();
    if options.services.is_empty() {
        plan.warnings.extend(left_over(target, &staying));
    }

    for network in observed.networks.iter().filter(|network| network.owned) {
        let key = network.key.as_ref();
        if matches!(target, Target::Project(project) if key.and_then(|key| project.networks.get(key)).is_some_and(|declared| declared.external))
        {
            continue;
        }
        let id = UnitId::RemoveNetwork(network.name.clone());
        // Only containers that run hold a network.
        let holder = staying.iter().find(|existing| {
            let runs = matches!(existing.state, RunState::Running | RunState::Paused | RunState::Restarting);
            runs && existing.networks.contains_key(&network.name)
        });
        match holder {
            None => plan.units.push(step(id, Step::RemoveNetwork(network.name.clone()), &after)),
            Some(holder) if options.services.is_empty() => {
                plan.warnings.push(format!("network {} is left: {} still uses it", network.name, holder.name));
            }
            Some(_) => {}
        }
    }

    let volumes = observed.volumes.iter().filter(|volume| options.volumes && volume.owned);
    for volume in volumes.filter(|volume| is_declared_volume(target, volume.key.as_ref())) {
        match staying.iter().find(|existing| existing.volumes.contains(&volume.name)) {
            None => {
                let id = UnitId::RemoveVolume(volume.name.clone());
                plan.units.push(step(id, Step::RemoveVolume(volume.name.clone()), &after));
            }
            Some(holder) if options.services.is_empty() => {
                plan.warnings.push(format!("volume {} is left: {} still uses it", volume.name, holder.name));
            }
            Some(_) => {}
        }
    }
    plan
}

/// Whether a container is of a service the project neither enables nor disables, or a one-off that ended.
pub(super) fn is_orphan(project: &Project, existing: &Existing) -> bool {
    if existing.one_off {
        return matches!(existing.state, RunState::Exited | RunState::Dead);
    }
    !existing
        .service
        .as_ref()
        .is_some_and(|name| project.services.contains_key(name) || project.disabled.contains_key(name))
}

/// A unit that removes a container or guest.
pub(super) fn removal(existing: &Existing, cause: &str, grace: Option<Duration>, volumes: bool) -> Unit {
    let step = Step::Remove { existing: Box::new(existing.clone()), grace, volumes };
    Unit {
        id: UnitId::Remove(existing.name.clone()),
        work: Work::Step(step),
        cause: Cause(cause.to_owned()),
        after: Vec::new(),
    }
}

fn leaves(target: Target<'_>, existing: &Existing, options: &DownOptions) -> bool {
    let declared = match (target, &existing.service) {
        (_, None) => false,
        (Target::Project(project), Some(name)) => project.services.contains_key(name),
        (Target::Labels, Some(_)) => true,
    };
    let named =
        options.services.is_empty() || existing.service.as_ref().is_some_and(|name| options.services.contains(name));
    let undeclared = match target {
        Target::Project(project) => !existing.service.as_ref().is_some_and(|name| project.disabled.contains_key(name)),
        Target::Labels => true,
    };
    // A guest cannot outlive its supervisor, nor can its agent be started again without.
    let ends_anyway = existing.one_off && existing.kind != ExistingKind::Container && options.services.is_empty();
    match (declared && !existing.one_off, options.remove_orphans) {
        _ if ends_anyway => true,
        (true, _) => named,
        (false, true) => options.services.is_empty() && (existing.one_off || undeclared),
        (false, false) => false,
    }
}

/// Removals, each after those of its dependents.
fn removals(target: Target<'_>, leaving: &[&Existing], options: &DownOptions) -> Vec<Unit> {
    let dependencies: BTreeMap<&ServiceName, BTreeSet<ServiceName>> = leaving
        .iter()
        .filter_map(|existing| Some((existing.service.as_ref()?, dependencies(target, existing))))
        .collect();
    let depth = depths(&dependencies);
    let mut ordered: Vec<&Existing> = leaving.to_vec();
    ordered.sort_by_key(|existing| {
        let depth = existing.service.as_ref().and_then(|name| depth.get(name)).copied().unwrap_or(usize::MAX);
        (std::cmp::Reverse(depth), existing.service.clone(), existing.number, existing.name.clone())
    });
    let mut units: Vec<Unit> = Vec::new();
    for existing in ordered {
        let cause = match (existing.one_off, target, &existing.service) {
            (true, _, _) => "one-off",
            (false, Target::Project(project), Some(name)) if !project.services.contains_key(name) => "orphan",
            (false, _, None) => "orphan",
            (false, _, Some(_)) => existing.state.as_str(),
        };
        let mut unit = removal(existing, cause, options.timeout, options.volumes);
        if let Some(service) = existing.service.as_ref().filter(|_| !existing.one_off) {
            unit.after = leaving
                .iter()
                .filter(|other| {
                    other
                        .service
                        .as_ref()
                        .and_then(|name| dependencies.get(name))
                        .is_some_and(|on| on.contains(service))
                })
                .filter(|other| units.iter().any(|unit| unit.id == UnitId::Remove(other.name.clone())))
                .map(|other| Edge { required: false, ..Edge::done(UnitId::Remove(other.name.clone())) })
                .collect();
        }
        units.push(unit);
    }
    units
}

fn dependencies(target: Target<'_>, existing: &Existing) -> BTreeSet<ServiceName> {
    let declared = match (target, &existing.service) {
        (Target::Project(project), Some(name)) => project.services.get(name),
        (Target::Labels, _) | (_, None) => None,
    };
    match declared {
        Some(service) => service.depends_on.keys().cloned().collect(),
        None => existing
            .labels
            .get(label::DEPENDS_ON)
            .map(|text| label::parse_dependencies(text).map(|(name, _)| name).collect())
            .unwrap_or_default(),
    }
}

/// The longest way from each service down to one that depends on nothing. Labels can be wrong: a cycle ends the count.
fn depths(dependencies: &BTreeMap<&ServiceName, BTreeSet<ServiceName>>) -> BTreeMap<ServiceName, usize> {
    let mut depths: BTreeMap<ServiceName, usize> = dependencies.keys().map(|name| ((*name).clone(), 0)).collect();
    for _ in 0..dependencies.len() {
        let mut moved = false;
        for (name, on) in dependencies {
            let depth = on.iter().filter_map(|other| depths.get(other)).map(|depth| depth + 1).max().unwrap_or(0);
            if depths.get(*name).is_some_and(|known| *known < depth) {
                depths.insert((*name).clone(), depth);
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    depths
}

fn left_over(target: Target<'_>, staying: &[&Existing]) -> Vec<String> {
    let names = |keep: &dyn Fn(&Existing) -> bool| {
        let names: Vec<&str> = staying.iter().filter(|one| keep(one)).map(|one| one.name.as_str()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let is_disabled = |existing: &Existing| match (target, &existing.service) {
        (Target::Project(project), Some(name)) => !existing.one_off && project.disabled.contains_key(name),
        (Target::Labels, _) | (_, None) => false,
    };
    let mut warnings = Vec::new();
    if let Some(names) = names(&|existing| existing.one_off) {
        warnings.push(format!("containers of `run` are left: {names}; `--remove-orphans` removes them, too"));
    }
    if let Some(names) = names(&|existing| !existing.one_off && !is_disabled(existing)) {
        warnings.push(format!(
            "containers of services that are not declared are left: {names}; `--remove-orphans` removes them, too"
        ));
    }
    if let Some(names) = names(&is_disabled) {
        warnings.push(format!(
            "containers of services whose profile is not enabled are left: {names}; `--profile` enables it"
        ));
    }
    warnings
}

fn is_declared_volume(target: Target<'_>, key: Option<&crate::model::VolumeKey>) -> bool {
    match target {
        Target::Labels => true,
        Target::Project(project) => {
            key.and_then(|key| project.volumes.get(key)).is_some_and(|declared| !declared.external)
        }
    }
}

fn step(id: UnitId, step: Step, after: &[Edge]) -> Unit {
    Unit { id, work: Work::Step(step), cause: Cause("down".into()), after: after.to_vec() }
}
