//! The documents of the OCI image specification, and of what else registries hold Wasm in: indexes, manifests,
//! configurations. Pure: bytes in, data out.

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::kind::is_wasm_platform;
use crate::model::{ExposedPort, HealthTest, Healthcheck, ImageConfig};

/// An image's manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An image's configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A layer that is not packed.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// The configuration of a Wasm artifact (CNCF's "Wasm OCI artifact layout").
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// A module or component as it is.
pub const WASM: &str = "application/wasm";
/// The configuration of a Spin application.
pub const SPIN_CONFIG: &str = "application/vnd.fermyon.spin.application.v1+config";

const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// An index or a manifest; what the other has is empty.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// What it is, where it says so.
    pub media_type: Option<String>,
    /// What kind of artifact it is, where it is one.
    pub artifact_type: Option<String>,
    /// A manifest's configuration.
    pub config: Option<Descriptor>,
    /// A manifest's layers, lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// An index's manifests.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
}

/// A part, by digest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Which.
    pub digest: String,
    /// How many bytes.
    #[serde(default)]
    pub size: u64,
    /// What it is for.
    pub platform: Option<Platform>,
    /// Whatever else is said of it.
    #[serde(default)]
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// A platform in an index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// `wasi`, `linux`, …
    #[serde(default)]
    pub os: String,
    /// `wasm`, `amd64`, …
    #[serde(default)]
    pub architecture: String,
}

impl Document {
    /// Reads an index or a manifest; what is wrong with it otherwise.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    /// How a manifest holds a module.
    pub fn form(&self) -> Form<'_> {
        let config = self.config.as_ref().map(|config| config.media_type.as_str());
        if config == Some(SPIN_CONFIG) {
            return Form::Spin;
        }
        if let Some(layer) = self.layers.iter().find(|layer| is_wasm(&layer.media_type)) {
            return Form::Module(layer);
        }
        match (config, self.layers.as_slice()) {
            (Some(CONFIG | DOCKER_CONFIG), _) => Form::Files,
            // An artifact of Wasm whose one layer is called an image's; what it is, its first bytes say.
            (Some(config), [only, ..]) if config.starts_with("application/vnd.wasm.config.") => Form::Module(only),
            _ => Form::Other,
        }
    }
}

impl Descriptor {
    /// The digits of a SHA-256 digest; nothing for anything else, so that it can name a file.
    pub fn hex(&self) -> Option<&str> {
        hex(&self.digest)
    }
}

/// How a manifest holds a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form<'d> {
    /// Layers of files, the module among them.
    Files,
    /// The module itself.
    Module(&'d Descriptor),
    /// A Spin application.
    Spin,
    /// Something else.
    Other,
}

/// What an index has for Wasm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice<'d> {
    /// This one.
    One(&'d Descriptor),
    /// Nothing; these platforms it has.
    None(Vec<String>),
}

/// Which manifest of an index: the platform that is asked for, else `wasi`, `wasip1`, `wasip2`, else any of Wasm, else the
/// one that says nothing of a platform, or that stands alone: what is built without a platform of Wasm carries another.
pub fn choose<'d>(manifests: &'d [Descriptor], platform: Option<&str>) -> Choice<'d> {
    let written = |entry: &Descriptor| {
        entry.platform.as_ref().map(|platform| format!("{}/{}", platform.os, platform.architecture))
    };
    // Attestations stand beside images as images of no platform.
    let images: Vec<_> = manifests
        .iter()
        .filter(|entry| written(entry).as_deref() != Some("unknown/unknown"))
        .filter(|entry| !entry.annotations.contains_key("vnd.docker.reference.type"))
        .collect();
    let wasm: Vec<_> =
        images.iter().copied().filter(|entry| written(entry).is_some_and(|name| is_wasm_platform(&name))).collect();
    let asked = platform.into_iter();
    let named = asked.chain(["wasi/wasm", "wasm/wasi", "wasi/wasm32", "wasm32/wasi", "wasip1/wasm", "wasip2/wasm"]);
    let exact =
        named.filter_map(|name| wasm.iter().copied().find(|entry| written(entry).as_deref() == Some(name))).next();
    let silent = || images.iter().copied().find(|entry| entry.platform.is_none());
    let alone = || if let [only] = images.as_slice() { Some(*only) } else { None };
    match exact.or_else(|| wasm.first().copied()).or_else(silent).or_else(alone) {
        Some(found) => Choice::One(found),
        None => Choice::None(images.iter().filter_map(|entry| written(entry)).collect()),
    }
}

/// `sha256:…` of some bytes.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// The digits of a SHA-256 digest; nothing for anything else, so that it can name a file.
pub fn hex(digest: &str) -> Option<&str> {
    let digits = digest.strip_prefix("sha256:")?;
    let fits = digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    fits.then_some(digits)
}

/// Whether a layer is a module as it is. Every tool had a word of its own; all end alike.
fn is_wasm(media_type: &str) -> bool {
    media_type == WASM || media_type.ends_with("+wasm")
}

/// An image's configuration, or that of a Wasm artifact, whose `os` is `wasip1` or `wasip2`.
pub fn image_config(bytes: &[u8]) -> Result<ImageConfig, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let word = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("unknown");
    let config = value.get("config").unwrap_or(&Value::Null);
    let text = |key: &str| config.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let keys = |key: &str| {
        let mut keys: Vec<String> =
            config.get(key).and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key.clone()).collect();
        keys.sort();
        keys
    };
    let exposed = keys("ExposedPorts");
    Ok(ImageConfig {
        platform: format!("{}/{}", word("os"), word("architecture")),
        entrypoint: words(config, "Entrypoint"),
        command: words(config, "Cmd"),
        environment: words(config, "Env")
            .into_iter()
            .map(|entry| match entry.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => (entry, String::new()),
            })
            .collect(),
        working_dir: text("WorkingDir"),
        exposed: exposed.iter().filter_map(|text| ExposedPort::read(text)).collect(),
        volumes: keys("Volumes"),
        stop_signal: text("StopSignal"),
        healthcheck: config.get("Healthcheck").and_then(health_check),
        ..ImageConfig::default()
    })
}

