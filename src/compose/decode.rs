//! The canonical document → the typed [`Project`]. The document was checked, so little can be wrong here; what can is
//! what only the model cares about (an address, a policy's word, `x-wasm`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::{Map as Object, Value};

use super::document::{Printer, Scope};
use super::interpolate::Environment;
use super::locate::Located;
use super::node::{Data, Node, Path};
use super::{Loader, consistency, dotenv, files, limits, resolve, spec, values};
use crate::diag::{Diagnostics, FileId};
use crate::model::{
    Attachment, BadRedisAddress, Build, Bytes, Condition, Dependency, ExposedPort, FileContent, FileGrant, HealthTest,
    Healthcheck, HostBuild, HostPort, Ipam, IpamPool, Logging, Mount, MountSource, Network, NetworkKey, NetworkMode,
    Port, Project, ProjectName, Protocol, PullPolicy, Restart, Service, ServiceName, Volume, VolumeKey, WasmOptions,
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

struct Decoder<'d> {
    diagnostics: &'d mut Diagnostics,
    directory: &'d FilePath,
    home: Option<&'d FilePath>,
}

impl Decoder<'_> {
    fn service(&mut self, name: &str, origin: crate::diag::Span, node: &Node, value: &Value) -> Service {
        let deploy = value.get("deploy");
        let limits = deploy.and_then(|deploy| deploy.get("resources")?.get("limits"));
        let limit = |key: &str| limits.and_then(|limits| limits.get(key));
        let scale = value.get("scale").or_else(|| deploy?.get("replicas")).and_then(Value::as_u64).unwrap_or(1);
        Service {
            name: ServiceName::new(name),
            origin: Some(origin),
            image: owned(value, "image").map(|image| self.image(&image)),
            build: value.get("build").map(build),
            pull_policy: self.pull_policy(node),
            platform: owned(value, "platform"),
            runtime: owned(value, "runtime"),
            wasm: self.wasm(name, node),
            container_name: owned(value, "container_name"),
            scale: u32::try_from(scale).unwrap_or(u32::MAX),
            command: words(value, "command"),
            entrypoint: words(value, "entrypoint"),
            environment: variables(value, "environment"),
            working_dir: owned(value, "working_dir"),
            user: owned(value, "user"),
            hostname: owned(value, "hostname"),
            tty: flag(value, "tty"),
            stdin_open: flag(value, "stdin_open"),
            ports: elements(value, "ports").filter_map(port).collect(),
            expose: self.expose(node),
            mounts: mounts(value),
            configs: grants(value, "configs", "/"),
            secrets: grants(value, "secrets", "/run/secrets/"),
            networks: self.networks(node, value),
            network_mode: text(value, "network_mode").map(network_mode),
            depends_on: section(value, "depends_on").map(dependency).collect(),
            healthcheck: value.get("healthcheck").map(healthcheck),
            restart: self.restart(node, value),
            stop_signal: owned(value, "stop_signal"),
            stop_grace: time(value, "stop_grace_period"),
            labels: strings(value, "labels"),
            extra_hosts: elements(value, "extra_hosts")
                .filter_map(|host| host.as_str()?.split_once('='))
                .map(|(name, address)| (name.to_owned(), address.to_owned()))
                .collect(),
            memory: size(value.get("mem_limit")).or_else(|| size(limit("memory"))),
            cpus: value.get("cpus").or_else(|| limit("cpus")).and_then(Value::as_f64),
            pids: value.get("pids_limit").or_else(|| limit("pids")).and_then(Value::as_i64),
            logging: value
                .get("logging")
                .map(|logging| Logging { driver: owned(logging, "driver"), options: strings(logging, "options") }),
            attach: value.get("attach").and_then(Value::as_bool).unwrap_or(true),
            profiles: elements(value, "profiles").filter_map(Value::as_str).map(str::to_owned).collect(),
            document: value.clone(),
        }
    }

    /// A path (of a module, a saved image) becomes absolute; anything else is the name of an image.
    fn image(&self, image: &str) -> String {
        if ["./", "../", "/"].iter().any(|start| image.starts_with(start)) {
            return files::join(self.directory, image).display().to_string();
        }
        image.to_owned()
    }

    fn pull_policy(&mut self, node: &Node) -> PullPolicy {
        let day = Duration::from_secs(86_400);
        match node.text_at("pull_policy") {
            None | Some("missing" | "if_not_present") => PullPolicy::Missing,
            Some("always") => PullPolicy::Always,
            Some("never") => PullPolicy::Never,
            Some("build") => PullPolicy::Build,
            Some("daily") => PullPolicy::Every(day),
            Some("weekly") => PullPolicy::Every(7 * day),
            Some("refresh") => {
                let after = node.text_at("pull_refresh_after").and_then(|text| values::duration(text).ok());
                after.map_or(PullPolicy::Always, |nanos| PullPolicy::Every(nanoseconds(nanos)))
            }
            Some(other) => match other.strip_prefix("every_").and_then(|text| values::duration(text).ok()) {
                Some(nanos) if nanos > 0 => PullPolicy::Every(nanoseconds(nanos)),
                _ => {
                    let place = node.get("pull_policy").unwrap_or(node);
                    self.diagnostics.push(
                        place
                            .error(format!("`{other}` is not a pull policy"))
                            .hint("one of `always`, `never`, `missing`, `build`, `daily`, `weekly`, `every_12h`"),
                    );
                    PullPolicy::Missing
                }
            },
        }
    }

    fn restart(&mut self, node: &Node, value: &Value) -> Restart {
        if let Some(policy) = text(value, "restart") {
            return match policy.split_once(':') {
                _ if policy == "no" => Restart::No,
                _ if policy == "always" => Restart::Always,
                _ if policy == "unless-stopped" => Restart::UnlessStopped,
                _ if policy == "on-failure" => Restart::OnFailure { maximum: 0 },
                Some(("on-failure", maximum)) if maximum.parse::<u32>().is_ok() => {
                    Restart::OnFailure { maximum: maximum.parse().unwrap_or(0) }
                }
                _ => {
                    let place = node.get("restart").unwrap_or(node);
                    let choices = ["no", "always", "on-failure", "unless-stopped"];
                    let mut diagnostic = place
                        .error(format!("`{policy}` is not a restart policy; the engine will not take it"))
                        .hint("one of `no`, `always`, `on-failure[:MAXIMUM]`, `unless-stopped`");
                    diagnostic.severity = crate::diag::Severity::Warning;
                    if let Some(similar) = values::similar(policy, choices) {
                        diagnostic = diagnostic.hint(format!("did you mean `{similar}`?"));
                    }
                    self.diagnostics.push(diagnostic);
                    Restart::No
                }
            };
        }
        let policy = value.get("deploy").and_then(|deploy| deploy.get("restart_policy"));
        match policy.map(|policy| text(policy, "condition").unwrap_or("any")) {
            None | Some("none") => Restart::No,
            Some("on-failure") => {
                let maximum = policy.and_then(|policy| policy.get("max_attempts")).and_then(Value::as_u64).unwrap_or(0);
                Restart::OnFailure { maximum: u32::try_from(maximum).unwrap_or(u32::MAX) }
            }
            Some(_) => Restart::Always,
        }
    }

    /// Ports the container has, published or not; ranges become one entry a port.
    fn expose(&mut self, node: &Node) -> Vec<ExposedPort> {
        let mut ports = Vec::new();
        for entry in node.get("expose").and_then(Node::as_list).unwrap_or_default() {
            let Some(text) = entry.scalar() else { continue };
            let (range, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
            match (values::port_range(range), protocol_of(protocol)) {
                (Ok(_), Some(_)) if ports.len() > limits::PORTS => {
                    self.diagnostics
                        .push(entry.error(format!("the service exposes more than {} ports", limits::PORTS)));
                    break;
                }
                (Ok((start, end)), Some(protocol)) => {
                    ports.extend((start..=end).map(|port| ExposedPort { port, protocol }))
                }
                (Err(what), _) => {
                    let mut diagnostic = entry.error(format!("the exposed port {what}"));
                    diagnostic.severity = crate::diag::Severity::Warning;
                    self.diagnostics.push(diagnostic);
                }
                (_, None) => {
                    let mut diagnostic = entry.error(format!("`{protocol}` is not a protocol"));
                    diagnostic.severity = crate::diag::Severity::Warning;
                    self.diagnostics.push(diagnostic);
                }
            }
        }
        ports
    }

    fn networks(&mut self, node: &Node, value: &Value) -> IndexMap<NetworkKey, Attachment> {
        let mut networks = IndexMap::new();
        for (key, entry) in section(value, "networks") {
            let place = node.get("networks").and_then(|networks| networks.get(key)).unwrap_or(node);
            let mut address = |field: &str| {
                let text = text(entry, field)?;
                let parsed = text.parse::<IpAddr>().ok();
                if parsed.is_none() {
                    let place = place.get(field).unwrap_or(place);
                    let mut diagnostic = place.error(format!("`{text}` is not an IP address"));
                    diagnostic.severity = crate::diag::Severity::Warning;
                    self.diagnostics.push(diagnostic);
                }
                parsed
            };
            networks.insert(
                NetworkKey::new(key),
                Attachment {
                    ipv4: address("ipv4_address"),
                    ipv6: address("ipv6_address"),
                    aliases: list_of(entry, "aliases"),
                    link_local: list_of(entry, "link_local_ips").iter().filter_map(|text| text.parse().ok()).collect(),
                    mac: owned(entry, "mac_address"),
                    priority: entry.get("priority").and_then(Value::as_i64).unwrap_or(0),
                    driver_opts: strings(entry, "driver_opts"),
                },
            );
        }
        networks
    }

    fn wasm(&mut self, name: &str, service_node: &Node) -> Option<WasmOptions> {
        let node = service_node.get("x-wasm")?;
        if node.is_null() {
            return Some(WasmOptions::default());
        }
        let services = Path::ROOT.key("services");
        let (service, extension) = (services.key(name), "x-wasm");
        let value = Printer { diagnostics: self.diagnostics, scope: Scope::Whole }.record(
            node,
            &spec::WASM,
            &service.key(extension),
        )?;
        let http = value.get("http");
        let path = |path: &str| files::join(self.directory, resolve::expand_home(path, self.home));
        let module = text(&value, "module").map(path);
        let image = service_node.text_at("image").map(|image| self.image(image));
        let beside = module.clone().or_else(|| image.filter(|image| image.starts_with('/')).map(PathBuf::from));
        let build = value.get("build").map(|build| HostBuild {
            origin: node.get("build").and_then(|build| build.get("command")).map(|command| command.span),
            command: list_of(build, "command"),
            output: text(build, "output").map(path).or_else(|| beside.clone()).unwrap_or_default(),
            working_dir: text(build, "working_dir").map_or_else(|| self.directory.to_owned(), path),
            environment: strings(build, "environment"),
            watch: list_of(build, "watch").iter().map(|watched| path(watched)).collect(),
        });
        if let (Some(build), Some(node)) = (&build, node.get("build")) {
            if build.output.as_os_str().is_empty() {
                self.diagnostics.push(
                    node.error(format!("`x-wasm.build` of service `{name}` does not say where its module is"))
                        .hint("add `output: ./path/of/the.wasm`"),
                );
            } else if beside.is_some_and(|beside| beside != build.output) {
                let place = node.get("output").unwrap_or(node);
                self.diagnostics.push(
                    place
                        .error(format!("service `{name}` has two modules: what it builds, and another one"))
                        .hint("leave out `output`, or the module's path beside `build`"),
                );
            }
        }
        let redis = value.get("keyvalue").and_then(|keyvalue| text(keyvalue, "redis"));
        let keyvalue =
            redis.map(str::parse).and_then(|parsed| match parsed {
                Ok(address) => Some(address),
                Err(bad) => {
                    let place = node.get("keyvalue").and_then(|keyvalue| keyvalue.get("redis")).unwrap_or(node);
                    let bad: BadRedisAddress = bad;
                    self.diagnostics.push(place.error(format!("{bad} (`x-wasm.keyvalue` of service `{name}`)")).hint(
                        "write the service's name, `cache` or `cache:6379`, or `redis://:PASSWORD@cache:6379/0`",
                    ));
                    None
                }
            });
        Some(WasmOptions {
            config: strings(&value, "config"),
            keyvalue,
            plug: list_of(&value, "plug").iter().map(|plug| path(plug)).collect(),
            module,
            build,
            http_ports: http
                .into_iter()
                .flat_map(|http| elements(http, "ports"))
                .filter_map(|port| u16::try_from(port.as_u64()?).ok())
                .collect(),
            http_reuse: http.is_some_and(|http| flag(http, "reuse")),
            egress: list_of(&value, "egress"),
            env_from_links: value.get("env_from_links").and_then(Value::as_bool),
            health_http: value.get("healthcheck").and_then(|check| owned(check, "http")),
            fuel: value.get("fuel").and_then(Value::as_u64),
        })
    }
}

