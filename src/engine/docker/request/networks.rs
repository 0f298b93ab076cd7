//! How a container joins its networks, and the bodies of networks and volumes themselves.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkCreateRequest, NetworkingConfig, VolumeCreateRequest,
};

use super::Context;
use super::document::Document;
use crate::model::{NetworkMode, ServiceName};
use crate::plan::unit::{InstanceSpec, NetworkJoin, NetworkSpec, VolumeSpec};

/// `HostConfig.NetworkMode`.
pub(super) fn mode(spec: &InstanceSpec, context: &Context) -> String {
    match &spec.service.network_mode {
        None => spec.engine_networks().next().map_or_else(|| "none".to_owned(), |primary| primary.name.clone()),
        Some(NetworkMode::None) => "none".into(),
        Some(NetworkMode::Host) => "host".into(),
        Some(NetworkMode::Container(name)) => format!("container:{name}"),
        Some(NetworkMode::Service(service)) => format!("container:{}", context.first_id(service)),
        Some(NetworkMode::Other(mode)) => mode.clone(),
    }
}

/// The endpoints given at creation: all of them where the engine can (API 1.44), else the primary one.
pub(super) fn at_creation(spec: &InstanceSpec, context: &Context) -> Option<NetworkingConfig> {
    let count = if context.api.joins_all_networks_at_creation() { usize::MAX } else { 1 };
    let endpoints: HashMap<String, EndpointSettings> =
        spec.engine_networks().take(count).map(|join| (join.name.clone(), endpoint(spec, join, context))).collect();
    (!endpoints.is_empty()).then_some(NetworkingConfig { endpoints_config: Some(endpoints) })
}

/// The networks to join between creation and start.
pub(in crate::engine::docker) fn joined_later<'a>(
    spec: &'a InstanceSpec,
    context: &Context,
) -> impl Iterator<Item = &'a NetworkJoin> + use<'a> {
    let joined = if context.api.joins_all_networks_at_creation() { usize::MAX } else { 1 };
    spec.engine_networks().skip(joined)
}

/// One endpoint.
pub(in crate::engine::docker) fn endpoint(
    spec: &InstanceSpec,
    join: &NetworkJoin,
    context: &Context,
) -> EndpointSettings {
    let attachment = &join.attachment;
    let document = Document(&spec.service.document).child("networks").child(join.key.as_str());
    let fixed = attachment.ipv4.is_some() || attachment.ipv6.is_some() || !attachment.link_local.is_empty();
    let mut options: HashMap<String, String> = to_map(&attachment.driver_opts);
    if let Some(interface) = document.text("interface_name") {
        options.insert("com.docker.network.endpoint.ifname".into(), interface);
    }
    EndpointSettings {
        aliases: Some(join.aliases.clone()),
        links: links(spec, context),
        mac_address: attachment.mac.clone(),
        driver_opts: (!options.is_empty()).then_some(options),
        gw_priority: document.integer("gw_priority"),
        ipam_config: fixed.then(|| EndpointIpamConfig {
            ipv4_address: attachment.ipv4.map(|address| address.to_string()),
            ipv6_address: attachment.ipv6.map(|address| address.to_string()),
            link_local_ips: (!attachment.link_local.is_empty())
                .then(|| attachment.link_local.iter().map(ToString::to_string).collect()),
        }),
        ..EndpointSettings::default()
    }
}

/// `links` and `external_links` as `container:alias`: the names they add hold on every network of the service.
fn links(spec: &InstanceSpec, context: &Context) -> Option<Vec<String>> {
    let document = Document(&spec.service.document);
    let mut links = Vec::new();
    for entry in document.list("links").unwrap_or_default() {
        let (service, alias) = entry.split_once(':').unwrap_or((&entry, &entry));
        for peer in context.peers.get(&ServiceName::from(service)).into_iter().flatten() {
            links.push(format!("{}:{alias}", peer.name));
        }
    }
    for entry in document.list("external_links").unwrap_or_default() {
        links.push(if entry.contains(':') { entry } else { format!("{entry}:{entry}") });
    }
    (!links.is_empty()).then_some(links)
}

/// The body of a network.
pub(in crate::engine::docker) fn network(spec: &NetworkSpec) -> NetworkCreateRequest {
    let network = &spec.network;
    let pools: Vec<IpamConfig> = network
        .ipam
        .pools
        .iter()
        .map(|pool| IpamConfig {
            subnet: pool.subnet.clone(),
            ip_range: pool.ip_range.clone(),
            gateway: pool.gateway.clone(),
            auxiliary_addresses: (!pool.aux_addresses.is_empty()).then(|| to_map(&pool.aux_addresses)),
        })
        .collect();
    let managed = network.ipam.driver.is_some() || !pools.is_empty();
    NetworkCreateRequest {
        name: network.name.clone(),
        driver: network.driver.clone(),
        internal: network.internal.then_some(true),
        attachable: network.attachable.then_some(true),
        enable_ipv4: network.enable_ipv4,
        enable_ipv6: network.enable_ipv6,
        options: (!network.driver_opts.is_empty()).then(|| to_map(&network.driver_opts)),
        ipam: managed.then(|| Ipam {
            driver: network.ipam.driver.clone(),
            config: (!pools.is_empty()).then_some(pools),
            options: None,
        }),
        labels: Some(to_map(&spec.labels)),
        ..NetworkCreateRequest::default()
    }
}

/// The body of a volume.
pub(in crate::engine::docker) fn volume(spec: &VolumeSpec) -> VolumeCreateRequest {
    let volume = &spec.volume;
    VolumeCreateRequest {
        name: Some(volume.name.clone()),
        driver: Some(volume.driver.clone().unwrap_or_else(|| "local".into())),
        driver_opts: (!volume.driver_opts.is_empty()).then(|| to_map(&volume.driver_opts)),
        labels: Some(to_map(&spec.labels)),
        ..VolumeCreateRequest::default()
    }
}

pub(super) fn to_map(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}
