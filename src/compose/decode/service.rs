//! A service's element of the canonical document → a [`Service`], with all that is in it. What is wrong is told at its place.

use std::net::IpAddr;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::Value;

use super::fields::{
    elements, flag, list_of, nanoseconds, owned, section, size, strings, text, time, variables, words,
};
use crate::compose::document::{Printer, Scope};
use crate::compose::node::{Node, Path};
use crate::compose::{files, limits, resolve, spec, values};
use crate::diag::{Diagnostics, Severity, Span};
use crate::model::{
    Attachment, BadRedisAddress, Build, Bytes, Condition, Dependency, ExposedPort, FileContent, FileGrant, HealthTest,
    Healthcheck, HostBuild, HostPort, Logging, Mount, MountSource, NetworkKey, NetworkMode, Port, Protocol, PullPolicy,
    Restart, Service, ServiceName, VolumeKey, WasmOptions,
};

/// Reads services.
pub(super) struct Decoder<'d> {
    pub diagnostics: &'d mut Diagnostics,
    pub directory: &'d FilePath,
    pub home: Option<&'d FilePath>,
}

impl Decoder<'_> {
    /// The service of this name, as its node and its value say.
    pub(super) fn service(&mut self, name: &str, origin: Span, node: &Node, value: &Value) -> Service {
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
                    diagnostic.severity = Severity::Warning;
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
                    diagnostic.severity = Severity::Warning;
                    self.diagnostics.push(diagnostic);
                }
                (_, None) => {
                    let mut diagnostic = entry.error(format!("`{protocol}` is not a protocol"));
                    diagnostic.severity = Severity::Warning;
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
                    diagnostic.severity = Severity::Warning;
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
    Protocol::named(&text.to_ascii_lowercase())
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
    let disabled = flag(value, "disable").then_some(HealthTest::Disabled);
    Healthcheck {
        test: disabled.or_else(|| HealthTest::read(&list_of(value, "test"))),
        interval: time(value, "interval"),
        timeout: time(value, "timeout"),
        retries: value.get("retries").and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok()),
        start_period: time(value, "start_period"),
        start_interval: time(value, "start_interval"),
    }
}
