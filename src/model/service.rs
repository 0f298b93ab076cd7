//! One service of a project. What an engine acts on is typed here; the rest stays in `document`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::health::Healthcheck;
use super::keyvalue::RedisAddress;
use super::mount::{FileGrant, Mount};
use super::name::{NetworkKey, ServiceName};
use super::port::{ExposedPort, Port};
use super::quantity::Bytes;
use super::restart::Restart;
use crate::diag::Span;

/// A service as the files declare it, every short form widened, every default of the specification filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Key under `services`.
    pub name: ServiceName,
    /// Where its key stands in the files.
    pub origin: Option<Span>,
    /// `image`.
    pub image: Option<String>,
    /// `build`.
    pub build: Option<Build>,
    /// `pull_policy`.
    pub pull_policy: PullPolicy,
    /// `platform`, as written.
    pub platform: Option<String>,
    /// `runtime`, as written.
    pub runtime: Option<String>,
    /// `x-wasm`; present means the service is Wasm.
    pub wasm: Option<WasmOptions>,
    /// `container_name`: then there is one replica only.
    pub container_name: Option<String>,
    /// Replicas: `scale` or `deploy.replicas`; 1 when absent.
    pub scale: u32,
    /// `command`; absent means the image's.
    pub command: Option<Vec<String>>,
    /// `entrypoint`; absent means the image's, empty means none.
    pub entrypoint: Option<Vec<String>>,
    /// `environment` over `env_file`, resolved; a variable without a value is not passed on.
    pub environment: IndexMap<String, Option<String>>,
    /// `working_dir`.
    pub working_dir: Option<String>,
    /// `user`.
    pub user: Option<String>,
    /// `hostname`.
    pub hostname: Option<String>,
    /// `tty`.
    pub tty: bool,
    /// `stdin_open`.
    pub stdin_open: bool,
    /// `ports`.
    pub ports: Vec<Port>,
    /// `expose`.
    pub expose: Vec<ExposedPort>,
    /// `volumes` and `tmpfs`.
    pub mounts: Vec<Mount>,
    /// `configs`.
    pub configs: Vec<FileGrant>,
    /// `secrets`.
    pub secrets: Vec<FileGrant>,
    /// Networks it joins; empty with a `network_mode`.
    pub networks: IndexMap<NetworkKey, Attachment>,
    /// `network_mode`.
    pub network_mode: Option<NetworkMode>,
    /// `depends_on`, with what `links`, `volumes_from` and `network_mode: service:` imply.
    pub depends_on: IndexMap<ServiceName, Dependency>,
    /// `healthcheck`.
    pub healthcheck: Option<Healthcheck>,
    /// `restart`, or `deploy.restart_policy`.
    pub restart: Restart,
    /// `stop_signal`; absent means the image's, then SIGTERM.
    pub stop_signal: Option<String>,
    /// `stop_grace_period`; absent means 10 s.
    pub stop_grace: Option<Duration>,
    /// `labels` and `label_file`.
    pub labels: BTreeMap<String, String>,
    /// `extra_hosts` as (name, address or `host-gateway`).
    pub extra_hosts: Vec<(String, String)>,
    /// `mem_limit` or `deploy.resources.limits.memory`.
    pub memory: Option<Bytes>,
    /// `cpus` or `deploy.resources.limits.cpus`, in cores.
    pub cpus: Option<f64>,
    /// `pids_limit` or `deploy.resources.limits.pids`.
    pub pids: Option<i64>,
    /// `logging`.
    pub logging: Option<Logging>,
    /// `attach: false` leaves its logs out of an attached `up`.
    pub attach: bool,
    /// `profiles`.
    pub profiles: Vec<String>,
    /// The element of the canonical document: everything above, and what only the engine reads
    /// (`cap_add`, `ulimits`, `sysctls`, `devices`, …), in compose's long forms.
    pub document: Value,
}

impl Service {
    /// A service of that name of which the files say nothing else.
    pub fn named(name: impl Into<ServiceName>) -> Self {
        Self {
            name: name.into(),
            origin: None,
            image: None,
            build: None,
            pull_policy: PullPolicy::Missing,
            platform: None,
            runtime: None,
            wasm: None,
            container_name: None,
            scale: 1,
            command: None,
            entrypoint: None,
            environment: IndexMap::new(),
            working_dir: None,
            user: None,
            hostname: None,
            tty: false,
            stdin_open: false,
            ports: Vec::new(),
            expose: Vec::new(),
            mounts: Vec::new(),
            configs: Vec::new(),
            secrets: Vec::new(),
            networks: IndexMap::new(),
            network_mode: None,
            depends_on: IndexMap::new(),
            healthcheck: None,
            restart: Restart::No,
            stop_signal: None,
            stop_grace: None,
            labels: BTreeMap::new(),
            extra_hosts: Vec::new(),
            memory: None,
            cpus: None,
            pids: None,
            logging: None,
            attach: true,
            profiles: Vec::new(),
            document: Value::Null,
        }
    }
}

