//! Networks and volumes: which are made, which are made anew, which are there.

use std::collections::{BTreeMap, BTreeSet};

use super::observed::{ExistingKind, Observed, RunState};
use super::spec::Specs;
use super::unit::{Cause, Edge, NetworkSpec, Step, Unit, UnitId, VolumeSpec, Work};
use super::{digest, label};
use crate::model::{Network, NetworkKey, Service, Volume, VolumeKey};
use crate::net::wiring;

/// The networks and volumes of the services brought up.
pub(super) struct Resources {
    /// What is to be made.
    pub(super) units: Vec<Unit>,
    /// Engine networks that are new, by key: whoever was on one of that name before has to join it anew.
    pub(super) renewed: BTreeMap<NetworkKey, String>,
}

impl Resources {
    /// What a service needs of them before anything of it can be made.
    pub(super) fn edges(&self, specs: &Specs<'_>, service: &Service) -> Vec<Edge> {
        let networks = service.networks.keys().cloned().map(UnitId::Network);
        let volumes = wiring::named_volumes(service)
            .filter(|key| specs.project.volumes.contains_key(*key))
            .map(|key| UnitId::Volume(key.clone()));
        let wanted: BTreeSet<UnitId> = networks.chain(volumes).collect();
        self.units.iter().filter(|unit| wanted.contains(&unit.id)).map(|unit| Edge::done(unit.id.clone())).collect()
    }
}

pub(super) fn wanted(
    specs: &Specs<'_>,
    selected: &[&Service],
    observed: &Observed,
    warnings: &mut Vec<String>,
) -> Resources {
    let networks: BTreeSet<&NetworkKey> = selected.iter().flat_map(|service| service.networks.keys()).collect();
    let volumes: BTreeSet<&VolumeKey> = selected.iter().flat_map(|service| wiring::named_volumes(service)).collect();
    let mut resources = Resources { units: Vec::new(), renewed: BTreeMap::new() };
    for network in specs.project.networks.values().filter(|network| networks.contains(&network.key)) {
        let in_process = specs.wiring.network_in_process(&network.key);
        let has_members = selected.iter().any(|one| one.networks.contains_key(&network.key) && specs.scale(one) > 0);
        if in_process && !has_members {
            continue;
        }
        let Some((replace, cause)) = network_cause(specs, network, in_process, observed, warnings) else { continue };
        if !in_process && !network.external {
            resources.renewed.insert(network.key.clone(), network.name.clone());
        }
        let hash = digest::network_hash(&network.document);
        let labels = label::of_resource(specs.project, &network.labels, (label::NETWORK, network.key.as_str()), &hash);
        let spec = NetworkSpec { network: network.clone(), labels, replace, in_process };
        resources.units.push(step(UnitId::Network(network.key.clone()), Step::CreateNetwork(Box::new(spec)), cause));
    }
    for volume in specs.project.volumes.values().filter(|volume| volumes.contains(&volume.key)) {
        let in_process = specs.wiring.volume_in_process(&volume.key);
        let Some(cause) = volume_cause(specs, volume, in_process, observed, warnings) else { continue };
        let hash = digest::volume_hash(&volume.document);
        let labels = label::of_resource(specs.project, &volume.labels, (label::VOLUME, volume.key.as_str()), &hash);
        let spec = VolumeSpec { volume: volume.clone(), labels, in_process };
        resources.units.push(step(UnitId::Volume(volume.key.clone()), Step::CreateVolume(Box::new(spec)), cause));
    }
    resources
}

/// Why a network has to be made, and the engine's id of the one it replaces; absent when it is there.
fn network_cause(
    specs: &Specs<'_>,
    network: &Network,
    in_process: bool,
    observed: &Observed,
    warnings: &mut Vec<String>,
) -> Option<(Option<String>, &'static str)> {
    if in_process {
        return (!is_in_use(observed, &network.name)).then_some((None, "not found"));
    }
    let named = || observed.networks.iter().filter(|existing| existing.name == network.name);
    let Some(existing) = named().find(|existing| existing.owned).or_else(|| named().next()) else {
        return Some((None, if network.external { "external" } else { "not found" }));
    };
    if network.external {
        return None;
    }
    if !existing.owned || existing.key.as_ref() != Some(&network.key) {
        warnings.push(format!(
            "a network with name {} exists but was not created for project \"{}\". Set `external: true` to use an \
             existing network",
            network.name, specs.project.name
        ));
        return None;
    }
    let hash = digest::network_hash(&network.document);
    // One that carries no hash was made by an old release; it is used as it is.
    let differs = existing.config_hash.as_ref().is_some_and(|known| *known != hash);
    differs.then(|| (Some(existing.id.clone()), "config changed"))
}

/// A network in process is there as long as a guest that runs is on it.
fn is_in_use(observed: &Observed, network: &str) -> bool {
    observed.instances.iter().any(|existing| {
        existing.kind != ExistingKind::Container
            && existing.state == RunState::Running
            && existing.networks.contains_key(network)
    })
}

/// Why a volume has to be made; absent when it is there. One whose declaration changed is kept: its data is worth more.
fn volume_cause(
    specs: &Specs<'_>,
    volume: &Volume,
    in_process: bool,
    observed: &Observed,
    warnings: &mut Vec<String>,
) -> Option<&'static str> {
    let mut named = observed.volumes.iter().filter(|existing| existing.name == volume.name);
    let Some(existing) = named.find(|existing| existing.in_process == in_process) else {
        return Some(if volume.external { "external" } else { "not found" });
    };
    if volume.external || in_process {
        return None;
    }
    if !existing.owned {
        warnings.push(format!(
            "volume \"{}\" already exists but was not created for project \"{}\". Use `external: true` to use an \
             existing volume",
            volume.name, specs.project.name
        ));
    } else if existing.config_hash.as_ref().is_some_and(|known| *known != digest::volume_hash(&volume.document)) {
        warnings.push(format!(
            "volume \"{}\" exists but doesn't match configuration in compose file. It is kept, since recreating it \
             would lose its data; `down -v` removes it",
            volume.name
        ));
    }
    None
}

fn step(id: UnitId, step: Step, cause: &str) -> Unit {
    Unit { id, work: Work::Step(step), cause: Cause(cause.to_owned()), after: Vec::new() }
}
