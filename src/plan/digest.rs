//! Config hashes: equal to `docker compose`'s byte for byte, so that each tool sees the other's objects as its own.
//!
//! The hash is SHA-256 over the element as Go's `encoding/json` writes the loaded structure: struct keys in declared
//! order, map keys sorted, `<`, `>` and `&` escaped. Left out, because a change there must not recreate a container:
//! `build`, `pull_policy`, `scale`, `deploy.replicas`, `depends_on`, `profiles`, and every `x-` key. What only wcompose
//! knows of a Wasm service has a hash of its own, [`wasm_hash`].

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::model::ImageConfig;

/// The order of keys in one of compose's structures.
struct Order {
    keys: &'static [&'static str],
    /// The structure under a key; what is not listed is a map with sorted keys, or a list of such.
    inner: &'static [(&'static str, Inner)],
}

/// What stands under a key.
enum Inner {
    /// A structure, or a list of them.
    One(&'static Order),
    /// A map from free keys to a structure.
    Each(&'static Order),
}

static SERVICE: Order = Order {
    keys: &[
        "annotations",
        "attach",
        "develop",
        "blkio_config",
        "cap_add",
        "cap_drop",
        "cgroup_parent",
        "cgroup",
        "cpu_count",
        "cpu_percent",
        "cpu_period",
        "cpu_quota",
        "cpu_rt_period",
        "cpu_rt_runtime",
        "cpus",
        "cpuset",
        "cpu_shares",
        "command",
        "configs",
        "container_name",
        "credential_spec",
        "deploy",
        "device_cgroup_rules",
        "devices",
        "dns",
        "dns_opt",
        "dns_search",
        "dockerfile",
        "domainname",
        "entrypoint",
        "provider",
        "environment",
        "env_file",
        "expose",
        "extends",
        "external_links",
        "extra_hosts",
        "group_add",
        "gpus",
        "hostname",
        "healthcheck",
        "image",
        "init",
        "ipc",
        "isolation",
        "labels",
        "label_file",
        "links",
        "logging",
        "log_driver",
        "log_opt",
        "mem_limit",
        "mem_reservation",
        "memswap_limit",
        "mem_swappiness",
        "mac_address",
        "models",
        "net",
        "network_mode",
        "networks",
        "oom_kill_disable",
        "oom_score_adj",
        "pid",
        "pids_limit",
        "platform",
        "ports",
        "privileged",
        "read_only",
        "restart",
        "runtime",
        "secrets",
        "security_opt",
        "shm_size",
        "stdin_open",
        "stop_grace_period",
        "stop_signal",
        "storage_opt",
        "sysctls",
        "tmpfs",
        "tty",
        "ulimits",
        "use_api_socket",
        "user",
        "userns_mode",
        "uts",
        "volume_driver",
        "volumes",
        "volumes_from",
        "working_dir",
        "pre_start",
        "post_start",
        "pre_stop",
    ],
    inner: &[
        ("blkio_config", Inner::One(&BLKIO)),
        ("configs", Inner::One(&GRANT)),
        ("credential_spec", Inner::One(&CREDENTIAL_SPEC)),
        ("deploy", Inner::One(&DEPLOY)),
        ("develop", Inner::One(&DEVELOP)),
        ("devices", Inner::One(&DEVICE)),
        ("gpus", Inner::One(&DEVICE_REQUEST)),
        ("healthcheck", Inner::One(&HEALTHCHECK)),
        ("logging", Inner::One(&LOGGING)),
        ("models", Inner::Each(&MODEL)),
        ("networks", Inner::Each(&ATTACHMENT)),
        ("ports", Inner::One(&PORT)),
        ("pre_start", Inner::One(&HOOK)),
        ("post_start", Inner::One(&HOOK)),
        ("pre_stop", Inner::One(&HOOK)),
        ("provider", Inner::One(&PROVIDER)),
        ("secrets", Inner::One(&GRANT)),
        ("ulimits", Inner::Each(&ULIMIT)),
        ("volumes", Inner::One(&MOUNT)),
    ],
};

static BLKIO: Order = Order {
    keys: &["weight", "weight_device", "device_read_bps", "device_read_iops", "device_write_bps", "device_write_iops"],
    inner: &[
        ("weight_device", Inner::One(&BLKIO_DEVICE)),
        ("device_read_bps", Inner::One(&BLKIO_DEVICE)),
        ("device_read_iops", Inner::One(&BLKIO_DEVICE)),
        ("device_write_bps", Inner::One(&BLKIO_DEVICE)),
        ("device_write_iops", Inner::One(&BLKIO_DEVICE)),
    ],
};
static BLKIO_DEVICE: Order = flat(&["Path", "Weight", "Rate"]);
static GRANT: Order = flat(&["source", "target", "uid", "gid", "mode"]);
static CREDENTIAL_SPEC: Order = flat(&["config", "file", "registry"]);
static DEPLOY: Order = Order {
    keys: &[
        "mode",
        "labels",
        "update_config",
        "rollback_config",
        "resources",
        "restart_policy",
        "placement",
        "endpoint_mode",
    ],
    inner: &[
        ("update_config", Inner::One(&UPDATE)),
        ("rollback_config", Inner::One(&UPDATE)),
        ("resources", Inner::One(&RESOURCES)),
        ("restart_policy", Inner::One(&RESTART_POLICY)),
        ("placement", Inner::One(&PLACEMENT)),
    ],
};
static UPDATE: Order = flat(&["parallelism", "delay", "failure_action", "monitor", "max_failure_ratio", "order"]);
static RESOURCES: Order = Order {
    keys: &["limits", "reservations"],
    inner: &[("limits", Inner::One(&RESOURCE)), ("reservations", Inner::One(&RESOURCE))],
};
static RESOURCE: Order = Order {
    keys: &["cpus", "memory", "pids", "devices", "generic_resources"],
    inner: &[("devices", Inner::One(&DEVICE_REQUEST)), ("generic_resources", Inner::One(&GENERIC_RESOURCE))],
};
static GENERIC_RESOURCE: Order =
    Order { keys: &["discrete_resource_spec"], inner: &[("discrete_resource_spec", Inner::One(&DISCRETE_RESOURCE))] };
static DISCRETE_RESOURCE: Order = flat(&["kind", "value"]);
static RESTART_POLICY: Order = flat(&["condition", "delay", "max_attempts", "window"]);
static PLACEMENT: Order = Order {
    keys: &["constraints", "preferences", "max_replicas_per_node"],
    inner: &[("preferences", Inner::One(&PREFERENCE))],
};
static PREFERENCE: Order = flat(&["spread"]);
static DEVELOP: Order = Order { keys: &["watch"], inner: &[("watch", Inner::One(&WATCH))] };
static WATCH: Order = Order {
    keys: &["path", "action", "target", "exec", "include", "ignore", "initial_sync"],
    inner: &[("exec", Inner::One(&HOOK))],
};
static HOOK: Order = flat(&["command", "image", "user", "privileged", "working_dir", "environment", "per_replica"]);
static DEVICE: Order = flat(&["source", "target", "permissions"]);
static DEVICE_REQUEST: Order = flat(&["capabilities", "driver", "count", "device_ids", "options"]);
static HEALTHCHECK: Order =
    flat(&["test", "timeout", "interval", "retries", "start_period", "start_interval", "disable"]);
static LOGGING: Order = flat(&["driver", "options"]);
static MODEL: Order = flat(&["endpoint_var", "model_var"]);
static ATTACHMENT: Order = flat(&[
    "aliases",
    "driver_opts",
    "gw_priority",
    "interface_name",
    "ipv4_address",
    "ipv6_address",
    "link_local_ips",
    "mac_address",
    "priority",
]);
static PORT: Order = flat(&["name", "mode", "host_ip", "target", "published", "protocol", "app_protocol"]);
static PROVIDER: Order = flat(&["type", "options"]);
static ULIMIT: Order = flat(&["single", "soft", "hard"]);
static MOUNT: Order = Order {
    keys: &["type", "source", "target", "read_only", "consistency", "bind", "volume", "tmpfs", "image"],
    inner: &[
        ("bind", Inner::One(&MOUNT_BIND)),
        ("volume", Inner::One(&MOUNT_VOLUME)),
        ("tmpfs", Inner::One(&MOUNT_TMPFS)),
        ("image", Inner::One(&MOUNT_IMAGE)),
    ],
};
static MOUNT_BIND: Order = flat(&["selinux", "propagation", "create_host_path", "recursive"]);
static MOUNT_VOLUME: Order = flat(&["labels", "nocopy", "subpath"]);
static MOUNT_TMPFS: Order = flat(&["size", "mode"]);
static MOUNT_IMAGE: Order = flat(&["subpath"]);
static NETWORK: Order = Order {
    keys: &[
        "name",
        "driver",
        "driver_opts",
        "ipam",
        "external",
        "internal",
        "attachable",
        "labels",
        "enable_ipv4",
        "enable_ipv6",
    ],
    inner: &[("ipam", Inner::One(&IPAM))],
};
static IPAM: Order = Order { keys: &["driver", "config"], inner: &[("config", Inner::One(&IPAM_POOL))] };
static IPAM_POOL: Order = flat(&["subnet", "gateway", "ip_range", "aux_addresses"]);
static VOLUME: Order = flat(&["name", "driver", "driver_opts", "external", "labels"]);

const fn flat(keys: &'static [&'static str]) -> Order {
    Order { keys, inner: &[] }
}

/// The config hash of a service, from its element of the canonical document.
pub fn service_hash(service: &Value) -> String {
    let mut service = service.clone();
    if let Some(map) = service.as_object_mut() {
        for key in ["command", "entrypoint"] {
            map.entry(key).or_insert(Value::Null);
        }
    }
    hash(&service, &SERVICE)
}

/// The config hash of a network, from its element of the canonical document.
pub fn network_hash(network: &Value) -> String {
    let mut network = network.clone();
    if let Some(map) = network.as_object_mut() {
        map.entry("ipam").or_insert_with(|| Value::Object(Map::new()));
    }
    hash(&network, &NETWORK)
}

/// The config hash of a volume, from its element of the canonical document.
pub fn volume_hash(volume: &Value) -> String {
    let mut volume = volume.clone();
    if let Some(map) = volume.as_object_mut()
        && map.get("driver").and_then(Value::as_str).is_none_or(str::is_empty)
    {
        map.insert("driver".into(), "local".into());
    }
    hash(&volume, &VOLUME)
}

/// `dev.wcompose.hash`: what compose's hash of a Wasm service leaves out, its module and its `x-wasm`.
pub fn wasm_hash(module_digest: &str, x_wasm: &Value) -> String {
    let mut text = String::new();
    write_string(module_digest, &mut text);
    write(x_wasm, None, &mut text);
    hex(&text)
}

/// What an image says of itself, as part of what a Wasm instance is made from.
pub fn image_config(config: &ImageConfig) -> Value {
    json!({
        "entrypoint": config.entrypoint,
        "command": config.command,
        "environment": config.environment,
        "working_dir": config.working_dir,
        "exposed": config.exposed.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "volumes": config.volumes,
        "stop_signal": config.stop_signal,
        "healthcheck": config.healthcheck.as_ref().map(|check| format!("{check:?}")),
    })
}

fn hash(element: &Value, order: &'static Order) -> String {
    let mut text = String::new();
    write(element, Some(&Inner::One(order)), &mut text);
    hex(&text)
}

fn hex(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write(value: &Value, shape: Option<&Inner>, text: &mut String) {
    match (value, shape) {
        (Value::String(string), _) => write_string(string, text),
        (Value::Array(list), _) => {
            text.push('[');
            for (index, value) in list.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(value, shape, text);
            }
            text.push(']');
        }
        (Value::Object(map), Some(Inner::One(order))) => {
            let keys = order.keys.iter().filter_map(|key| Some((*key, map.get(*key)?)));
            let inner = |key: &str| order.inner.iter().find(|(name, _)| *name == key).map(|(_, inner)| inner);
            write_map(keys.map(|(key, value)| (key, value, inner(key))), text);
        }
        (Value::Object(map), shape) => {
            let inner = match shape {
                Some(Inner::Each(order)) => Some(Inner::One(order)),
                _ => None,
            };
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(b.0));
            write_map(entries.into_iter().map(|(key, value)| (key.as_str(), value, inner.as_ref())), text);
        }
        (Value::Null | Value::Bool(_) | Value::Number(_), _) => text.push_str(&value.to_string()),
    }
}

