//! Pure: where each instance lives on the network, and which names, ports and variables it sees.
//!
//! The law of places: an instance [`Place::InProcess`] has every network and every named volume in this process; one with
//! an agent has every named volume in the engine, and those of its networks that have a Linux member, too. So a network may
//! be in process for an instance with an agent, a volume never.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use crate::model::{
    Attachment, ExposedPort, MountSource, NetworkKey, NetworkMode, Project, Protocol, Resolved, Service, ServiceName,
    VolumeKey,
};

/// What each service's image turned out to be. A service that is not in it counts as Linux.
pub type Resolution = BTreeMap<ServiceName, Resolved>;

/// Where an instance's sockets are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// In the network namespace of an agent container: it shares a network or a volume with Linux services, or uses an external one.
    Agent,
    /// Inside this process: all its networks and volumes are of Wasm services alone.
    InProcess,
}

/// Where everything of a project lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    in_process: BTreeSet<ServiceName>,
    networks: BTreeSet<NetworkKey>,
    volumes: BTreeSet<VolumeKey>,
}

impl Wiring {
    /// Where this service's instances live.
    pub fn place(&self, service: &ServiceName) -> Place {
        if self.in_process.contains(service) { Place::InProcess } else { Place::Agent }
    }

    /// Whether the network is of Wasm services alone, so that no engine has to make it.
    pub fn network_in_process(&self, network: &NetworkKey) -> bool {
        self.networks.contains(network)
    }

    /// Whether the volume is a folder of the user's.
    pub fn volume_in_process(&self, volume: &VolumeKey) -> bool {
        self.volumes.contains(volume)
    }
}

/// Decides where everything lives, from all enabled services, also those that are not brought up this time.
pub fn place(project: &Project, resolution: &Resolution) -> Wiring {
    let is_wasm = |service: &Service| resolution.get(&service.name).is_some_and(Resolved::is_wasm);
    let shared: BTreeSet<&NetworkKey> = project
        .services
        .values()
        .filter(|service| !is_wasm(service))
        .flat_map(|service| service.networks.keys())
        .collect();
    let mut wiring = Wiring {
        in_process: project.services.values().filter(|service| is_wasm(service)).map(|one| one.name.clone()).collect(),
        networks: project
            .networks
            .values()
            .filter(|network| !network.external && !shared.contains(&network.key))
            .map(|network| network.key.clone())
            .collect(),
        volumes: BTreeSet::new(),
    };
    let wasm: Vec<&Service> = project.services.values().filter(|service| is_wasm(service)).collect();
    // Networks, volumes and shared namespaces pull services out of this process, which pulls out others, until nothing moves.
    loop {
        let engine = engine_volumes(project, &wiring.in_process);
        let stays = |service: &&&Service| {
            let beside = match &service.network_mode {
                None | Some(NetworkMode::None) => true,
                Some(NetworkMode::Service(other)) => wiring.in_process.contains(other),
                Some(NetworkMode::Host | NetworkMode::Container(_) | NetworkMode::Other(_)) => false,
            };
            let networks = service.networks.keys().all(|key| wiring.networks.contains(key));
            beside && networks && !named_volumes(service).any(|key| engine.contains(key))
        };
        let in_process: BTreeSet<ServiceName> = wasm.iter().filter(stays).map(|service| service.name.clone()).collect();
        // An agent without a network of the engine's would have no way out.
        let mut networks = wiring.networks.clone();
        for service in wasm.iter().filter(|service| !in_process.contains(&service.name)) {
            if service.networks.keys().all(|key| networks.contains(key)) {
                networks.retain(|key| !service.networks.contains_key(key));
            }
        }
        let volumes = project.volumes.keys().filter(|key| !engine.contains(*key)).cloned().collect();
        let next = Wiring { in_process, networks, volumes };
        if next == wiring {
            return wiring;
        }
        wiring = next;
    }
}

/// Volumes that only an engine can hold, or that something outside this process uses.
fn engine_volumes<'a>(project: &'a Project, in_process: &BTreeSet<ServiceName>) -> BTreeSet<&'a VolumeKey> {
    let used = project.services.values().filter(|service| !in_process.contains(&service.name)).flat_map(named_volumes);
    let special = project.volumes.values().filter(|volume| {
        volume.external
            || volume.driver.as_deref().is_some_and(|driver| driver != "local")
            || !volume.driver_opts.is_empty()
    });
    used.chain(special.map(|volume| &volume.key)).collect()
}

