//! The canonical document → the typed [`Project`]. The document was checked, so little can be wrong here; what can is
//! what only the model cares about (an address, a policy's word, `x-wasm`).
//!
//! Here are the files that services name, and the top-level sections; `service` has what is in a service.

mod fields;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use indexmap::IndexMap;
use serde_json::{Map as Object, Value};

use self::fields::{elements, flag, owned, section, strings, text};
use self::service::Decoder;
use super::interpolate::Environment;
use super::locate::Located;
use super::node::{Data, Node};
use super::{Loader, consistency, dotenv, resolve};
use crate::diag::{Diagnostics, FileId};
use crate::model::{
    FileContent, FileGrant, Ipam, IpamPool, Network, NetworkKey, Project, ProjectName, Service, ServiceName, Volume,
    VolumeKey,
};

/// Reads the `env_file`s and `label_file`s of the enabled services into their environment and labels.
///
/// As in compose, what is read for `config --hash` keeps the `env_file`s themselves, which it does not read, and drops
/// the `label_file`s, which stay otherwise: both hashes see exactly that.
pub(super) fn environment_files(
    loader: &mut Loader<'_>,
    document: &mut Value,
    root: &Node,
    enabled: &BTreeSet<String>,
    environment: &Environment,
) {
    let unread = loader.without.environment_files;
    let Some(services) = document.get_mut("services").and_then(Value::as_object_mut) else { return };
    for (name, service) in services.iter_mut().filter(|(name, _)| enabled.contains(*name)) {
        let Some(service) = service.as_object_mut() else { continue };
        let Some(node) = root.get("services").and_then(|services| services.get(name)) else { continue };
        let own = service.get("environment").and_then(Value::as_object).cloned().unwrap_or_default();
        let lookup = |name: &str| {
            environment.get(name).cloned().or_else(|| own.get(name).and_then(Value::as_str).map(str::to_owned))
        };
        let files = node.get("env_file").and_then(Node::as_list).filter(|_| !unread).unwrap_or_default();
        let mut variables = read(loader, files, &lookup);
        variables.extend(own.clone());
        let labels = node.get("label_file").and_then(Node::as_list).unwrap_or_default();
        let mut read_labels = read(loader, labels, &|_| None);
        read_labels.extend(service.get("labels").and_then(Value::as_object).cloned().unwrap_or_default());
        for (key, entries, present) in
            [("environment", variables, !files.is_empty()), ("labels", read_labels, !labels.is_empty())]
        {
            if present && !entries.is_empty() {
                let sorted: BTreeMap<_, _> = entries.into_iter().collect();
                service.insert(key.to_owned(), Value::Object(sorted.into_iter().collect()));
            }
        }
        service.shift_remove(if unread { "label_file" } else { "env_file" });
    }
}

fn read(loader: &mut Loader<'_>, list: &[Node], lookup: &dyn Fn(&str) -> Option<String>) -> Object<String, Value> {
    let mut variables = Object::new();
    for node in list {
        let place = node.get("path").unwrap_or(node);
        let Some(path) = place.as_text() else { continue };
        let path = PathBuf::from(path);
        let required = !matches!(node.get("required").map(|node| &node.data), Some(Data::Bool(false)));
        if loader.files.kind(&path).is_none() && !required {
            continue;
        }
        let Some(id) = loader.open_as(&path, Some(place), "environment file") else { continue };
        let text = loader.sources.text(id);
        let known = variables.clone();
        let lookup = |name: &str| lookup(name).or_else(|| known.get(name).and_then(Value::as_str).map(str::to_owned));
        let read = match node.get("format").and_then(Node::as_text) {
            None | Some("") => dotenv::parse(id, text, &lookup),
            Some("raw") => dotenv::parse_raw(id, text, &lookup),
            Some(other) => Err(node
                .get("format")
                .unwrap_or(node)
                .error(format!("`{other}` is not a format of an environment file"))
                .hint("leave `format` out, or write `raw`")),
        };
        match read {
            Ok(read) => variables.extend(read.into_iter().map(|(name, value)| (name, Value::String(value)))),
            Err(diagnostic) => loader.diagnostics.push(diagnostic),
        }
    }
    variables
}

