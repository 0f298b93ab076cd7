//! A loaded project: services, networks, volumes, files, and the canonical document they came from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use indexmap::IndexMap;
use serde_json::Value;

use super::mount::FileContent;
use super::name::{NetworkKey, ProjectName, ServiceName, VolumeKey};
use super::service::Service;

/// What a set of compose files says, complete: nothing below asks the files again.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// Normalised name; prefix of every object's name.
    pub name: ProjectName,
    /// Absolute project directory (`com.docker.compose.project.working_dir`).
    pub directory: PathBuf,
    /// Absolute paths of the files it was loaded from, in order of merging.
    pub files: Vec<PathBuf>,
    /// Absolute paths given with `--env-file`; empty when only `.env` was read.
    pub environment_files: Vec<PathBuf>,
    /// Enabled services, in dependency-free document order.
    pub services: IndexMap<ServiceName, Service>,
    /// Services that no active profile enables.
    pub disabled: IndexMap<ServiceName, Service>,
    /// Networks in use or declared, the implicit `default` included.
    pub networks: IndexMap<NetworkKey, Network>,
    /// Named volumes.
    pub volumes: IndexMap<VolumeKey, Volume>,
    /// Top-level `configs`.
    pub configs: IndexMap<String, FileContent>,
    /// Top-level `secrets`.
    pub secrets: IndexMap<String, FileContent>,
    /// What stands between the parts of the names of containers and images: `-`, or `_` with `--compatibility`.
    pub separator: char,
    /// Networks, volumes and the like that no service uses are kept: `--all-resources`.
    pub all_resources: bool,
    /// The canonical model, as `config --format json` prints it.
    pub document: Value,
}

impl Project {
    /// One of that name without services, for tests.
    #[cfg(test)]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            directory: format!("/{name}").into(),
            files: Vec::new(),
            environment_files: Vec::new(),
            services: IndexMap::new(),
            disabled: IndexMap::new(),
            networks: IndexMap::new(),
            volumes: IndexMap::new(),
            configs: IndexMap::new(),
            secrets: IndexMap::new(),
            separator: '-',
            all_resources: false,
            document: Value::Null,
        }
    }

    /// The image a service is built as when it names none.
    pub fn image_of(&self, service: &ServiceName) -> String {
        format!("{}{}{service}", self.name, self.separator)
    }
}

/// A top-level network.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Key under `networks`.
    pub key: NetworkKey,
    /// The engine's name for it: `name:` verbatim, else `<project>_<key>`.
    pub name: String,
    /// Made elsewhere: never created, never removed.
    pub external: bool,
    /// No way out of it.
    pub internal: bool,
    /// Containers outside the project may join by hand.
    pub attachable: bool,
    /// Driver; absent means the engine's default.
    pub driver: Option<String>,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Address management.
    pub ipam: Ipam,
    /// IPv4 on or off; absent means the engine's default.
    pub enable_ipv4: Option<bool>,
    /// IPv6 on or off; absent means the engine's default.
    pub enable_ipv6: Option<bool>,
    /// Labels of the user.
    pub labels: BTreeMap<String, String>,
    /// The element of the canonical document, for the config hash.
    pub document: Value,
}

impl Network {
    /// A project's, of which the files say nothing, for tests.
    #[cfg(test)]
    pub fn of(project: &str, key: &str) -> Self {
        Self {
            key: key.into(),
            name: format!("{project}_{key}"),
            external: false,
            internal: false,
            attachable: false,
            driver: None,
            driver_opts: BTreeMap::new(),
            ipam: Ipam::default(),
            enable_ipv4: None,
            enable_ipv6: None,
            labels: BTreeMap::new(),
            document: Value::Null,
        }
    }
}

/// `ipam` of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ipam {
    /// Driver; absent means the engine's default.
    pub driver: Option<String>,
    /// Address pools.
    pub pools: Vec<IpamPool>,
}

/// One entry of `ipam.config`, as written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IpamPool {
    /// CIDR.
    pub subnet: Option<String>,
    /// CIDR of the part addresses are given from.
    pub ip_range: Option<String>,
    /// Gateway address.
    pub gateway: Option<String>,
    /// Addresses used by hosts of the driver.
    pub aux_addresses: BTreeMap<String, String>,
}

/// A top-level volume.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    /// Key under `volumes`.
    pub key: VolumeKey,
    /// The engine's name for it.
    pub name: String,
    /// Made elsewhere: never created, never removed.
    pub external: bool,
    /// Driver; absent means `local`.
    pub driver: Option<String>,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Labels of the user.
    pub labels: BTreeMap<String, String>,
    /// The element of the canonical document, for the config hash.
    pub document: Value,
}

impl Volume {
    /// A project's, of which the files say nothing, for tests.
    #[cfg(test)]
    pub fn of(project: &str, key: &str) -> Self {
        Self {
            key: key.into(),
            name: format!("{project}_{key}"),
            external: false,
            driver: None,
            driver_opts: BTreeMap::new(),
            labels: BTreeMap::new(),
            document: Value::Null,
        }
    }
}
