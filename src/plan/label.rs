//! Labels of containers, networks and volumes: Docker Compose's keys, so that each tool sees the other's projects, and
//! `dev.wcompose.*` for what compose has no word for.

use std::collections::BTreeMap;

use crate::model::{Condition, Dependency, InstanceName, Project, Resolved, Service, ServiceName};

/// The release of Docker Compose whose behaviour is kept.
pub const COMPOSE_VERSION: &str = "2.40.3";
/// The project's name, on everything.
pub const PROJECT: &str = "com.docker.compose.project";
/// Digest of the declared element, on everything.
pub const CONFIG_HASH: &str = "com.docker.compose.config-hash";
/// [`COMPOSE_VERSION`], on everything.
pub const VERSION: &str = "com.docker.compose.version";
/// Key of a service.
pub const SERVICE: &str = "com.docker.compose.service";
/// Number of a replica.
pub const NUMBER: &str = "com.docker.compose.container-number";
/// `True` on containers of `run`.
pub const ONE_OFF: &str = "com.docker.compose.oneoff";
/// What tells a container of `run` from others of its service.
pub const SLUG: &str = "com.docker.compose.slug";
/// Image id a container was created from.
pub const IMAGE: &str = "com.docker.compose.image";
/// Dependencies, for stopping without the files.
pub const DEPENDS_ON: &str = "com.docker.compose.depends_on";
/// The files, absolute.
pub const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
/// The project's directory, absolute.
pub const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
/// Files given with `--env-file`, absolute.
pub const ENVIRONMENT_FILE: &str = "com.docker.compose.project.environment_file";
/// Key of a network.
pub const NETWORK: &str = "com.docker.compose.network";
/// Key of a volume.
pub const VOLUME: &str = "com.docker.compose.volume";
/// Digest over the module's bytes, `x-wasm`, links and granted reach of a Wasm instance.
pub const WASM_HASH: &str = "dev.wcompose.hash";
/// What `ps` shows as a Wasm instance's image: the module's reference or path as written.
pub const WASM_MODULE: &str = "dev.wcompose.module";

/// Labels of an instance's container.
pub(super) fn of_instance(
    project: &Project,
    service: &Service,
    resolved: &Resolved,
    name: &InstanceName,
    hashes: (&str, Option<&str>),
) -> BTreeMap<String, String> {
    let (config_hash, wasm_hash) = hashes;
    let files: Vec<_> = project.files.iter().map(|path| path.display().to_string()).collect();
    let mut labels = service.labels.clone();
    labels.extend(owned(project, config_hash));
    let image = match resolved {
        Resolved::Linux { id, .. } => id.clone(),
        Resolved::Wasm(module) => format!("sha256:{}", module.digest),
    };
    let mut put = |key: &str, value: String| labels.insert(key.to_owned(), value);
    put(SERVICE, service.name.to_string());
    put(NUMBER, name.number.to_string());
    put(ONE_OFF, "False".into());
    put(IMAGE, image);
    put(DEPENDS_ON, dependencies(service));
    put(CONFIG_FILES, files.join(","));
    put(WORKING_DIR, project.directory.display().to_string());
    if !project.environment_files.is_empty() {
        let files: Vec<_> = project.environment_files.iter().map(|path| path.display().to_string()).collect();
        put(ENVIRONMENT_FILE, files.join(","));
    }
    if let (Resolved::Wasm(module), Some(hash)) = (resolved, wasm_hash) {
        put(WASM_HASH, hash.to_owned());
        put(WASM_MODULE, module.reference.clone());
    }
    labels
}

/// Labels of a network or volume: the user's, and those of `element` with its key.
pub(super) fn of_resource(
    project: &Project,
    declared: &BTreeMap<String, String>,
    (element, key): (&str, &str),
    config_hash: &str,
) -> BTreeMap<String, String> {
    let mut labels = declared.clone();
    labels.extend(owned(project, config_hash));
    labels.insert(element.to_owned(), key.to_owned());
    labels
}

/// Labels everything of a project carries.
fn owned(project: &Project, config_hash: &str) -> [(String, String); 3] {
    [
        (PROJECT.to_owned(), project.name.to_string()),
        (VERSION.to_owned(), COMPOSE_VERSION.to_owned()),
        (CONFIG_HASH.to_owned(), config_hash.to_owned()),
    ]
}

fn dependencies(service: &Service) -> String {
    let entries: Vec<_> = service
        .depends_on
        .iter()
        .map(|(name, dependency)| format!("{name}:{}:{}", dependency.condition.as_str(), dependency.restart))
        .collect();
    entries.join(",")
}

/// The dependencies a `depends_on` label holds. The label does not tell optional ones from others.
pub fn parse_dependencies(label: &str) -> impl Iterator<Item = (ServiceName, Dependency)> {
    label.split(',').filter_map(|entry| {
        let mut words = entry.split(':');
        let name = words.next().filter(|name| !name.is_empty())?;
        let condition = match words.next() {
            Some("service_healthy") => Condition::Healthy,
            Some("service_completed_successfully") => Condition::Completed,
            _ => Condition::Started,
        };
        let restart = words.next() == Some("true");
        Some((name.into(), Dependency { condition, restart, required: true }))
    })
}