/// What a project is decoded from.
pub(super) struct Parts<'p> {
    pub name: String,
    pub located: &'p Located,
    pub files: &'p [(PathBuf, FileId)],
    pub document: Value,
    pub root: Node,
    pub enabled: &'p BTreeSet<String>,
    pub home: Option<PathBuf>,
    pub compatibility: bool,
    pub all_resources: bool,
}

/// Decodes a checked document.
pub(super) fn project(parts: Parts<'_>, diagnostics: &mut Diagnostics) -> Project {
    let Parts { name, located, files, mut document, mut root, enabled, home, compatibility, all_resources } = parts;
    let mut decoder = Decoder { diagnostics, directory: &located.directory, home: home.as_deref() };
    let (mut services, mut disabled) = (IndexMap::new(), IndexMap::new());
    // Each is dropped once it is decoded: the tree and the model of a large project are not held at once.
    for (key, node) in root.get_mut("services").and_then(Node::as_map_mut).map(std::mem::take).into_iter().flatten() {
        let Some(element) = document.get("services").and_then(|services| services.get(&*key.text)) else { continue };
        let mut service = decoder.service(&key.text, key.span, &node, element);
        default_platform(&mut service, &located.environment);
        let target = if enabled.contains(&*key.text) { &mut services } else { &mut disabled };
        target.insert(ServiceName::new(&*key.text), service);
    }
    if let Some(all) = document.get_mut("services").and_then(Value::as_object_mut) {
        all.retain(|name, _| enabled.contains(name));
    } else if let Some(document) = document.as_object_mut() {
        document.insert("services".into(), Value::Object(Object::new()));
    }
    let files_of = |section: &str| file_contents(&document, &root, section);
    let (configs, secrets) = (files_of("configs"), files_of("secrets"));
    for service in services.values_mut().chain(disabled.values_mut()) {
        fill(&mut service.configs, &configs);
        fill(&mut service.secrets, &secrets);
        if let Some(build) = &mut service.build {
            fill(&mut build.secrets, &secrets);
        }
    }
    strip_resolved(&mut document);
    for service in document.get_mut("services").and_then(Value::as_object_mut).into_iter().flat_map(Object::values_mut)
    {
        service.as_object_mut().map(|service| service.shift_remove("label_file"));
    }
    if !all_resources {
        retain_used(&mut document);
    }
    Project {
        name: ProjectName::new(name),
        directory: located.directory.clone(),
        files: files.iter().map(|(path, _)| path.clone()).collect(),
        environment_files: located.environment_files.clone(),
        networks: section(&document, "networks")
            .map(|(key, node)| (NetworkKey::new(key), network(key, node)))
            .collect(),
        volumes: section(&document, "volumes").map(|(key, node)| (VolumeKey::new(key), volume(key, node))).collect(),
        services,
        disabled,
        configs,
        secrets,
        separator: if compatibility { '_' } else { '-' },
        all_resources,
        document,
    }
}

/// As in compose, `DOCKER_DEFAULT_PLATFORM` is the platform of what is built, and part of its hash; `config` does not
/// print it.
fn default_platform(service: &mut Service, environment: &Environment) {
    let Some(platform) = environment.get("DOCKER_DEFAULT_PLATFORM").filter(|platform| !platform.is_empty()) else {
        return;
    };
    let Some(build) = &service.build else { return };
    if service.platform.is_none() && (build.platforms.is_empty() || build.platforms.contains(platform)) {
        service.platform = Some(platform.clone());
        if let Some(document) = service.document.as_object_mut() {
            document.insert("platform".into(), Value::from(platform.as_str()));
        }
    }
}

/// Gives each use of a config or secret the content of its top-level element.
fn fill(grants: &mut [FileGrant], contents: &IndexMap<String, FileContent>) {
    for grant in grants {
        if let Some(content) = contents.get(&grant.source) {
            grant.content = content.clone();
        }
    }
}

