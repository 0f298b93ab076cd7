//! What exists: containers, networks and volumes of a project, in the plan's own words.

use std::collections::{BTreeMap, HashMap};

use bollard::Docker as Client;
use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, HealthStatusEnum, Network, Volume,
};
use bollard::query_parameters::{
    InspectNetworkOptions, ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::container::{CONFIG_HASH, IMAGE, PROJECT, SERVICE, WASM_HASH, find};
use super::error::{failed, is_not_found, wrap};
use super::presence::addresses;
use crate::engine::Result;
use crate::model::{ExposedPort, NetworkKey, ProjectName, ServiceName, VolumeKey};
use crate::plan::observed::{
    Existing, ExistingKind, ExistingNetwork, ExistingVolume, Health, Observed, PublishedPort, RunState,
};

const NETWORK: &str = "com.docker.compose.network";
const VOLUME: &str = "com.docker.compose.volume";
const NUMBER: &str = "com.docker.compose.container-number";
const ONE_OFF: &str = "com.docker.compose.oneoff";
/// Containers asked about at the same time.
const AT_ONCE: usize = 16;

/// Everything that carries the project's labels, and the named networks and volumes that do not.
pub(super) async fn observe(
    client: &Client,
    project: &ProjectName,
    networks: &[String],
    volumes: &[String],
) -> Result<Observed> {
    let (instances, networks, volumes) = tokio::try_join!(
        containers(client, project),
        all_networks(client, project, networks),
        all_volumes(client, project, volumes),
    )?;
    Ok(Observed { instances, networks, volumes })
}

/// The container that publishes a port of the host.
pub(super) async fn port_holder(client: &Client, port: u16) -> Option<String> {
    let options = ListContainersOptionsBuilder::default().build();
    let containers = client.list_containers(Some(options)).await.ok()?;
    containers.into_iter().find_map(|container| {
        let holds = container.ports.iter().flatten().any(|published| published.public_port == Some(port));
        let name = container.names?.into_iter().next()?;
        holds.then(|| name.trim_start_matches('/').to_owned())
    })
}

/// The verdict on a running container's health, where it has a check.
///
/// The engine calls unhealthy whatever ended: that is no verdict.
pub(super) fn health(container: &ContainerInspectResponse) -> Option<Health> {
    verdict(container).filter(|_| is_running(container))
}

/// The health a run begins with; it may have ended by now.
pub(super) fn first_health(container: &ContainerInspectResponse) -> Option<Health> {
    verdict(container).map(|verdict| if is_running(container) { verdict } else { Health::Starting })
}

fn verdict(container: &ContainerInspectResponse) -> Option<Health> {
    match container.state.as_ref()?.health.as_ref()?.status? {
        HealthStatusEnum::STARTING => Some(Health::Starting),
        HealthStatusEnum::HEALTHY => Some(Health::Healthy),
        HealthStatusEnum::UNHEALTHY => Some(Health::Unhealthy),
        HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => None,
    }
}

/// The last check did not end by itself: it was killed, alone or along with its container.
pub(super) fn last_check_was_killed(container: &ContainerInspectResponse) -> bool {
    let health = container.state.as_ref().and_then(|state| state.health.as_ref());
    let last = health.and_then(|health| health.log.as_ref()?.last());
    last.is_some_and(|last| last.exit_code == Some(137))
}

/// It runs now, and is not between two runs.
pub(super) fn is_running(container: &ContainerInspectResponse) -> bool {
    let state = container.state.as_ref();
    state.is_some_and(|state| state.running == Some(true) && state.restarting != Some(true))
}

/// Ports of a container, published ones and ones that are only exposed.
pub(super) fn published_ports(container: &ContainerInspectResponse) -> Vec<PublishedPort> {
    let Some(ports) = container.network_settings.as_ref().and_then(|settings| settings.ports.as_ref()) else {
        return Vec::new();
    };
    let mut list = Vec::new();
    for (inside, bindings) in ports {
        let Some(ExposedPort { port: target, protocol }) = ExposedPort::read(inside) else { continue };
        let exposed = PublishedPort { address: String::new(), published: 0, target, protocol };
        match bindings.as_deref() {
            None | Some([]) => list.push(exposed),
            Some(bindings) => list.extend(bindings.iter().map(|binding| PublishedPort {
                address: binding.host_ip.clone().unwrap_or_default(),
                published: binding.host_port.as_deref().and_then(|port| port.parse().ok()).unwrap_or(0),
                ..exposed.clone()
            })),
        }
    }
    list.sort_by(|a, b| (a.target, a.published, &a.address).cmp(&(b.target, b.published, &b.address)));
    list
}

/// A time as the engine writes it; its zero (`0001-01-01…`) means never.
pub(super) fn engine_time(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().filter(|time| time.as_second() > 0)
}

async fn containers(client: &Client, project: &ProjectName) -> Result<Vec<Existing>> {
    let labels = vec![format!("{PROJECT}={project}"), CONFIG_HASH.to_owned()];
    let filters = HashMap::from([("label".to_owned(), labels)]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let found = client.list_containers(Some(options)).await.map_err(failed("list containers of", project.as_str()))?;
    let mut list: Vec<Existing> = stream::iter(found)
        .map(|summary| async move {
            let Some(id) = summary.id.clone() else { return Ok(None) };
            match find(client, &id).await {
                Ok(Some(container)) => Ok(Some(existing(&id, &summary, &container))),
                // Removed between the two questions.
                Ok(None) => Ok(None),
                Err(error) => Err(wrap("inspect container", id, error)),
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_filter_map(|existing| async move { Ok(existing) })
        .try_collect()
        .await?;
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

fn existing(id: &str, summary: &ContainerSummary, container: &ContainerInspectResponse) -> Existing {
    let state = container.state.clone().unwrap_or_default();
    let labels: BTreeMap<String, String> = summary.labels.clone().unwrap_or_default().into_iter().collect();
    let label = |name: &str| labels.get(name).cloned();
    let seconds = |text: Option<&str>| text.and_then(engine_time).map_or(0, Timestamp::as_second);
    let (volumes, anonymous_volumes) = mounted_volumes(container);
    let wasm_hash = label(WASM_HASH);
    Existing {
        id: id.to_owned(),
        name: container.name.as_deref().unwrap_or_default().trim_start_matches('/').to_owned(),
        kind: if wasm_hash.is_some() { ExistingKind::Agent } else { ExistingKind::Container },
        service: label(SERVICE).map(ServiceName::new),
        number: label(NUMBER).and_then(|number| number.parse().ok()),
        one_off: label(ONE_OFF).is_some_and(|flag| flag == "True"),
        state: run_state(state.status),
        health: health(container),
        exit_code: state.exit_code.unwrap_or_default(),
        config_hash: label(CONFIG_HASH),
        wasm_hash,
        image_id: label(IMAGE),
        image: container.config.as_ref().and_then(|config| config.image.clone()).unwrap_or_default(),
        command: command(container),
        networks: addresses(container),
        volumes,
        anonymous_volumes,
        ports: published_ports(container),
        created: seconds(container.created.as_deref()),
        started: seconds(state.started_at.as_deref()),
        finished: seconds(state.finished_at.as_deref()),
        restarts: container.restart_count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
        labels,
    }
}

fn run_state(status: Option<ContainerStateStatusEnum>) -> RunState {
    use ContainerStateStatusEnum as Status;
    match status.unwrap_or(Status::EMPTY) {
        Status::CREATED | Status::EMPTY => RunState::Created,
        Status::RUNNING | Status::STOPPING => RunState::Running,
        Status::PAUSED => RunState::Paused,
        Status::RESTARTING => RunState::Restarting,
        Status::REMOVING => RunState::Removing,
        Status::EXITED => RunState::Exited,
        Status::DEAD => RunState::Dead,
    }
}

fn command(container: &ContainerInspectResponse) -> String {
    let program = container.path.iter();
    program.chain(container.args.iter().flatten()).map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// Volumes by name, and anonymous ones by target. The engine names the latter with 64 hex digits.
fn mounted_volumes(container: &ContainerInspectResponse) -> (Vec<String>, BTreeMap<String, String>) {
    let (mut named, mut anonymous) = (Vec::new(), BTreeMap::new());
    for mount in container.mounts.iter().flatten() {
        let (Some("volume"), Some(name)) = (mount.typ.as_deref(), mount.name.clone()) else { continue };
        if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            anonymous.insert(mount.destination.clone().unwrap_or_default(), name);
        } else {
            named.push(name);
        }
    }
    named.sort();
    named.dedup();
    (named, anonymous)
}

async fn all_networks(client: &Client, project: &ProjectName, names: &[String]) -> Result<Vec<ExistingNetwork>> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{PROJECT}={project}")])]);
    let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
    let owned = client.list_networks(Some(options)).await.map_err(failed("list networks of", project.as_str()))?;
    let mut list: Vec<ExistingNetwork> = owned.into_iter().map(|network| existing_network(network, project)).collect();
    for name in names {
        if list.iter().any(|network| network.name == *name) {
            continue;
        }
        match client.inspect_network(name, None::<InspectNetworkOptions>).await {
            // The engine also takes the beginning of an id for a name.
            Ok(found) if found.name.as_ref() == Some(name) => {
                let network = Network { id: found.id, name: found.name, labels: found.labels, ..Network::default() };
                list.push(existing_network(network, project));
            }
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(wrap("inspect network", name, error)),
        }
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

fn existing_network(network: Network, project: &ProjectName) -> ExistingNetwork {
    let labels = network.labels.unwrap_or_default();
    let owned = labels.get(PROJECT).is_some_and(|name| name == project.as_str());
    ExistingNetwork {
        id: network.id.unwrap_or_default(),
        name: network.name.unwrap_or_default(),
        key: labels.get(NETWORK).filter(|_| owned).map(|key| NetworkKey::new(key.clone())),
        owned,
        config_hash: labels.get(CONFIG_HASH).cloned(),
    }
}

async fn all_volumes(client: &Client, project: &ProjectName, names: &[String]) -> Result<Vec<ExistingVolume>> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{PROJECT}={project}")])]);
    let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
    let owned = client.list_volumes(Some(options)).await.map_err(failed("list volumes of", project.as_str()))?;
    let owned = owned.volumes.unwrap_or_default();
    let mut list: Vec<ExistingVolume> = owned.into_iter().map(|volume| existing_volume(volume, project)).collect();
    for name in names {
        if list.iter().any(|volume| volume.name == *name) {
            continue;
        }
        match client.inspect_volume(name).await {
            Ok(found) => list.push(existing_volume(found, project)),
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(wrap("inspect volume", name, error)),
        }
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

fn existing_volume(volume: Volume, project: &ProjectName) -> ExistingVolume {
    let owned = volume.labels.get(PROJECT).is_some_and(|name| name == project.as_str());
    ExistingVolume {
        key: volume.labels.get(VOLUME).filter(|_| owned).map(|key| VolumeKey::new(key.clone())),
        owned,
        config_hash: volume.labels.get(CONFIG_HASH).cloned(),
        in_process: false,
        name: volume.name,
    }
}
