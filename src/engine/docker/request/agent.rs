//! The body of an agent: the container that gives a Wasm instance its place on the compose networks.
//!
//! It may do next to nothing: no capability but CHOWN (an empty volume's root is given to the supervisor's user), a root that
//! cannot be written, no new privileges, few processes, little memory.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount as MountBody, MountType, RestartPolicy,
    RestartPolicyNameEnum,
};

use super::{Context, exposed_ports, health_check, labels, log_config, networks};
use crate::model::{HealthTest, Healthcheck, MountSource};
use crate::net::agent::{MOUNT, TOKEN, VOLUMES};
use crate::plan::unit::InstanceSpec;

/// The agent's program in its image.
const PROGRAM: &str = "/agent";
/// The agent itself needs some 10 kB; the rest is the runtime's own.
const MEMORY: i64 = 32 * 1024 * 1024;
/// The agent, its health check, and the runtime's helper threads.
const PROCESSES: i64 = 32;

/// Where an agent finds its supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine::docker) struct Mailbox<'a> {
    /// Folder of the host that is mounted.
    pub(in crate::engine::docker) folder: &'a Path,
    /// What the agent presents there.
    pub(in crate::engine::docker) token: &'a str,
}

/// The body of an agent made from `image`.
pub(in crate::engine::docker) fn agent(
    spec: &InstanceSpec,
    image: &str,
    mailbox: &Mailbox<'_>,
    context: &Context,
) -> ContainerCreateBody {
    let volumes = volumes(spec);
    let targets: Vec<&str> = volumes.iter().map(|(_, target)| *target).collect();
    let service = &*spec.service;
    let host = HostConfig {
        binds: (!volumes.is_empty())
            .then(|| volumes.iter().map(|(name, target)| format!("{name}:{target}:rw")).collect()),
        mounts: Some(vec![MountBody {
            typ: Some(MountType::BIND),
            source: Some(mailbox.folder.display().to_string()),
            target: Some(MOUNT.into()),
            read_only: Some(true),
            ..MountBody::default()
        }]),
        network_mode: Some(networks::mode(spec, context)),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        log_config: Some(service.logging.as_ref().map_or_else(capped_log, log_config)),
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: Some(vec!["CHOWN".into()]),
        security_opt: Some(vec!["no-new-privileges".into()]),
        readonly_rootfs: Some(true),
        // Without a network namespace of its own the engine refuses the setting.
        sysctls: spec
            .engine_networks()
            .next()
            .map(|_| HashMap::from([("net.ipv4.ip_unprivileged_port_start".into(), "0".into())])),
        memory: Some(MEMORY),
        pids_limit: Some(PROCESSES),
        ..HostConfig::default()
    };
    let mut environment = vec![format!("{TOKEN}={}", mailbox.token)];
    if !targets.is_empty() {
        environment.push(format!("{VOLUMES}={}", targets.join(":")));
    }
    ContainerCreateBody {
        image: Some(image.to_owned()),
        hostname: service.hostname.clone(),
        entrypoint: Some(vec![PROGRAM.into()]),
        user: Some("0:0".into()),
        env: Some(environment),
        attach_stdin: Some(false),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        exposed_ports: exposed_ports(service),
        healthcheck: own_health_check(spec).map(|check| health_check(&check, context.api)),
        stop_signal: Some("SIGTERM".into()),
        stop_timeout: service.stop_grace.map(|grace| i64::try_from(grace.as_secs()).unwrap_or(i64::MAX)),
        labels: Some(labels(spec, context)),
        host_config: Some(host),
        networking_config: networks::at_creation(spec, context),
        ..ContainerCreateBody::default()
    }
}

/// Named volumes as (the engine's name, target). The agent mounts all of them writable: only so can it give an empty one away;
/// what the guest may write is the supervisor's to enforce.
fn volumes(spec: &InstanceSpec) -> Vec<(&str, &str)> {
    spec.service
        .mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            MountSource::Volume { key, .. } => Some((spec.volumes.get(key)?.as_str(), mount.target.as_str())),
            MountSource::Anonymous { .. }
            | MountSource::Bind { .. }
            | MountSource::Tmpfs { .. }
            | MountSource::Other { .. } => None,
        })
        .collect()
}

/// The agent asks the supervisor for the service's health, at the service's own pace, where the service declares a check.
fn own_health_check(spec: &InstanceSpec) -> Option<Healthcheck> {
    let probe = HealthTest::Command(vec![PROGRAM.into(), "health".into()]);
    let native = spec.service.wasm.as_ref().is_some_and(|options| options.health_http.is_some());
    match &spec.service.healthcheck {
        Some(Healthcheck { test: Some(HealthTest::Disabled), .. }) => None,
        Some(check) => Some(Healthcheck { test: Some(probe), ..check.clone() }),
        None if native => Some(Healthcheck { test: Some(probe), ..Healthcheck::default() }),
        None => None,
    }
}

fn capped_log() -> HostConfigLogConfig {
    HostConfigLogConfig {
        typ: Some("json-file".into()),
        config: Some(HashMap::from([("max-size".into(), "10m".into()), ("max-file".into(), "3".into())])),
    }
}