fn write_map<'v>(entries: impl Iterator<Item = (&'v str, &'v Value, Option<&'v Inner>)>, text: &mut String) {
    text.push('{');
    for (index, (key, value, shape)) in entries.enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_string(key, text);
        text.push(':');
        write(value, shape, text);
    }
    text.push('}');
}

/// A string as Go's `encoding/json` writes it.
fn write_string(string: &str, text: &mut String) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c if u32::from(c) < 0x20 => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        serde_json::from_str(text).expect("valid JSON")
    }

    /// Observed with docker compose 2.40.3.
    #[test]
    fn hashes_equal_those_of_compose() {
        assert_eq!(
            network_hash(&json(r#"{"name":"wcs2p3_default","ipam":{}}"#)),
            "0b3b94f092d679889409e9439b56b6be4964a3ed65462af622d92975d1fd21c9"
        );
        assert_eq!(
            volume_hash(&json(r#"{"name":"wcs2p3_dbdata"}"#)),
            "caa279483d514f55982ab39f7a2b1e6fe2d3b1e0fd1bf3875164fa1d0812851b"
        );
        let services = [
            (
                r#"{"scale":2,"networks":{"default":null},"labels":{"team":"red"},"image":"wcs2bb:1","depends_on":{"api":{}},
                    "command":null,"entrypoint":null,"stop_grace_period":"1s","x-wasm":{},"profiles":["a"],
                    "deploy":{"replicas":2,"resources":{},"placement":{}}}"#,
                "5b68f028e6b060ee05cd33baaaa9ff713affa2de5c018e93890d8c86b031792c",
            ),
            (
                r#"{"image":"wcs2bb:1","command":["/bin/busybox","sh","-c","echo db up; exec /bin/busybox sleep 3600"],
                    "healthcheck":{"test":["CMD","/bin/busybox","true"],"interval":"1s","timeout":"1s","retries":3},
                    "networks":{"default":null},"stop_grace_period":"2s",
                    "volumes":[{"type":"volume","source":"dbdata","target":"/data","volume":{}},
                               {"type":"volume","target":"/anon","volume":{}}]}"#,
                "c687fbd93e48a63af5a814c29217b2ac808d1c441a703215d2290ef47b9e112c",
            ),
            (
                r#"{"build":{"context":"/x"},"environment":{"A":"1"},"networks":{"default":{},"back":{"aliases":["apialias"]}},
                    "command":["/bin/busybox","sh","-c","echo api up; while true; do echo tick; /bin/busybox sleep 1; done"],
                    "ports":[{"mode":"ingress","target":80,"published":"18080","protocol":"tcp"},
                             {"mode":"ingress","host_ip":"127.0.0.1","target":81,"protocol":"tcp"},
                             {"mode":"ingress","target":53,"published":"5353","protocol":"udp"}],"stop_grace_period":"1s"}"#,
                "2ffa34dc877aab7c91290fa3898fe9455b73b6c9d5d2c772acff5dd429586e35",
            ),
        ];
        for (service, hash) in services {
            assert_eq!(service_hash(&json(service)), hash, "{service}");
        }
    }

    #[test]
    fn hooks_are_written_in_the_order_of_compose() {
        let service = r#"{"pre_stop":[{"command":["c"]}],"pre_start":[{"per_replica":true,"user":"u","image":"i","command":null}],
            "working_dir":"/w","post_start":[{"user":"u","command":["b"]}]}"#;
        let mut text = String::new();
        write(&json(service), Some(&Inner::One(&SERVICE)), &mut text);
        assert_eq!(
            text,
            r#"{"working_dir":"/w","pre_start":[{"command":null,"image":"i","user":"u","per_replica":true}],"post_start":[{"command":["b"],"user":"u"}],"pre_stop":[{"command":["c"]}]}"#
        );
    }

    #[test]
    fn text_is_escaped_as_in_go() {
        let mut text = String::new();
        write(&json(r#"{"b":"<a & b>\u0001\n","a":[1,0.5,null]}"#), None, &mut text);
        assert_eq!(text, r#"{"a":[1,0.5,null],"b":"\u003ca \u0026 b\u003e\u0001\n"}"#);
    }

    #[test]
    fn the_wasm_hash_sees_module_and_options() {
        let plain = wasm_hash("sha256:1", &Value::Null);
        assert_ne!(plain, wasm_hash("sha256:2", &Value::Null));
        assert_ne!(plain, wasm_hash("sha256:1", &json(r#"{"egress":["*"]}"#)));
    }
}
