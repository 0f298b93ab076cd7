//! What commands do with guests beside the supervisor's loop: look at what they use, run a one-off, and do away with it.

use std::sync::Arc;
use std::time::Duration;

use super::attached::Ends;
use super::instance::{Instance, Life};
use super::{Wasm, stop};
use crate::engine::{Engine as _, Handle, Outlet, Result};
use crate::model::{InstanceName, ProjectName, Usage};
use crate::net::wiring::Place;
use crate::plan::unit::InstanceSpec;

impl Wasm {
    /// Memory that a running guest uses now, in bytes.
    pub fn memory(&self, instance: &InstanceName) -> Option<u64> {
        self.lock().get(instance).and_then(Instance::running).map(|running| running.grants.memory.used())
    }

    /// What the running guests of a project use now.
    pub fn usage(&self, project: &ProjectName) -> Vec<Usage> {
        let instances = self.lock();
        instances.values().filter(|instance| instance.spec.project == *project).filter_map(Instance::usage).collect()
    }

    /// What was created under this container's name.
    pub fn created(&self, container: &str) -> Option<Arc<InstanceSpec>> {
        self.lock().values().find(|instance| instance.spec.container == container).map(|instance| instance.spec.clone())
    }

    /// Starts what was created, with somebody at its streams instead of the log.
    pub async fn start_attached(
        &self,
        spec: &Arc<InstanceSpec>,
        outlet: Outlet,
        ends: Ends,
    ) -> Result<Box<dyn Handle>> {
        self.run(spec, outlet, Some(ends)).await
    }

    /// One-offs that were created and not started yet.
    pub fn unstarted(&self) -> Vec<Arc<InstanceSpec>> {
        let instances = self.lock();
        let waits = |instance: &&Instance| instance.life == Life::Created && instance.spec.is_one_off();
        instances.values().filter(waits).map(|instance| instance.spec.clone()).collect()
    }

    /// Whether anything was created and is not removed yet.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Removes what was created, and all that is left of it.
    pub async fn discard(&self, spec: &InstanceSpec) -> Result<()> {
        self.end(&spec.name, Some(Duration::ZERO)).await?;
        if spec.place == Place::Agent {
            let docker = self.docker(spec)?;
            let observed = docker.observe(&spec.project).await?;
            if let Some(existing) = observed.instances.iter().find(|existing| existing.name == spec.container) {
                docker.remove(existing, Some(Duration::ZERO), true).await?;
            }
        }
        self.clear(&spec.container, &spec.name, spec.project.as_str()).await
    }
}

/// The number a signal ends a guest with; none where it ends nothing.
pub fn deadly_signal(name: &str) -> Option<u8> {
    match stop::effect(name) {
        stop::Effect::Ends(number) => Some(number),
        stop::Effect::Nothing | stop::Effect::Unknown => None,
    }
}