/// `build`, in long form. What only BuildKit reads stays in the service's document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Build {
    /// Absolute path, or a URL as written.
    pub context: String,
    /// Path relative to the context.
    pub dockerfile: Option<String>,
    /// The Dockerfile's text itself.
    pub dockerfile_inline: Option<String>,
    /// Build arguments; one without a value comes from the project's environment, already resolved.
    pub args: IndexMap<String, Option<String>>,
    /// Stage to stop at.
    pub target: Option<String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Platforms, as written.
    pub platforms: Vec<String>,
    /// Further tags.
    pub tags: Vec<String>,
    /// `network` of the build.
    pub network: Option<String>,
    /// `no_cache`.
    pub no_cache: bool,
    /// `pull`.
    pub pull: bool,
    /// `secrets`; the target of each is its id.
    pub secrets: Vec<FileGrant>,
}

/// `pull_policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    /// Pull, or build where there is `build`, when the image is not there.
    #[default]
    Missing,
    /// Pull each time.
    Always,
    /// Use what is there or fail.
    Never,
    /// Build each time.
    Build,
    /// Pull when older than this (`daily`, `weekly`, `every_12h`).
    Every(Duration),
}

/// How a service joins one network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attachment {
    /// Names besides the service's own.
    pub aliases: Vec<String>,
    /// Static address.
    pub ipv4: Option<IpAddr>,
    /// Static address.
    pub ipv6: Option<IpAddr>,
    /// Link-local addresses.
    pub link_local: Vec<IpAddr>,
    /// MAC address.
    pub mac: Option<String>,
    /// The highest becomes the primary network.
    pub priority: i64,
    /// Options of the network's driver.
    pub driver_opts: BTreeMap<String, String>,
}

/// `network_mode`, where it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkMode {
    /// No network at all.
    None,
    /// The host's own.
    Host,
    /// Another service's.
    Service(ServiceName),
    /// Another container's.
    Container(String),
    /// A mode of the engine, as written (`bridge`, …).
    Other(String),
}

/// What a dependent waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// The dependency was started.
    Started,
    /// All its replicas are healthy.
    Healthy,
    /// It ended with exit code 0.
    Completed,
}

impl Condition {
    /// The word compose files use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "service_started",
            Self::Healthy => "service_healthy",
            Self::Completed => "service_completed_successfully",
        }
    }
}

/// One entry of `depends_on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dependency {
    /// What is waited for.
    pub condition: Condition,
    /// Restart the dependent when the dependency is recreated or restarted by hand.
    pub restart: bool,
    /// A missing or failed dependency is an error.
    pub required: bool,
}

/// `logging`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Logging {
    /// Driver.
    pub driver: Option<String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
}

/// `x-wasm`: what compose has no word for. Everything has a default that fits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WasmOptions {
    /// Absolute path of the module, instead of `image`.
    pub module: Option<PathBuf>,
    /// `build`: the module is made on this machine.
    pub build: Option<HostBuild>,
    /// `http.ports`: where a `wasi:http` component is served; empty means the service's container ports, then 8080.
    pub http_ports: Vec<u16>,
    /// `http.reuse`: keep instances between requests.
    pub http_reuse: bool,
    /// `egress`: what it may reach outside its networks, as written.
    pub egress: Vec<String>,
    /// `env_from_links`: give `<SERVICE>_HOST` and `_PORT` of dependencies; on when absent.
    pub env_from_links: Option<bool>,
    /// `healthcheck.http`: a path or URL that must answer with 2xx or 3xx.
    pub health_http: Option<String>,
    /// `config`: what `wasi:config` answers.
    pub config: BTreeMap<String, String>,
    /// `keyvalue.redis`: where `wasi:keyvalue` keeps its values; absent means in memory.
    pub keyvalue: Option<RedisAddress>,
    /// `plug`: absolute paths of components that are joined with the module, in this order.
    pub plug: Vec<PathBuf>,
    /// `fuel`: Wasm instructions of one run, or of one request; without it as many as it likes.
    pub fuel: Option<u64>,
}

/// `x-wasm.build`: a command of this machine that makes the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostBuild {
    /// Where its command stands in the files: not every file may run something here.
    pub origin: Option<Span>,
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// Absolute path of the module it leaves.
    pub output: PathBuf,
    /// Absolute path of the folder it runs in.
    pub working_dir: PathBuf,
    /// Variables on top of the environment `wcompose` was started in.
    pub environment: BTreeMap<String, String>,
    /// Absolute paths whose changes `watch` answers with a build; empty means all of `working_dir`.
    pub watch: Vec<PathBuf>,
}

impl HostBuild {
    /// What people call it: the command, as it would be typed.
    pub fn title(&self) -> String {
        match self.command.as_slice() {
            [shell, option, line] if shell == "/bin/sh" && option == "-c" => line.clone(),
            words => words.join(" "),
        }
    }
}
