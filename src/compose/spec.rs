//! The vocabulary of a compose file in long form: which keys there are, what each takes, in the order compose prints them.
//!
//! One table serves three readers: [`super::decode`] checks and prints by it, unknown keys are told apart by it, and the
//! names in it are what "did you mean" chooses from. It knows nothing of short forms; [`super::canon`] widens those first.

/// A mapping with known keys.
#[derive(Debug)]
pub struct Record {
    /// What a reader calls it.
    pub name: &'static str,
    /// Its keys, in the order compose prints them.
    pub fields: &'static [Field],
    /// Whether `x-` keys may stand in it.
    pub extensions: bool,
}

/// A key of a [`Record`].
#[derive(Debug)]
pub struct Field {
    /// The key.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Whether it has to be there.
    pub presence: Presence,
    /// The name it is printed under, where that differs.
    pub printed: &'static str,
}

/// Whether a key has to be there, and whether it is printed when it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// May be absent; a zero value is not printed.
    Optional,
    /// Has to be there.
    Required,
    /// May be absent; its zero value is printed all the same.
    Printed,
}

/// What a key takes, and how compose prints it.
#[derive(Debug)]
pub enum Kind {
    /// A string.
    Text,
    /// A name the engine takes for a container.
    ContainerName,
    /// A string, or nothing.
    TextOrNull,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A string, number or boolean, printed as a string.
    Scalar,
    /// A string or number, printed as a string.
    Number,
    /// A string or whole number, printed as a string.
    Whole,
    /// A string or boolean, printed as a string.
    Word,
    /// As `Scalar`, or nothing, printed as null.
    Variable,
    /// As `Scalar`, or nothing, printed as an empty string.
    Label,
    /// A boolean, or a string that reads as one; false is not printed.
    Bool,
    /// As `Bool`, but false is printed.
    Flag,
    /// A boolean and no string; false is printed where the key is there.
    Strict,
    /// A whole number in a range, or a string that reads as one; 0 is not printed.
    Integer(i64, i64),
    /// As `Integer`, but 0 is printed.
    Count(i64, i64),
    /// As `Integer`, but of any size, and a fraction is cut off.
    Cut,
    /// As `Integer`, but no string.
    Numeral(i64, i64),
    /// A number, or a string that reads as one; printed in single precision.
    Float,
    /// As `Label`, but no boolean.
    Setting,
    /// A size such as `64m`, printed in bytes.
    Bytes,
    /// A size as a string only.
    BytesText,
    /// As `Bytes`, but a number must be a whole one and not below this.
    WholeBytes(i64),
    /// A duration such as `1m30s`; zero is printed.
    Duration,
    /// As `Duration`, but zero is not printed.
    Delay,
    /// A command: words, one string to be split, or nothing.
    Argv,
    /// A command of this machine: words, or one string for its shell.
    Shell,
    /// A list of `host=address`.
    Hosts,
    /// Permission bits: octal in a string, or a number.
    Mode,
    /// `soft` and `hard`, or one number for both.
    Ulimit,
    /// A number of devices or `all`.
    DeviceCount,
    /// A health check's `test`.
    Test,
    /// `ssh` of a build.
    Ssh,
    /// A value of a provider's option: a scalar or a list of them, printed as a list.
    Options,
    /// `path` and `required` of an `env_file`.
    EnvFile,
    /// A list.
    List(&'static Kind),
    /// A list whose elements differ.
    Set(&'static Kind),
    /// A mapping with free keys.
    Map(Keys, &'static Kind),
    /// A mapping with known keys.
    Record(&'static Record),
    /// A mapping with known keys, or nothing.
    Nullable(&'static Record),
    /// Whatever stands there.
    Any,
}

/// Which keys a mapping with free keys takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// Any.
    Free,
    /// `[a-zA-Z0-9._-]+`.
    Named,
    /// As `Named`; others are ignored, as in compose.
    Loose,
    /// `[a-z]+`.
    Lower,
}

const fn optional(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, presence: Presence::Optional, printed: name }
}

const fn required(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, presence: Presence::Required, printed: name }
}

const fn printed(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, presence: Presence::Printed, printed: name }
}

const fn always(name: &'static str, kind: Kind, printed: &'static str) -> Field {
    Field { name, kind, presence: Presence::Printed, printed }
}

const fn renamed(name: &'static str, kind: Kind, printed: &'static str) -> Field {
    Field { name, kind, presence: Presence::Optional, printed }
}

const fn record(name: &'static str, fields: &'static [Field]) -> Record {
    Record { name, fields, extensions: true }
}

const fn closed(name: &'static str, fields: &'static [Field]) -> Record {
    Record { name, fields, extensions: false }
}

const ANY_INT: Kind = Kind::Integer(i64::MIN, i64::MAX);
const NATURAL: Kind = Kind::Count(0, i64::MAX);
const TEXTS: Kind = Kind::List(&Kind::Text);
const DISTINCT: Kind = Kind::Set(&Kind::Text);
const LABELS: Kind = Kind::Map(Keys::Free, &Kind::Label);
const VARIABLES: Kind = Kind::Map(Keys::Free, &Kind::Variable);
const OPTIONS: Kind = Kind::Map(Keys::Free, &Kind::Number);
const ANY_NUMERAL: Kind = Kind::Numeral(i64::MIN, i64::MAX);
const ANY_BYTES: Kind = Kind::WholeBytes(i64::MIN);

/// The file itself.
pub static FILE: Record = record(
    "the compose file",
    &[
        optional("name", Kind::Text),
        optional("version", Kind::Text),
        optional("include", Kind::Any),
        optional("services", Kind::Map(Keys::Named, &Kind::Record(&SERVICE))),
        optional("networks", Kind::Map(Keys::Loose, &Kind::Nullable(&NETWORK))),
        optional("volumes", Kind::Map(Keys::Named, &Kind::Nullable(&VOLUME))),
        optional("secrets", Kind::Map(Keys::Named, &Kind::Record(&SECRET))),
        optional("configs", Kind::Map(Keys::Named, &Kind::Record(&CONFIG))),
        optional("models", Kind::Map(Keys::Loose, &Kind::Record(&MODEL))),
    ],
);

/// An entry of `include`.
pub static INCLUDE: Record = closed(
    "an include",
    &[required("path", TEXTS), optional("project_directory", Kind::TextOrNull), optional("env_file", TEXTS)],
);

/// An entry of `services`.
pub static SERVICE: Record = record(
    "a service",
    &[
        optional("profiles", DISTINCT),
        optional("annotations", LABELS),
        optional("attach", Kind::Flag),
        optional("build", Kind::Record(&BUILD)),
        optional("develop", Kind::Nullable(&DEVELOP)),
        optional("blkio_config", Kind::Record(&BLKIO)),
        optional("cap_add", DISTINCT),
        optional("cap_drop", DISTINCT),
        optional("cgroup_parent", Kind::Text),
        optional("cgroup", Kind::Choice(&["host", "private"])),
        optional("cpu_count", Kind::Integer(0, i64::MAX)),
        optional("cpu_percent", Kind::Integer(0, 100)),
        optional("cpu_period", Kind::Cut),
        optional("cpu_quota", Kind::Cut),
        optional("cpu_rt_period", Kind::Cut),
        optional("cpu_rt_runtime", Kind::Cut),
        optional("cpus", Kind::Float),
        optional("cpuset", Kind::Text),
        optional("cpu_shares", Kind::Cut),
        printed("command", Kind::Argv),
        optional("configs", Kind::List(&Kind::Record(&GRANT))),
        optional("container_name", Kind::ContainerName),
        optional("credential_spec", Kind::Record(&CREDENTIAL_SPEC)),
        optional("depends_on", Kind::Map(Keys::Named, &Kind::Record(&DEPENDENCY))),
        optional("deploy", Kind::Nullable(&DEPLOY)),
        optional("device_cgroup_rules", DISTINCT),
        optional("devices", Kind::List(&Kind::Record(&DEVICE))),
        optional("dns", DISTINCT),
        optional("dns_opt", DISTINCT),
        optional("dns_search", DISTINCT),
        optional("domainname", Kind::Text),
        printed("entrypoint", Kind::Argv),
        optional("provider", Kind::Record(&PROVIDER)),
        optional("environment", VARIABLES),
        optional("env_file", Kind::List(&Kind::EnvFile)),
        optional("expose", Kind::Set(&Kind::Whole)),
        optional("extends", Kind::Record(&EXTENDS)),
        optional("external_links", DISTINCT),
        optional("extra_hosts", Kind::Hosts),
        optional("group_add", Kind::Set(&Kind::Whole)),
        optional("gpus", Kind::List(&Kind::Record(&GPU))),
        optional("hostname", Kind::Text),
        optional("healthcheck", Kind::Record(&HEALTHCHECK)),
        optional("image", Kind::Text),
        optional("init", Kind::Flag),
        optional("ipc", Kind::Text),
        optional("isolation", Kind::Text),
        optional("labels", LABELS),
        optional("label_file", TEXTS),
        optional("links", DISTINCT),
        optional("logging", Kind::Record(&LOGGING)),
        optional("mem_limit", Kind::Bytes),
        optional("mem_reservation", ANY_BYTES),
        optional("memswap_limit", Kind::Bytes),
        optional("mem_swappiness", ANY_BYTES),
        optional("mac_address", Kind::Text),
        optional("models", Kind::Map(Keys::Loose, &Kind::Nullable(&SERVICE_MODEL))),
        optional("network_mode", Kind::Text),
        optional("networks", Kind::Map(Keys::Named, &Kind::Nullable(&ATTACHMENT))),
        optional("oom_kill_disable", Kind::Bool),
        optional("oom_score_adj", Kind::Integer(-1000, 1000)),
        optional("pid", Kind::TextOrNull),
        optional("pids_limit", Kind::Cut),
        optional("platform", Kind::Text),
        optional("ports", Kind::List(&Kind::Record(&PORT))),
        optional("privileged", Kind::Bool),
        optional("pull_policy", Kind::Text),
        renamed("pull_refresh_after", Kind::Text, ""),
        optional("read_only", Kind::Bool),
        optional("restart", Kind::Text),
        optional("runtime", Kind::Text),
        optional("scale", Kind::Count(i64::MIN, i64::MAX)),
        optional("secrets", Kind::List(&Kind::Record(&GRANT))),
        optional("security_opt", DISTINCT),
        optional("shm_size", Kind::Bytes),
        optional("stdin_open", Kind::Bool),
        optional("stop_grace_period", Kind::Duration),
        optional("stop_signal", Kind::Text),
        optional("storage_opt", LABELS),
        optional("sysctls", LABELS),
        optional("tmpfs", DISTINCT),
        optional("tty", Kind::Bool),
        optional("ulimits", Kind::Map(Keys::Lower, &Kind::Ulimit)),
        optional("use_api_socket", Kind::Strict),
        optional("user", Kind::Text),
        optional("userns_mode", Kind::Text),
        optional("uts", Kind::Text),
        optional("volumes", Kind::List(&Kind::Record(&MOUNT))),
        optional("volumes_from", DISTINCT),
        optional("working_dir", Kind::Text),
        optional("pre_start", Kind::List(&Kind::Record(&PRE_START))),
        optional("post_start", Kind::List(&Kind::Record(&HOOK))),
        optional("pre_stop", Kind::List(&Kind::Record(&HOOK))),
    ],
);

static BUILD: Record = record(
    "a build",
    &[
        optional("context", Kind::Text),
        optional("dockerfile", Kind::Text),
        optional("dockerfile_inline", Kind::Text),
        optional("entitlements", TEXTS),
        optional("args", VARIABLES),
        optional("provenance", Kind::Word),
        optional("sbom", Kind::Word),
        optional("ssh", Kind::Ssh),
        optional("labels", LABELS),
        optional("cache_from", TEXTS),
        optional("cache_to", TEXTS),
        optional("no_cache", Kind::Bool),
        optional("no_cache_filter", TEXTS),
        optional("additional_contexts", LABELS),
        optional("pull", Kind::Bool),
        optional("extra_hosts", Kind::Hosts),
        optional("isolation", Kind::Text),
        optional("network", Kind::Text),
        optional("target", Kind::Text),
        optional("secrets", Kind::List(&Kind::Record(&GRANT))),
        optional("shm_size", ANY_BYTES),
        optional("tags", TEXTS),
        optional("ulimits", Kind::Map(Keys::Lower, &Kind::Ulimit)),
        optional("platforms", TEXTS),
        optional("privileged", Kind::Bool),
    ],
);

static DEVELOP: Record = record("develop", &[optional("watch", Kind::List(&Kind::Record(&WATCH)))]);

static WATCH: Record = record(
    "a watch rule",
    &[
        required("path", Kind::Text),
        required("action", Kind::Choice(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"])),
        optional("target", Kind::Text),
        printed("exec", Kind::Record(&HOOK)),
        optional("include", DISTINCT),
        optional("ignore", DISTINCT),
        optional("initial_sync", Kind::Strict),
    ],
);

static HOOK: Record = record(
    "a hook",
    &[
        Field { name: "command", kind: Kind::Argv, presence: Presence::Required, printed: "command" },
        optional("user", Kind::Text),
        optional("privileged", Kind::Bool),
        optional("working_dir", Kind::Text),
        optional("environment", VARIABLES),
    ],
);

/// A hook that runs in a container of its own, so that it can do with the command of its image.
static PRE_START: Record = record(
    "a hook",
    &[
        printed("command", Kind::Argv),
        optional("image", Kind::Text),
        optional("user", Kind::Text),
        optional("privileged", Kind::Bool),
        optional("working_dir", Kind::Text),
        optional("environment", VARIABLES),
        optional("per_replica", Kind::Bool),
    ],
);

static BLKIO: Record = closed(
    "blkio_config",
    &[
        optional("weight", Kind::Numeral(0, 65_535)),
        optional("weight_device", Kind::List(&Kind::Record(&BLKIO_WEIGHT))),
        optional("device_read_bps", Kind::List(&Kind::Record(&BLKIO_LIMIT))),
        optional("device_read_iops", Kind::List(&Kind::Record(&BLKIO_LIMIT))),
        optional("device_write_bps", Kind::List(&Kind::Record(&BLKIO_LIMIT))),
        optional("device_write_iops", Kind::List(&Kind::Record(&BLKIO_LIMIT))),
    ],
);

static BLKIO_WEIGHT: Record = closed(
    "a weight of a device",
    &[always("path", Kind::Text, "Path"), always("weight", Kind::Numeral(0, 65_535), "Weight")],
);

static BLKIO_LIMIT: Record =
    closed("a limit of a device", &[always("path", Kind::Text, "Path"), always("rate", ANY_BYTES, "Rate")]);

static GRANT: Record = record(
    "a reference to a config or secret",
    &[
        optional("source", Kind::Text),
        optional("target", Kind::Text),
        optional("uid", Kind::Text),
        optional("gid", Kind::Text),
        optional("mode", Kind::Mode),
    ],
);

static CREDENTIAL_SPEC: Record = record(
    "credential_spec",
    &[optional("config", Kind::Text), optional("file", Kind::Text), optional("registry", Kind::Text)],
);

static DEPENDENCY: Record = record(
    "a dependency",
    &[
        required("condition", Kind::Choice(&["service_started", "service_healthy", "service_completed_successfully"])),
        optional("restart", Kind::Bool),
        optional("required", Kind::Strict),
    ],
);

static DEPLOY: Record = record(
    "deploy",
    &[
        optional("mode", Kind::Text),
        optional("replicas", Kind::Count(i64::MIN, i64::MAX)),
        optional("labels", LABELS),
        optional("update_config", Kind::Record(&UPDATE)),
        optional("rollback_config", Kind::Record(&UPDATE)),
        printed("resources", Kind::Record(&RESOURCES)),
        optional("restart_policy", Kind::Record(&RESTART_POLICY)),
        printed("placement", Kind::Record(&PLACEMENT)),
        optional("endpoint_mode", Kind::Text),
    ],
);

static UPDATE: Record = record(
    "an update policy",
    &[
        optional("parallelism", NATURAL),
        optional("delay", Kind::Delay),
        optional("failure_action", Kind::Text),
        optional("monitor", Kind::Delay),
        optional("max_failure_ratio", Kind::Float),
        optional("order", Kind::Choice(&["start-first", "stop-first"])),
    ],
);

static RESOURCES: Record = record(
    "resources",
    &[optional("limits", Kind::Record(&LIMITS)), optional("reservations", Kind::Record(&RESERVATIONS))],
);

static LIMITS: Record =
    record("limits", &[optional("cpus", Kind::Float), optional("memory", Kind::BytesText), optional("pids", ANY_INT)]);

static RESERVATIONS: Record = record(
    "reservations",
    &[
        optional("cpus", Kind::Float),
        optional("memory", Kind::BytesText),
        optional("devices", Kind::List(&Kind::Record(&DEVICE_REQUEST))),
        optional("generic_resources", Kind::List(&Kind::Record(&GENERIC_RESOURCE))),
    ],
);

static DEVICE_REQUEST: Record = record(
    "a device reservation",
    &[
        required("capabilities", DISTINCT),
        optional("driver", Kind::Text),
        optional("count", Kind::DeviceCount),
        optional("device_ids", DISTINCT),
        optional("options", LABELS),
    ],
);

static GPU: Record = record(
    "an entry of gpus",
    &[
        optional("capabilities", DISTINCT),
        optional("driver", Kind::Text),
        optional("count", Kind::DeviceCount),
        optional("device_ids", DISTINCT),
        optional("options", LABELS),
    ],
);

static GENERIC_RESOURCE: Record =
    record("a generic resource", &[optional("discrete_resource_spec", Kind::Record(&DISCRETE_RESOURCE))]);

static DISCRETE_RESOURCE: Record =
    record("a discrete resource", &[printed("kind", Kind::Text), printed("value", Kind::Count(i64::MIN, i64::MAX))]);

static RESTART_POLICY: Record = record(
    "restart_policy",
    &[
        optional("condition", Kind::Text),
        optional("delay", Kind::Duration),
        optional("max_attempts", NATURAL),
        optional("window", Kind::Duration),
    ],
);

static PLACEMENT: Record = record(
    "placement",
    &[
        optional("constraints", TEXTS),
        optional("preferences", Kind::List(&Kind::Record(&PREFERENCE))),
        optional("max_replicas_per_node", Kind::Integer(0, i64::MAX)),
    ],
);

static PREFERENCE: Record = record("a placement preference", &[optional("spread", Kind::Text)]);

static DEVICE: Record = record(
    "a device",
    &[required("source", Kind::Text), optional("target", Kind::Text), optional("permissions", Kind::Text)],
);

/// An entry of `env_file`.
pub static ENV_FILE: Record = closed(
    "an env_file",
    &[required("path", Kind::Text), optional("required", Kind::Flag), optional("format", Kind::Text)],
);

static PROVIDER: Record =
    record("a provider", &[required("type", Kind::Text), optional("options", Kind::Map(Keys::Free, &Kind::Options))]);

static EXTENDS: Record = closed("extends", &[optional("file", Kind::TextOrNull), required("service", Kind::Text)]);

static HEALTHCHECK: Record = record(
    "a healthcheck",
    &[
        optional("test", Kind::Test),
        optional("timeout", Kind::Duration),
        optional("interval", Kind::Duration),
        optional("retries", NATURAL),
        optional("start_period", Kind::Duration),
        optional("start_interval", Kind::Duration),
        optional("disable", Kind::Bool),
    ],
);

static LOGGING: Record =
    record("logging", &[optional("driver", Kind::Text), optional("options", Kind::Map(Keys::Free, &Kind::Setting))]);

static SERVICE_MODEL: Record =
    record("a use of a model", &[optional("endpoint_var", Kind::Text), optional("model_var", Kind::Text)]);

static ATTACHMENT: Record = record(
    "a use of a network",
    &[
        optional("aliases", DISTINCT),
        optional("driver_opts", OPTIONS),
        optional("gw_priority", ANY_NUMERAL),
        optional("interface_name", Kind::Text),
        optional("ipv4_address", Kind::Text),
        optional("ipv6_address", Kind::Text),
        optional("link_local_ips", DISTINCT),
        optional("mac_address", Kind::Text),
        optional("priority", ANY_NUMERAL),
    ],
);

static PORT: Record = record(
    "a port",
    &[
        optional("name", Kind::Text),
        optional("mode", Kind::Text),
        optional("host_ip", Kind::Text),
        required("target", Kind::Integer(0, 65_535)),
        optional("published", Kind::Whole),
        optional("protocol", Kind::Text),
        optional("app_protocol", Kind::Text),
    ],
);

static MOUNT: Record = record(
    "a volume mount",
    &[
        required("type", Kind::Choice(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"])),
        optional("source", Kind::Text),
        optional("target", Kind::Text),
        optional("read_only", Kind::Bool),
        optional("consistency", Kind::Text),
        optional("bind", Kind::Record(&MOUNT_BIND)),
        optional("volume", Kind::Record(&MOUNT_VOLUME)),
        optional("tmpfs", Kind::Record(&MOUNT_TMPFS)),
        optional("image", Kind::Record(&MOUNT_IMAGE)),
    ],
);

static MOUNT_BIND: Record = record(
    "bind options",
    &[
        optional("selinux", Kind::Choice(&["z", "Z"])),
        optional("propagation", Kind::Text),
        optional("create_host_path", Kind::Bool),
        optional("recursive", Kind::Choice(&["enabled", "disabled", "writable", "readonly"])),
    ],
);

static MOUNT_VOLUME: Record = record(
    "volume options",
    &[optional("labels", LABELS), optional("nocopy", Kind::Bool), optional("subpath", Kind::Text)],
);

static MOUNT_TMPFS: Record = record(
    "tmpfs options",
    &[optional("size", Kind::WholeBytes(0)), optional("mode", Kind::Numeral(0, u32::MAX as i64))],
);

static MOUNT_IMAGE: Record = record("image options", &[optional("subpath", Kind::Text)]);

/// An entry of `networks`.
pub static NETWORK: Record = record(
    "a network",
    &[
        optional("name", Kind::Text),
        optional("driver", Kind::Text),
        optional("driver_opts", OPTIONS),
        printed("ipam", Kind::Record(&IPAM)),
        optional("external", Kind::Bool),
        optional("internal", Kind::Bool),
        optional("attachable", Kind::Bool),
        optional("labels", LABELS),
        optional("enable_ipv4", Kind::Flag),
        optional("enable_ipv6", Kind::Flag),
    ],
);

static IPAM: Record = record(
    "ipam",
    &[
        optional("driver", Kind::Text),
        optional("config", Kind::List(&Kind::Record(&IPAM_POOL))),
        renamed("options", Kind::Map(Keys::Free, &Kind::Text), ""),
    ],
);

static IPAM_POOL: Record = record(
    "an address pool",
    &[
        optional("subnet", Kind::Text),
        optional("gateway", Kind::Text),
        optional("ip_range", Kind::Text),
        optional("aux_addresses", Kind::Map(Keys::Free, &Kind::Text)),
    ],
);

/// An entry of `volumes`.
pub static VOLUME: Record = record(
    "a volume",
    &[
        optional("name", Kind::Text),
        optional("driver", Kind::Text),
        optional("driver_opts", OPTIONS),
        optional("external", Kind::Bool),
        optional("labels", LABELS),
    ],
);

/// An entry of `secrets`.
pub static SECRET: Record = record(
    "a secret",
    &[
        optional("name", Kind::Text),
        optional("file", Kind::Text),
        optional("environment", Kind::Text),
        optional("external", Kind::Bool),
        optional("labels", LABELS),
        optional("driver", Kind::Text),
        optional("driver_opts", Kind::Map(Keys::Free, &Kind::Whole)),
        optional("template_driver", Kind::Text),
    ],
);

/// An entry of `configs`.
pub static CONFIG: Record = record(
    "a config",
    &[
        optional("name", Kind::Text),
        optional("file", Kind::Text),
        optional("environment", Kind::Text),
        optional("content", Kind::Text),
        optional("external", Kind::Bool),
        optional("labels", LABELS),
        optional("template_driver", Kind::Text),
    ],
);

/// An entry of `models`.
pub static MODEL: Record = record(
    "a model",
    &[
        optional("name", Kind::Text),
        required("model", Kind::Text),
        optional("context_size", ANY_NUMERAL),
        optional("runtime_flags", TEXTS),
    ],
);

/// `x-wasm` of a service.
pub static WASM: Record = closed(
    "x-wasm",
    &[
        optional("module", Kind::Text),
        optional("build", Kind::Record(&WASM_BUILD)),
        optional("http", Kind::Record(&WASM_HTTP)),
        optional("egress", TEXTS),
        optional("env_from_links", Kind::Flag),
        optional("healthcheck", Kind::Record(&WASM_HEALTHCHECK)),
        optional("config", Kind::Map(Keys::Free, &Kind::Scalar)),
        optional("keyvalue", Kind::Record(&WASM_KEYVALUE)),
        optional("plug", TEXTS),
        optional("fuel", Kind::Integer(1, i64::MAX)),
    ],
);

static WASM_BUILD: Record = closed(
    "x-wasm.build",
    &[
        required("command", Kind::Shell),
        optional("output", Kind::Text),
        optional("working_dir", Kind::Text),
        optional("environment", Kind::Map(Keys::Free, &Kind::Scalar)),
        optional("watch", TEXTS),
    ],
);

static WASM_HTTP: Record =
    closed("x-wasm.http", &[optional("ports", Kind::List(&Kind::Integer(1, 65_535))), optional("reuse", Kind::Flag)]);

static WASM_KEYVALUE: Record = closed("x-wasm.keyvalue", &[optional("redis", Kind::Text)]);

static WASM_HEALTHCHECK: Record = closed("x-wasm.healthcheck", &[optional("http", Kind::Text)]);
