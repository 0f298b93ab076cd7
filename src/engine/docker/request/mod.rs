//! Pure: from what the plan says to what the Docker API is sent. No client, no I/O.
//!
//! [`container`] is the table of contents: one function for each concern. The rules are compose's (names, labels, binds before
//! mounts, the primary network as `NetworkMode`), so that both tools see the same containers.

mod agent;
mod document;
mod mounts;
mod networks;
mod resources;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigIsolationEnum,
    HostConfigLogConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};

pub use self::agent::{Door, Mailbox};
pub(super) use self::agent::{PROGRAM, agent};
use self::document::Document;
pub(super) use self::mounts::written;
use self::networks::to_map;
pub(super) use self::networks::{endpoint, joined_later, network, volume};
use crate::engine::{EngineError, ErrorKind, Result};
use crate::model::{HealthTest, Healthcheck, Logging, Resolved, Restart, Service, ServiceName};
use crate::plan::unit::{AtEnd, InstanceSpec};

/// Label on a container that was made in place of another.
pub(super) const REPLACE_LABEL: &str = "com.docker.compose.replace";

/// A version of the Docker API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Api(pub(super) usize, pub(super) usize);

impl Api {
    /// Before 1.44 the engine takes one network at creation, the MAC address beside it, and no `start_interval`.
    pub(super) fn joins_all_networks_at_creation(self) -> bool {
        self >= Self(1, 44)
    }
}

/// What a container's body depends on besides its spec.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Context {
    /// The engine's API.
    pub(super) api: Api,
    /// Containers of the services that the spec refers to (`network_mode: service:x`, `links`, …).
    pub(super) peers: BTreeMap<ServiceName, Vec<Peer>>,
    /// Anonymous volumes carried over from the container that is replaced: target → the engine's volume name.
    pub(super) inherited: BTreeMap<String, String>,
    /// Whether another container is replaced.
    pub(super) replaces: bool,
}

/// An existing container of another service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) id: String,
    pub(super) name: String,
}

impl Context {
    /// The id of the service's first container. [`container`] checked that there is one.
    fn first_id<'a>(&'a self, service: &'a ServiceName) -> &'a str {
        self.peers.get(service).and_then(|peers| peers.first()).map_or(service.as_str(), |peer| &peer.id)
    }
}

/// Services whose containers the spec refers to by id or name.
pub(super) fn referred_services(service: &Service) -> Vec<ServiceName> {
    let document = Document(&service.document);
    let mut names: Vec<String> = Vec::new();
    if let Some(crate::model::NetworkMode::Service(name)) = &service.network_mode {
        names.push(name.to_string());
    }
    for key in ["ipc", "pid"] {
        if let Some(name) = document.text(key).as_deref().and_then(|mode| mode.strip_prefix("service:")) {
            names.push(name.to_owned());
        }
    }
    for entry in document.list("volumes_from").unwrap_or_default() {
        if !entry.starts_with("container:") {
            names.push(entry.split(':').next().unwrap_or_default().to_owned());
        }
    }
    for entry in document.list("links").unwrap_or_default() {
        names.push(entry.split(':').next().unwrap_or_default().to_owned());
    }
    names.sort();
    names.dedup();
    names.into_iter().map(ServiceName::new).collect()
}

