//! The gap between a program that ends and the one that takes its place: ports that the first lets go of stay open, and who
//! connects meanwhile waits for the second. A gap is bounded: what nobody listens on again when it is dropped is closed,
//! as all of it is when the instance leaves the network.

use std::net::SocketAddr;
use std::sync::Arc;

use super::carrier::HttpService;
use super::fabric::{Binding, Fabric};
use super::listener::Sources;
use crate::model::InstanceName;

/// A port that waits for its next listener.
#[derive(Debug)]
pub(super) struct Held {
    gap: u64,
    at: SocketAddr,
    sources: Sources,
}

/// A gap of an instance. Dropping it ends it.
#[derive(Debug)]
pub struct Gap {
    fabric: Arc<Fabric>,
    instance: InstanceName,
    id: u64,
}

impl Drop for Gap {
    fn drop(&mut self) {
        let mut state = self.fabric.state();
        let Some(member) = state.members.get_mut(&self.instance) else { return };
        member.gap = member.gap.filter(|gap| *gap != self.id);
        let closed: Vec<Held> = member.held.extract_if(.., |held| held.gap == self.id).collect();
        // Their ends ask for the lock.
        drop(state);
        drop(closed);
    }
}

impl Fabric {
    /// Begins a gap of an instance; what an earlier one holds stays with that one.
    pub(super) fn gap(self: &Arc<Self>, instance: &InstanceName) -> Gap {
        let mut state = self.state();
        let id = state.next_id();
        if let Some(member) = state.members.get_mut(instance) {
            member.gap = Some(id);
        }
        drop(state);
        Gap { fabric: self.clone(), instance: instance.clone(), id }
    }

    /// Takes what a listener listened with: kept in a gap, closed else. What answers HTTP itself has nobody to wait for.
    pub(super) fn let_go(&self, at: SocketAddr, sources: Sources) {
        let mut state = self.state();
        let member = state.members.get_mut(sources.instance());
        let member =
            member.filter(|member| member.listeners.iter().any(|one| one.id == sources.id() && one.service.is_none()));
        if let Some(member) = member
            && let Some(gap) = member.gap
        {
            member.held.push(Held { gap, at, sources });
            return;
        }
        drop(state);
        drop(sources);
    }

    /// What waits for a listener at this address. What waits at another one of that port is closed: it would be in the way.
    pub(super) fn take_back(
        &self,
        instance: &InstanceName,
        at: SocketAddr,
        service: Option<&Arc<dyn HttpService>>,
    ) -> Option<Sources> {
        let mut state = self.state();
        let member = state.members.get_mut(instance)?;
        let place = member.held.iter().position(|held| held.at.port() == at.port())?;
        let held = member.held.swap_remove(place);
        if held.at != at {
            drop(state);
            drop(held);
            return None;
        }
        let binding = member.listeners.iter_mut().find(|binding| binding.id == held.sources.id());
        let binding = binding.expect("it is entered as long as its sources are there");
        *binding = Arc::new(Binding {
            id: binding.id,
            at,
            inside: binding.inside.clone(),
            published: binding.published.clone(),
            service: service.cloned(),
        });
        Some(held.sources)
    }
}