fn build(value: &Value) -> Build {
    Build {
        context: text(value, "context").unwrap_or_default().to_owned(),
        dockerfile: owned(value, "dockerfile"),
        dockerfile_inline: owned(value, "dockerfile_inline"),
        args: variables(value, "args"),
        target: owned(value, "target"),
        labels: strings(value, "labels"),
        platforms: list_of(value, "platforms"),
        tags: list_of(value, "tags"),
        network: owned(value, "network"),
        no_cache: flag(value, "no_cache"),
        pull: flag(value, "pull"),
        secrets: grants(value, "secrets", ""),
    }
}

fn port(value: &Value) -> Option<Port> {
    let published = text(value, "published").and_then(|text| values::port_range(text).ok());
    Some(Port {
        target: u16::try_from(value.get("target")?.as_u64()?).ok()?,
        published: published.filter(|range| *range != (0, 0)).map(|(start, end)| HostPort { start, end }),
        host_ip: text(value, "host_ip").and_then(|text| text.parse().ok()),
        protocol: text(value, "protocol").and_then(protocol_of).unwrap_or_default(),
    })
}

fn protocol_of(text: &str) -> Option<Protocol> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "sctp" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// `volumes`, then `tmpfs`.
fn mounts(value: &Value) -> Vec<Mount> {
    let volumes = elements(value, "volumes").map(|mount| {
        let part = |key: &str| mount.get(key).unwrap_or(&Value::Null);
        let source = match (text(mount, "type"), text(mount, "source")) {
            (Some("volume"), Some(key)) => MountSource::Volume {
                key: VolumeKey::new(key),
                no_copy: flag(part("volume"), "nocopy"),
                subpath: owned(part("volume"), "subpath"),
            },
            (Some("volume"), None) => MountSource::Anonymous { no_copy: flag(part("volume"), "nocopy") },
            (Some("bind"), Some(path)) => MountSource::Bind {
                path: path.into(),
                create: flag(part("bind"), "create_host_path"),
                propagation: owned(part("bind"), "propagation"),
                selinux: owned(part("bind"), "selinux"),
            },
            (Some("tmpfs"), _) => MountSource::Tmpfs {
                size: size(part("tmpfs").get("size")),
                mode: part("tmpfs").get("mode").and_then(Value::as_u64).and_then(|mode| u32::try_from(mode).ok()),
            },
            (kind, source) => {
                MountSource::Other { kind: kind.unwrap_or_default().to_owned(), source: source.map(str::to_owned) }
            }
        };
        Mount {
            source,
            target: text(mount, "target").unwrap_or_default().to_owned(),
            read_only: flag(mount, "read_only"),
        }
    });
    let temporary = list_of(value, "tmpfs").into_iter().map(|entry| {
        let (target, options) = entry.split_once(':').unwrap_or((&entry, ""));
        let option = |name: &str| options.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
        let size = option("size").and_then(|text| values::bytes(text).ok()).and_then(|size| u64::try_from(size).ok());
        Mount {
            source: MountSource::Tmpfs {
                size: size.map(Bytes),
                mode: option("mode").and_then(|text| u32::from_str_radix(text, 8).ok()),
            },
            target: target.to_owned(),
            read_only: options.split(',').any(|option| option == "ro"),
        }
    });
    volumes.chain(temporary).collect()
}