/// The body of a Linux container.
pub(super) fn container(spec: &InstanceSpec, context: &Context) -> Result<ContainerCreateBody> {
    let service = &*spec.service;
    let document = Document(&service.document);
    let mounts = mounts::mounts(spec, &context.inherited);
    let mut host = HostConfig {
        binds: (!mounts.binds.is_empty()).then_some(mounts.binds),
        mounts: (!mounts.mounts.is_empty()).then_some(mounts.mounts),
        tmpfs: (!mounts.tmpfs.is_empty()).then_some(mounts.tmpfs),
        network_mode: Some(networks::mode(spec, context)),
        port_bindings: port_bindings(service),
        restart_policy: Some(restart_policy(service.restart)),
        log_config: service.logging.as_ref().map(log_config),
        extra_hosts: (!service.extra_hosts.is_empty())
            .then(|| service.extra_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect()),
        runtime: service.runtime.clone(),
        auto_remove: (spec.at_end == AtEnd::Removed).then_some(true),
        ..HostConfig::default()
    };
    resources::fill(&mut host, service);
    privileges(&mut host, document);
    namespaces(&mut host, document, context);
    name_resolution(&mut host, document);
    let attended = spec.is_one_off() && service.stdin_open;
    let body = ContainerCreateBody {
        image: Some(image(spec)?.to_owned()),
        hostname: service.hostname.clone(),
        domainname: document.text("domainname"),
        user: service.user.clone(),
        working_dir: service.working_dir.clone(),
        entrypoint: service.entrypoint.clone(),
        cmd: service.command.clone(),
        env: environment(service),
        tty: service.tty.then_some(true),
        open_stdin: service.stdin_open.then_some(true),
        attach_stdin: Some(attended),
        // Its input ends with that of whoever attaches to it.
        stdin_once: attended.then_some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        exposed_ports: exposed_ports(service),
        healthcheck: service.healthcheck.as_ref().map(|check| health_check(check, context.api)),
        stop_signal: service.stop_signal.clone(),
        stop_timeout: service.stop_grace.map(|grace| i64::try_from(grace.as_secs()).unwrap_or(i64::MAX)),
        labels: Some(labels(spec, context)),
        host_config: Some(host),
        networking_config: networks::at_creation(spec, context),
        ..ContainerCreateBody::default()
    };
    Ok(body)
}

/// The MAC address that an engine before API 1.44 wants beside the endpoints.
pub(super) fn old_mac_address(spec: &InstanceSpec, api: Api) -> Option<String> {
    if api.joins_all_networks_at_creation() {
        return None;
    }
    let of_primary = spec.engine_networks().next().and_then(|join| join.attachment.mac.clone());
    of_primary.or_else(|| Document(&spec.service.document).text("mac_address"))
}

fn image(spec: &InstanceSpec) -> Result<&str> {
    match &spec.resolved {
        Resolved::Linux { image, .. } => Ok(image),
        Resolved::Wasm(module) => Err(EngineError::new(
            ErrorKind::Invalid,
            "create container",
            &spec.container,
            format!("`{}` is Wasm: it has no Linux container", module.reference),
        )),
    }
}

fn labels(spec: &InstanceSpec, context: &Context) -> HashMap<String, String> {
    let mut labels = to_map(&spec.labels);
    if context.replaces {
        let replaced = spec.service.container_name.clone().unwrap_or_else(|| spec.name.to_string());
        labels.insert(REPLACE_LABEL.into(), replaced);
    }
    labels
}

/// Only what the file declares: the engine adds the image's own variables. A bare name takes one of those away.
fn environment(service: &Service) -> Option<Vec<String>> {
    let entries: Vec<String> = service
        .environment
        .iter()
        .map(|(name, value)| match value {
            Some(value) => format!("{name}={value}"),
            None => name.clone(),
        })
        .collect();
    (!entries.is_empty()).then_some(entries)
}

fn exposed_ports(service: &Service) -> Option<Vec<String>> {
    let mut ports: Vec<String> = service.expose.iter().map(ToString::to_string).collect();
    ports.extend(service.ports.iter().map(|port| format!("{}/{}", port.target, port.protocol)));
    ports.sort();
    ports.dedup();
    (!ports.is_empty()).then_some(ports)
}

fn port_bindings(service: &Service) -> Option<HashMap<String, Option<Vec<PortBinding>>>> {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &service.ports {
        let binding = PortBinding {
            host_ip: port.host_ip.map(|address| address.to_string()),
            host_port: Some(port.published.map(|published| published.to_string()).unwrap_or_default()),
        };
        bindings
            .entry(format!("{}/{}", port.target, port.protocol))
            .or_insert_with(|| Some(Vec::new()))
            .get_or_insert_default()
            .push(binding);
    }
    (!bindings.is_empty()).then_some(bindings)
}

