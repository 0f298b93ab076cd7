//! Pure: what an instance's specification means for its guest.

use sha2::{Digest, Sha256};

use super::host::Identity;
use crate::model::{InstanceName, Module, MountSource, Protocol};
use crate::plan::unit::InstanceSpec;

/// Where a component is served when nothing says a port.
const HTTP: u16 = 8080;

/// A name for folders and sockets: short, and the same in every process.
pub fn short_id(spec: &InstanceSpec) -> String {
    short_id_of(spec.project.as_str(), &spec.name)
}

/// The same, of an instance that is known by name only.
pub fn short_id_of(project: &str, name: &InstanceName) -> String {
    let digest = format!("{:x}", Sha256::digest(format!("{project}/{name}")));
    digest[..12].to_owned()
}

/// argv, by the rules of the OCI image configuration and compose: an entrypoint of the file clears the image's command.
/// Where neither names the module (a local file, an image without entrypoint), its file name comes first.
pub fn arguments(spec: &InstanceSpec, module: &Module) -> Vec<String> {
    let service = &spec.service;
    let entrypoint = service.entrypoint.as_ref().unwrap_or(&module.config.entrypoint);
    let command = match (&service.command, &service.entrypoint) {
        (Some(command), _) => command.as_slice(),
        (None, Some(_)) => &[],
        (None, None) => &module.config.command,
    };
    let mut arguments: Vec<String> = entrypoint.iter().chain(command).cloned().collect();
    match arguments.first_mut() {
        Some(first) if is_module(first) => {
            // `module.wasm#export` names the call; the guest sees the file.
            if let Some((file, _)) = first.rsplit_once('#') {
                *first = file.to_owned();
            }
        }
        _ if entrypoint.is_empty() => arguments.insert(0, file_name(module)),
        _ => {}
    }
    arguments
}

/// What the instance's guest is told of itself.
pub fn identity(spec: &InstanceSpec, module: &Module) -> Identity {
    Identity {
        arguments: arguments(spec, module),
        environment: spec.environment.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        working_dir: spec.service.working_dir.clone().or_else(|| module.config.working_dir.clone()),
    }
}

/// Whether a word of a command names a module rather than an export.
pub fn is_module(argument: &str) -> bool {
    let file = argument.rsplit_once('#').map_or(argument, |(file, _)| file);
    file.ends_with(".wasm") || file.ends_with(".wat")
}

fn file_name(module: &Module) -> String {
    let shown = module.reference.rsplit('/').next().unwrap_or(&module.reference);
    if is_module(shown) {
        return shown.to_owned();
    }
    module.path.file_name().map_or_else(|| "main.wasm".into(), |name| name.to_string_lossy().into_owned())
}

/// The ports a component is served on: `x-wasm.http.ports`, else the service's container ports, else the image's, else 8080.
pub fn http_ports(spec: &InstanceSpec, module: &Module) -> Vec<u16> {
    let service = &spec.service;
    let tcp = |protocol: Protocol| protocol == Protocol::Tcp;
    let mut ports: Vec<u16> = match &service.wasm {
        Some(options) if !options.http_ports.is_empty() => options.http_ports.clone(),
        _ => {
            let published = service.ports.iter().filter(|port| tcp(port.protocol)).map(|port| port.target);
            let exposed = service.expose.iter().chain(&module.config.exposed);
            published.chain(exposed.filter(|port| tcp(port.protocol)).map(|port| port.port)).collect()
        }
    };
    if ports.is_empty() {
        ports.push(HTTP);
    }
    let mut seen = Vec::new();
    ports.retain(|port| {
        !seen.contains(port) && {
            seen.push(*port);
            true
        }
    });
    ports
}

/// Targets of the volumes an agent passes.
pub fn volume_targets(spec: &InstanceSpec) -> Vec<String> {
    spec.service
        .mounts
        .iter()
        .filter(|mount| matches!(mount.source, MountSource::Volume { .. }))
        .map(|mount| mount.target.clone())
        .collect()
}