/// Keys of the named volumes a service mounts.
pub fn named_volumes(service: &Service) -> impl Iterator<Item = &VolumeKey> {
    service.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Volume { key, .. } => Some(key),
        MountSource::Anonymous { .. }
        | MountSource::Bind { .. }
        | MountSource::Tmpfs { .. }
        | MountSource::Other { .. } => None,
    })
}

/// Every name an instance has on a network: its container's, its service's, the declared ones; none twice.
pub fn aliases(container: &str, service: &ServiceName, attachment: &Attachment) -> Vec<String> {
    let mut names = vec![container.to_owned()];
    for name in std::iter::once(service.as_str()).chain(attachment.aliases.iter().map(String::as_str)) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// What an instance sees as its environment: the image's, the declared one over it, and for a Wasm service its links.
pub fn environment(project: &Project, resolution: &Resolution, service: &Service) -> IndexMap<String, String> {
    let image = resolution.get(&service.name).map(|resolved| resolved.config().environment.clone());
    let mut environment = image.unwrap_or_default();
    for (name, value) in &service.environment {
        match value {
            Some(value) => environment.insert(name.clone(), value.clone()),
            // Declared without a value: unset, also where the image sets it.
            None => environment.shift_remove(name),
        };
    }
    environment.extend(links(project, resolution, service));
    environment
}

/// `<SERVICE>_HOST`, `<SERVICE>_PORT` and, where the image makes the scheme plain, `<SERVICE>_URL` of the dependencies
/// whose names a Wasm service can look up. What the file sets itself is left out; no URL carries credentials.
pub fn links(project: &Project, resolution: &Resolution, service: &Service) -> IndexMap<String, String> {
    let wanted = service.wasm.as_ref().and_then(|options| options.env_from_links).unwrap_or(true);
    let mut links = IndexMap::new();
    if !wanted || !resolution.get(&service.name).is_some_and(Resolved::is_wasm) {
        return links;
    }
    for name in service.depends_on.keys() {
        let Some(dependency) = project.services.get(name) else { continue };
        if !service.networks.keys().any(|key| dependency.networks.contains_key(key)) {
            continue;
        }
        let resolved = resolution.get(name);
        let prefix = variable_prefix(name);
        links.insert(format!("{prefix}_HOST"), name.to_string());
        if let Some(port) = first_port(dependency, resolved) {
            links.insert(format!("{prefix}_PORT"), port.to_string());
            if let Some(scheme) = resolved.and_then(|resolved| scheme(resolved, port)) {
                links.insert(format!("{prefix}_URL"), format!("{scheme}://{name}:{port}"));
            }
        }
    }
    links.retain(|name, _| !service.environment.contains_key(name));
    links
}

fn variable_prefix(service: &ServiceName) -> String {
    service.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// The port a dependent would use: TCP before others, and among equals `ports`, then `expose`, then the image's.
fn first_port(service: &Service, resolved: Option<&Resolved>) -> Option<u16> {
    let http = match resolved {
        Some(Resolved::Wasm(module)) if module.kind.is_http() => true,
        Some(Resolved::Wasm(_) | Resolved::Linux { .. }) | None => false,
    };
    let served = service.wasm.as_ref().and_then(|options| options.http_ports.first().copied());
    if let (true, Some(port)) = (http, served) {
        return Some(port);
    }
    let published = service.ports.iter().map(|port| ExposedPort { port: port.target, protocol: port.protocol });
    let image = resolved.map(|resolved| resolved.config().exposed.as_slice()).unwrap_or_default();
    let ports: Vec<ExposedPort> = published.chain(service.expose.iter().chain(image).copied()).collect();
    let tcp = ports.iter().find(|port| port.protocol == Protocol::Tcp);
    tcp.or(ports.first()).map(|port| port.port).or(http.then_some(8080))
}

/// The scheme of what an image serves, where its name leaves no doubt.
fn scheme(resolved: &Resolved, port: u16) -> Option<&'static str> {
    let image = match resolved {
        Resolved::Wasm(module) => return module.kind.is_http().then_some("http"),
        Resolved::Linux { image, .. } => image,
    };
    let path = image.split('@').next().unwrap_or_default();
    let repository = path.rsplit('/').next().unwrap_or_default().split(':').next().unwrap_or_default();
    match repository {
        "postgres" | "postgresql" | "postgis" => Some("postgres"),
        "redis" | "valkey" => Some("redis"),
        "mysql" | "mariadb" => Some("mysql"),
        "mongo" | "mongodb" => Some("mongodb"),
        "rabbitmq" => Some("amqp"),
        "nats" => Some("nats"),
        "nginx" | "httpd" | "caddy" if port != 443 => Some("http"),
        _ => None,
    }
}
