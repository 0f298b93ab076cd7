//! Services, specs, networks and volumes as the plan would hand them over.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::json;

use crate::model::{
    Attachment, ImageConfig, InstanceName, Module, ModuleKind, Network, NetworkKey, ProjectName, Resolved, Service,
    Volume,
};
use crate::net::wiring::Place;
use crate::plan::unit::{AtEnd, InstanceSpec, NetworkJoin, NetworkSpec, VolumeSpec};

/// A service that says nothing.
pub(in crate::engine::docker) fn service(name: &str) -> Service {
    Service { document: json!({}), ..Service::named(name) }
}

/// The first replica of a service, on the project's default network.
pub(in crate::engine::docker) fn spec(project: &str, service: Service) -> InstanceSpec {
    let name = InstanceName::new(service.name.clone(), 1);
    let container = service.container_name.clone().unwrap_or_else(|| format!("{project}-{name}"));
    let labels = [
        ("com.docker.compose.project", project),
        ("com.docker.compose.service", service.name.as_str()),
        ("com.docker.compose.container-number", "1"),
        ("com.docker.compose.oneoff", "False"),
        ("com.docker.compose.config-hash", "hash-1"),
    ];
    InstanceSpec {
        project: ProjectName::from(project),
        resolved: Resolved::Linux { image: "busybox".into(), id: "sha256:0".into(), config: ImageConfig::default() },
        place: Place::InProcess,
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        config_hash: "hash-1".into(),
        wasm_hash: None,
        networks: vec![join(project, "default", &[&container, service.name.as_str()])],
        environment: IndexMap::new(),
        volumes: IndexMap::new(),
        egress: Vec::new(),
        at_end: AtEnd::Kept,
        container,
        name,
        service: Arc::new(service),
    }
}

pub(in crate::engine::docker) fn join(project: &str, key: &str, aliases: &[&str]) -> NetworkJoin {
    NetworkJoin {
        key: NetworkKey::from(key),
        name: format!("{project}_{key}"),
        aliases: aliases.iter().map(ToString::to_string).collect(),
        attachment: Attachment::default(),
        internal: false,
        ipv6: false,
        in_process: false,
    }
}

pub(in crate::engine::docker) fn network(project: &str, key: &str) -> NetworkSpec {
    NetworkSpec {
        network: Network { document: json!({}), ..Network::of(project, key) },
        labels: labels_of(project, "network", key),
        replace: None,
        in_process: false,
    }
}

pub(in crate::engine::docker) fn volume(project: &str, key: &str) -> VolumeSpec {
    VolumeSpec {
        volume: Volume { document: json!({}), ..Volume::of(project, key) },
        labels: labels_of(project, "volume", key),
        in_process: false,
    }
}

/// A module nobody compiles here.
pub(in crate::engine::docker) fn module() -> Resolved {
    Resolved::Wasm(Module {
        reference: "./app.wasm".into(),
        path: "/app.wasm".into(),
        digest: "0".repeat(64),
        size: 8,
        kind: ModuleKind::Http,
        function: None,
        root: None,
        files: None,
        config: ImageConfig::default(),
    })
}

fn labels_of(project: &str, kind: &str, key: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("com.docker.compose.project".to_owned(), project.to_owned()),
        (format!("com.docker.compose.{kind}"), key.to_owned()),
        ("com.docker.compose.config-hash".to_owned(), "hash-1".to_owned()),
    ])
}