fn grants(value: &Value, key: &str, folder: &str) -> Vec<FileGrant> {
    elements(value, key)
        .map(|grant| {
            let source = text(grant, "source").unwrap_or_default().to_owned();
            let target = text(grant, "target").unwrap_or(&source);
            let target = if target.starts_with('/') { target.to_owned() } else { format!("{folder}{target}") };
            let mode = text(grant, "mode").and_then(|mode| u32::from_str_radix(mode, 8).ok());
            // The content is filled in once the top-level sections are decoded.
            let content = FileContent::External { name: source.clone() };
            FileGrant { source, content, target, uid: owned(grant, "uid"), gid: owned(grant, "gid"), mode }
        })
        .collect()
}

fn network_mode(mode: &str) -> NetworkMode {
    match mode.split_once(':') {
        Some(("service", name)) => NetworkMode::Service(ServiceName::new(name)),
        Some(("container", name)) => NetworkMode::Container(name.to_owned()),
        _ if mode == "none" => NetworkMode::None,
        _ if mode == "host" => NetworkMode::Host,
        _ => NetworkMode::Other(mode.to_owned()),
    }
}

fn dependency((name, value): (&str, &Value)) -> (ServiceName, Dependency) {
    let condition = match text(value, "condition") {
        Some("service_healthy") => Condition::Healthy,
        Some("service_completed_successfully") => Condition::Completed,
        _ => Condition::Started,
    };
    let required = value.get("required").and_then(Value::as_bool).unwrap_or(true);
    (ServiceName::new(name), Dependency { condition, restart: flag(value, "restart"), required })
}