/// Drops top-level objects that no enabled service uses, as compose does before it prints or creates anything.
pub(super) fn retain_used(document: &mut Value) {
    let mut used: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (_, service) in section(document, "services") {
        let mut add = |kind: &'static str, name: Option<&str>| {
            used.entry(kind).or_default().extend(name.map(str::to_owned));
        };
        for kind in ["networks", "models"] {
            section(service, kind).for_each(|(key, _)| add(kind, Some(key)));
        }
        for mount in elements(service, "volumes").filter(|mount| text(mount, "type") == Some("volume")) {
            add("volumes", text(mount, "source"));
        }
        for kind in ["secrets", "configs"] {
            elements(service, kind).for_each(|grant| add(kind, text(grant, "source")));
        }
        for grant in service.get("build").into_iter().flat_map(|build| elements(build, "secrets")) {
            add("secrets", text(grant, "source"));
        }
    }
    let used: BTreeMap<String, BTreeSet<String>> =
        used.into_iter().map(|(kind, names)| (kind.to_owned(), names)).collect();
    let Some(object) = document.as_object_mut() else { return };
    for kind in ["networks", "volumes", "secrets", "configs", "models"] {
        if let Some(entries) = object.get_mut(kind).and_then(Value::as_object_mut) {
            entries.retain(|name, _| used.get(kind).is_some_and(|names| names.contains(name)));
            if entries.is_empty() {
                object.shift_remove(kind);
            }
        }
    }
}

fn strip_resolved(document: &mut Value) {
    for kind in ["configs", "secrets"] {
        for entry in document.get_mut(kind).and_then(Value::as_object_mut).into_iter().flat_map(|map| map.values_mut())
        {
            if let Some(entry) = entry.as_object_mut() {
                entry.shift_remove(resolve::RESOLVED);
            }
        }
    }
}

fn file_contents(document: &Value, root: &Node, kind: &str) -> IndexMap<String, FileContent> {
    section(document, kind)
        .map(|(key, entry)| {
            let content = if consistency::is_external(entry) {
                FileContent::External { name: text(entry, "name").unwrap_or(key).to_owned() }
            } else if let Some(path) = text(entry, "file") {
                FileContent::File(path.into())
            } else if let Some(name) = text(entry, "environment") {
                let node = root.get(kind).and_then(|entries| entries.get(key));
                let value = node.and_then(|node| node.text_at(resolve::RESOLVED)).map(str::to_owned);
                FileContent::Environment { name: name.to_owned(), value }
            } else {
                FileContent::Inline(text(entry, "content").unwrap_or_default().to_owned())
            };
            (key.to_owned(), content)
        })
        .collect()
}

fn network(key: &str, value: &Value) -> Network {
    let pools = value.get("ipam").into_iter().flat_map(|ipam| elements(ipam, "config"));
    Network {
        key: NetworkKey::new(key),
        name: text(value, "name").unwrap_or(key).to_owned(),
        external: consistency::is_external(value),
        internal: flag(value, "internal"),
        attachable: flag(value, "attachable"),
        driver: owned(value, "driver"),
        driver_opts: strings(value, "driver_opts"),
        ipam: Ipam {
            driver: value.get("ipam").and_then(|ipam| owned(ipam, "driver")),
            pools: pools
                .map(|pool| IpamPool {
                    subnet: owned(pool, "subnet"),
                    ip_range: owned(pool, "ip_range"),
                    gateway: owned(pool, "gateway"),
                    aux_addresses: strings(pool, "aux_addresses"),
                })
                .collect(),
        },
        enable_ipv4: value.get("enable_ipv4").and_then(Value::as_bool),
        enable_ipv6: value.get("enable_ipv6").and_then(Value::as_bool),
        labels: strings(value, "labels"),
        document: value.clone(),
    }
}

fn volume(key: &str, value: &Value) -> Volume {
    Volume {
        key: VolumeKey::new(key),
        name: text(value, "name").unwrap_or(key).to_owned(),
        external: consistency::is_external(value),
        driver: owned(value, "driver"),
        driver_opts: strings(value, "driver_opts"),
        labels: strings(value, "labels"),
        document: value.clone(),
    }
}
