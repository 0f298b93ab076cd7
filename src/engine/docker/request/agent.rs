//! The body of an agent: the container that gives a Wasm instance its place on the compose networks.
//!
//! It may do next to nothing: no capability but CHOWN (an empty volume's root is given to the supervisor's user), a root that
//! cannot be written, no new privileges, few processes, little memory.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount as MountBody, MountTmpfsOptions, MountType,
    RestartPolicy, RestartPolicyNameEnum,
};

use super::{Context, exposed_ports, health_check, labels, log_config, networks};
use crate::model::{HealthTest, Healthcheck, MountSource};
use crate::net::agent::{AWAIT, MOUNT, TOKEN, VOLUMES};
use crate::plan::unit::InstanceSpec;

/// The agent's program in its image.
pub(in crate::engine::docker) const PROGRAM: &str = "/agent";
/// The agent itself needs some 10 kB; the rest is the runtime's own.
const MEMORY: i64 = 32 * 1024 * 1024;
/// One that carries what goes over its sockets holds a window for each of those whose other end is slow.
const CARRYING_MEMORY: i64 = MEMORY + 4224 * 64 * 1024;
/// The agent, its health check, and the runtime's helper threads.
const PROCESSES: i64 = 32;

/// Where an agent and its supervisor find each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mailbox<'a> {
    /// How they meet.
    pub door: Door<'a>,
    /// What shows each of them the other: in the container's environment, and in what the agent says first.
    pub token: &'a str,
}

/// How an agent and its supervisor meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door<'a> {
    /// By a socket of the supervisor's, in this folder of the host, which is mounted.
    Folder(&'a Path),
    /// By the streams of a program that the supervisor runs in the container.
    Streams,
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
        mounts: Some(vec![place(mailbox.door)]),
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
        memory: Some(match mailbox.door {
            Door::Folder(_) => MEMORY,
            Door::Streams => CARRYING_MEMORY,
        }),
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
        entrypoint: Some(match mailbox.door {
            Door::Folder(_) => vec![PROGRAM.into()],
            Door::Streams => vec![PROGRAM.into(), AWAIT.into()],
        }),
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

/// What is mounted at the agent's socket: the supervisor's folder, or a file system of the agent's own for its socket.
fn place(door: Door<'_>) -> MountBody {
    match door {
        Door::Folder(folder) => MountBody {
            typ: Some(MountType::BIND),
            source: Some(folder.display().to_string()),
            target: Some(MOUNT.into()),
            read_only: Some(true),
            ..MountBody::default()
        },
        Door::Streams => MountBody {
            typ: Some(MountType::TMPFS),
            target: Some(MOUNT.into()),
            tmpfs_options: Some(MountTmpfsOptions {
                size_bytes: Some(64 * 1024),
                mode: Some(0o700),
                ..MountTmpfsOptions::default()
            }),
            ..MountBody::default()
        },
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