fn restart_policy(restart: Restart) -> RestartPolicy {
    let (name, maximum) = match restart {
        Restart::No => (RestartPolicyNameEnum::NO, None),
        Restart::Always => (RestartPolicyNameEnum::ALWAYS, None),
        Restart::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
        Restart::OnFailure { maximum } => (RestartPolicyNameEnum::ON_FAILURE, Some(i64::from(maximum))),
    };
    RestartPolicy { name: Some(name), maximum_retry_count: maximum }
}

fn log_config(logging: &Logging) -> HostConfigLogConfig {
    HostConfigLogConfig {
        typ: logging.driver.clone(),
        config: (!logging.options.is_empty()).then(|| to_map(&logging.options)),
    }
}

fn health_check(check: &Healthcheck, api: Api) -> HealthConfig {
    let nanos = |time: std::time::Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    HealthConfig {
        test: check.test.as_ref().map(|test| match test {
            HealthTest::Disabled => vec!["NONE".into()],
            HealthTest::Command(argv) => std::iter::once("CMD".to_owned()).chain(argv.iter().cloned()).collect(),
            HealthTest::Shell(line) => vec!["CMD-SHELL".into(), line.clone()],
        }),
        interval: check.interval.map(nanos),
        timeout: check.timeout.map(nanos),
        retries: check.retries.map(i64::from),
        start_period: check.start_period.map(nanos),
        start_interval: check.start_interval.map(nanos).filter(|_| api.joins_all_networks_at_creation()),
    }
}

/// Capabilities, security options, devices' rights: what the container may do.
fn privileges(host: &mut HostConfig, document: Document<'_>) {
    host.cap_add = document.list("cap_add");
    host.cap_drop = document.list("cap_drop");
    host.privileged = document.flag("privileged");
    host.readonly_rootfs = document.flag("read_only");
    host.group_add = document.list("group_add");
    host.sysctls = document.map("sysctls");
    host.init = document.flag("init");
    host.annotations = document.map("annotations");
    host.volume_driver = document.text("volume_driver");
    let Some(options) = document.list("security_opt") else { return };
    let mut kept = Vec::new();
    for option in options {
        match option.split_once(['=', ':']) {
            // The command line's own spelling for "mask no paths of /proc and /sys".
            Some(("systempaths", "unconfined")) => {
                host.masked_paths = Some(Vec::new());
                host.readonly_paths = Some(Vec::new());
            }
            _ => kept.push(option),
        }
    }
    host.security_opt = (!kept.is_empty()).then_some(kept);
}

fn namespaces(host: &mut HostConfig, document: Document<'_>, context: &Context) {
    let shared = |key: &str| -> Option<String> {
        let mode = document.text(key)?;
        Some(match mode.strip_prefix("service:") {
            Some(service) => format!("container:{}", context.first_id(&ServiceName::from(service))),
            None => mode,
        })
    };
    host.ipc_mode = shared("ipc");
    host.pid_mode = shared("pid");
    host.uts_mode = document.text("uts");
    host.userns_mode = document.text("userns_mode");
    host.cgroupns_mode = document.text("cgroup").and_then(|mode| mode.parse::<HostConfigCgroupnsModeEnum>().ok());
    host.isolation = document.text("isolation").and_then(|mode| mode.parse::<HostConfigIsolationEnum>().ok());
    let volumes_from: Vec<String> = document
        .list("volumes_from")
        .unwrap_or_default()
        .into_iter()
        .map(|entry| match entry.strip_prefix("container:") {
            Some(container) => container.to_owned(),
            None => {
                let (service, access) = entry.split_once(':').unwrap_or((&entry, "rw"));
                format!("{}:{access}", context.first_id(&ServiceName::from(service)))
            }
        })
        .collect();
    host.volumes_from = (!volumes_from.is_empty()).then_some(volumes_from);
}

fn name_resolution(host: &mut HostConfig, document: Document<'_>) {
    host.dns = document.list("dns");
    host.dns_search = document.list("dns_search");
    host.dns_options = document.list("dns_opt");
}