fn healthcheck(value: &Value) -> Healthcheck {
    let test = list_of(value, "test");
    let test = match test.split_first() {
        _ if flag(value, "disable") => Some(HealthTest::Disabled),
        Some((kind, _)) if kind == "NONE" => Some(HealthTest::Disabled),
        Some((kind, rest)) if kind == "CMD-SHELL" => Some(HealthTest::Shell(rest.join(" "))),
        Some((_, rest)) => Some(HealthTest::Command(rest.to_vec())),
        None => None,
    };
    Healthcheck {
        test,
        interval: time(value, "interval"),
        timeout: time(value, "timeout"),
        retries: value.get("retries").and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok()),
        start_period: time(value, "start_period"),
        start_interval: time(value, "start_interval"),
    }
}

fn section<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = (&'v str, &'v Value)> {
    value.get(key).and_then(Value::as_object).into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

fn elements<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key)?.as_str()
}

fn owned(value: &Value, key: &str) -> Option<String> {
    text(value, key).map(str::to_owned)
}

fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool) == Some(true)
}

fn list_of(value: &Value, key: &str) -> Vec<String> {
    elements(value, key).filter_map(Value::as_str).map(str::to_owned).collect()
}

fn strings(value: &Value, key: &str) -> BTreeMap<String, String> {
    section(value, key).map(|(key, value)| (key.to_owned(), value.as_str().unwrap_or_default().to_owned())).collect()
}

fn variables(value: &Value, key: &str) -> IndexMap<String, Option<String>> {
    section(value, key).map(|(key, value)| (key.to_owned(), value.as_str().map(str::to_owned))).collect()
}

fn words(value: &Value, key: &str) -> Option<Vec<String>> {
    value.get(key)?.as_array().map(|_| list_of(value, key))
}

fn time(value: &Value, key: &str) -> Option<Duration> {
    values::duration(text(value, key)?).ok().map(nanoseconds)
}

fn nanoseconds(nanos: i128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
}

fn size(value: Option<&Value>) -> Option<Bytes> {
    value?.as_str()?.parse().ok().map(Bytes)
}
