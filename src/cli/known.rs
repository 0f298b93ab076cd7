//! What exists of a project, as a project of its own: for commands that act on what is there and make nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use super::resolve::Resolution;
use crate::model::{ImageConfig, Project, ProjectName, Resolved, Service, ServiceName};
use crate::plan::observed::{Existing, ExistingKind, Observed, RunState};
use crate::plan::unit::{Action, Plan, Unit, Work};
use crate::plan::{self, Recreate, label};

/// What a command without a supervisor can act on.
pub struct Known {
    /// Watches what runs, and leaves alone what does not.
    pub plan: Plan,
    /// Services that have containers, running or not.
    pub services: Vec<ServiceName>,
    /// There are agents whose guests went with their supervisor.
    pub lost_guests: bool,
}

/// Which stopped containers a command can act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// None.
    Left,
    /// Those of these services; empty means all.
    Known(Vec<ServiceName>),
}

/// What exists of `project`, as a plan that changes nothing. What is stopped and not known as `stopped` says is as if it
/// were not there: nobody waits for it.
pub fn known(project: &Project, observed: &Observed, stopped: &Stopped) -> Known {
    let is_ours = |existing: &&Existing| !existing.one_off && existing.kind == ExistingKind::Container;
    let meant = |existing: &&Existing| match (&existing.service, stopped) {
        (None, _) => false,
        (Some(_), _) if runs(existing) => true,
        (Some(_), Stopped::Left) => false,
        (Some(service), Stopped::Known(services)) => services.is_empty() || services.contains(service),
    };
    let instances: Vec<Existing> = observed.instances.iter().filter(is_ours).filter(meant).cloned().collect();
    let mut counts: BTreeMap<ServiceName, u32> = BTreeMap::new();
    let mut resolution = Resolution::new();
    for existing in &instances {
        let Some(service) = existing.service.clone() else { continue };
        *counts.entry(service.clone()).or_default() += 1;
        let (image, id) = (existing.image.clone(), existing.image_id.clone().unwrap_or_default());
        resolution.insert(service, Resolved::Linux { image, id, config: ImageConfig::default() });
    }
    let mut there = project.clone();
    there.services.extend(std::mem::take(&mut there.disabled));
    there.services.retain(|name, _| counts.contains_key(name));
    for service in there.services.values_mut() {
        service.scale = counts[&service.name];
        service.depends_on.retain(|name, _| counts.contains_key(name));
    }
    let options =
        plan::Options { recreate: Recreate::Never, orphans: plan::Orphans::Ignore, ..plan::Options::default() };
    let mut services: Vec<ServiceName> =
        observed.instances.iter().filter(is_ours).filter_map(|existing| existing.service.clone()).collect();
    services.sort();
    services.dedup();
    let lost_guests = observed.instances.iter().any(|existing| existing.kind == ExistingKind::Agent);
    let observed = Observed { instances, networks: observed.networks.clone(), volumes: observed.volumes.clone() };
    let planned = plan::plan(&there, &resolution, &observed, &options);
    let units = planned.units.into_iter().filter_map(|unit| as_it_is(unit, &observed)).collect();
    Known { plan: Plan { units, warnings: Vec::new() }, services, lost_guests }
}

/// The project that the labels of what exists tell of.
pub fn labelled(name: &ProjectName, observed: &Observed) -> Project {
    let mut services: IndexMap<ServiceName, Service> = IndexMap::new();
    for existing in observed.instances.iter().filter(|existing| !existing.one_off) {
        let Some(service) = &existing.service else { continue };
        let entry = services.entry(service.clone()).or_insert_with(|| Service::named(service.clone()));
        entry.scale = entry.scale.max(existing.number.unwrap_or(1));
        let depends_on = existing.labels.get(label::DEPENDS_ON).map_or("", String::as_str);
        entry.depends_on.extend(label::parse_dependencies(depends_on));
    }
    services.sort_keys();
    Project {
        name: name.clone(),
        directory: PathBuf::new(),
        files: Vec::new(),
        environment_files: Vec::new(),
        services,
        disabled: IndexMap::new(),
        networks: IndexMap::new(),
        volumes: IndexMap::new(),
        configs: IndexMap::new(),
        secrets: IndexMap::new(),
        separator: '-',
        all_resources: false,
        document: Value::Null,
    }
}

/// A unit that takes what exists as it is, whatever the plan had in mind for it.
fn as_it_is(unit: Unit, observed: &Observed) -> Option<Unit> {
    let Work::Instance(mut spec, _) = unit.work else { return None };
    let named = |existing: &&Existing| existing.name == spec.container;
    let numbered = |existing: &&Existing| existing.instance().as_ref() == Some(&spec.name);
    let mut instances = observed.instances.iter();
    let existing = instances.clone().find(named).or_else(|| instances.find(numbered))?;
    if existing.name != spec.container {
        Arc::make_mut(&mut spec).container.clone_from(&existing.name);
    }
    let found = Box::new(existing.clone());
    let action = if runs(existing) { Action::Adopt(found) } else { Action::Know(found) };
    Some(Unit { work: Work::Instance(spec, action), ..unit })
}

fn runs(existing: &Existing) -> bool {
    matches!(existing.state, RunState::Running | RunState::Restarting | RunState::Paused)
}
