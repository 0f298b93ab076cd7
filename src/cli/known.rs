//! What exists of a project, as a project of its own: for commands that act on what is there and make nothing.

use std::collections::BTreeMap;

use super::resolve::Resolution;
use crate::model::{ImageConfig, Project, Resolved, ServiceName};
use crate::plan::observed::{Existing, ExistingKind, Observed, RunState};
use crate::plan::unit::Plan;
use crate::plan::{self, Recreate};

/// What a command without a supervisor can act on.
pub struct Known {
    /// Watches what runs, and starts what is stopped where that was asked for.
    pub plan: Plan,
    /// Containers in the plan.
    pub instances: usize,
    /// There are agents whose guests went with their supervisor.
    pub lost_guests: bool,
}

/// Which stopped containers are to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// None.
    Left,
    /// Those of these services; empty means all.
    Started(Vec<ServiceName>),
}

/// What exists of `project`, as a plan that changes nothing but what `stopped` says.
pub fn known(project: &Project, observed: &Observed, stopped: &Stopped) -> Known {
    let wanted = |existing: &Existing| {
        let Some(instance) = existing.instance() else { return false };
        let runs = matches!(existing.state, RunState::Running | RunState::Restarting | RunState::Paused);
        let started = match stopped {
            Stopped::Left => false,
            Stopped::Started(services) => services.is_empty() || services.contains(&instance.service),
        };
        !existing.one_off && existing.kind == ExistingKind::Container && (runs || started)
    };
    let instances: Vec<Existing> = observed.instances.iter().filter(|existing| wanted(existing)).cloned().collect();
    let mut counts: BTreeMap<ServiceName, u32> = BTreeMap::new();
    let mut resolution = Resolution::new();
    for existing in &instances {
        let Some(service) = existing.service.clone() else { continue };
        *counts.entry(service.clone()).or_default() += 1;
        let (image, id) = (existing.image.clone(), existing.image_id.clone().unwrap_or_default());
        resolution.insert(service, Resolved::Linux { image, id, config: ImageConfig::default() });
    }
    let mut there = project.clone();
    there.services.retain(|name, _| counts.contains_key(name));
    for service in there.services.values_mut() {
        service.scale = counts[&service.name];
        service.depends_on.retain(|name, _| counts.contains_key(name));
    }
    let options = plan::Options { recreate: Recreate::Never, ..plan::Options::default() };
    let lost_guests = observed.instances.iter().any(|existing| existing.kind == ExistingKind::Agent);
    let observed = Observed { instances, networks: observed.networks.clone(), volumes: observed.volumes.clone() };
    Known {
        plan: plan::plan(&there, &resolution, &observed, &options),
        instances: observed.instances.len(),
        lost_guests,
    }
}