fn words(value: &Value, key: &str) -> Vec<String> {
    let list = value.get(key).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn health_check(value: &Value) -> Option<Healthcheck> {
    // Zero means "not set".
    let number = |key: &str| value.get(key).and_then(Value::as_u64).filter(|number| *number > 0);
    let time = |key: &str| number(key).map(std::time::Duration::from_nanos);
    Some(Healthcheck {
        test: Some(HealthTest::read(&words(value, "Test"))?),
        interval: time("Interval"),
        timeout: time("Timeout"),
        retries: number("Retries").and_then(|retries| u32::try_from(retries).ok()),
        start_period: time("StartPeriod"),
        start_interval: time("StartInterval"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(platform: &str) -> Descriptor {
        let (os, architecture) = platform.split_once('/').unwrap_or_default();
        let platform = Platform { os: os.into(), architecture: architecture.into() };
        Descriptor {
            media_type: MANIFEST.into(),
            digest: sha256(os.as_bytes()),
            size: 1,
            platform: (!os.is_empty()).then_some(platform),
            annotations: std::collections::BTreeMap::new(),
        }
    }

    fn chosen(platforms: &[&str], asked: Option<&str>) -> Result<usize, Vec<String>> {
        let entries: Vec<_> = platforms.iter().map(|platform| entry(platform)).collect();
        match choose(&entries, asked) {
            Choice::One(one) => {
                Ok(entries.iter().position(|entry| std::ptr::eq(entry, one)).expect("it is one of them"))
            }
            Choice::None(platforms) => Err(platforms),
        }
    }

    #[test]
    fn an_index_gives_its_wasm() {
        assert_eq!(chosen(&["linux/amd64", "wasip2/wasm", "wasi/wasm"], None), Ok(2));
        assert_eq!(chosen(&["linux/amd64", "wasip2/wasm", "wasip1/wasm"], None), Ok(2));
        assert_eq!(chosen(&["wasi/wasm", "wasip2/wasm"], Some("wasip2/wasm")), Ok(1));
        assert_eq!(chosen(&["linux/amd64", "wasm32/wasi"], Some("linux/amd64")), Ok(1), "Linux is never Wasm");
        assert_eq!(chosen(&["linux/amd64", ""], None), Ok(1));
        assert_eq!(chosen(&["linux/amd64", "unknown/unknown"], None), Ok(0), "an attestation is no image");
        assert_eq!(
            chosen(&["linux/amd64", "linux/arm64"], None),
            Err(vec!["linux/amd64".into(), "linux/arm64".into()])
        );
    }

    #[test]
    fn a_manifest_says_how_it_holds_a_module() {
        let manifest = |config: &str, layers: &[&str]| Document {
            media_type: None,
            artifact_type: None,
            config: Some(Descriptor { media_type: config.into(), ..entry("") }),
            layers: layers.iter().map(|kind| Descriptor { media_type: (*kind).into(), ..entry("") }).collect(),
            manifests: Vec::new(),
        };
        let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
        let (modules, component) = (
            "application/vnd.wasm.content.layer.v1+wasm",
            "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
        );
        assert_eq!(manifest(CONFIG, &[tar]).form(), Form::Files);
        assert_eq!(manifest(DOCKER_CONFIG, &[tar]).form(), Form::Files);
        assert_eq!(manifest(SPIN_CONFIG, &[modules]).form(), Form::Spin);
        assert_eq!(manifest("application/vnd.acme.rocket", &[tar]).form(), Form::Other);
        for (config, layers) in [
            (WASM_CONFIG, [WASM]),
            ("application/vnd.wasm.config.v1+json", [modules]),
            (CONFIG, [component]),
            (WASM_CONFIG, ["application/vnd.oci.image.layer.v1.tar"]),
        ] {
            let manifest = manifest(config, &layers);
            assert_eq!(manifest.form(), Form::Module(&manifest.layers[0]), "{config} {layers:?}");
        }
    }

    #[test]
    fn a_configuration_is_read() {
        let config = image_config(
            br#"{"architecture": "wasm", "os": "wasi", "config": {
                "Entrypoint": ["/app.wasm"], "Env": ["A=1=2", "B"], "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
                "Healthcheck": {"Test": ["CMD", "x"], "Interval": 2000000000, "Timeout": 0}, "WorkingDir": ""}}"#,
        )
        .expect("it is one");
        assert_eq!((config.platform.as_str(), config.working_dir), ("wasi/wasm", None));
        assert_eq!(config.environment.get("A").map(String::as_str), Some("1=2"));
        assert_eq!(config.exposed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        let check = config.healthcheck.expect("there is one");
        assert_eq!((check.interval, check.timeout), (Some(std::time::Duration::from_secs(2)), None));
        assert_eq!(
            image_config(br#"{"os": "wasip2", "architecture": "wasm"}"#).expect("it is one").platform,
            "wasip2/wasm"
        );
    }

    #[test]
    fn a_digest_names_a_file_only_when_it_is_one() {
        assert!(hex(&sha256(b"")).is_some());
        for digest in ["sha256:..", "sha256:../../x", "md5:00", "", &format!("sha256:{}", "0F".repeat(32))] {
            assert_eq!(hex(digest), None, "{digest}");
        }
    }
}
