//! Compose files from OCI registries, as `docker compose publish` puts them there.
//!
//! An artifact is a manifest with a layer for each file: compose files, the later ones overriding the first; files that
//! services are extended from; environment files. All lie in one folder, whatever the layers say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Refusal;
use super::cache::{Cache, Draft, Mode};
use crate::cli::registry;
use crate::image::registry::{Reference, RegistryError};

/// What kind of artifact it is.
const ARTIFACT: &str = "application/vnd.docker.compose.project";
/// The same, said by the configuration where a registry knows no artifacts.
const CONFIG: &str = "application/vnd.docker.compose.config.empty.v1+json";
const COMPOSE_FILE: &str = "application/vnd.docker.compose.file+yaml";
const ENV_FILE: &str = "application/vnd.docker.compose.envfile";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Most bytes of a file.
const MOST_BYTES: u64 = 8 << 20;
/// Most files.
const MOST_FILES: usize = 1000;

/// An index or a manifest; what the other has is empty.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    artifact_type: Option<String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The folder with the files of an artifact.
pub(super) async fn fetch(name: &str, cache: &Cache) -> Result<PathBuf, Refusal> {
    let reference = Reference::parse(name).ok_or_else(|| {
        Refusal::new(format!("`{name}` is not a reference"), "write it as `oci://REGISTRY/NAME:TAG`, in lower case")
    })?;
    if let Some(folder) = reference.digest().and_then(|digest| cache.entry("oci", hex(digest)?)) {
        return Ok(folder);
    }
    let registry = registry::open(&reference).await;
    let refused = |error: RegistryError| refusal(error, &reference);
    let (bytes, digest) = registry.manifest(&reference, &[MANIFEST, INDEX]).await.map_err(refused)?;
    let key = hex(&digest).ok_or_else(|| damaged(&digest))?;
    if let Some(folder) = cache.entry("oci", key) {
        return Ok(folder);
    }
    let mut manifest = read(&bytes)?;
    if !manifest.manifests.is_empty() {
        let mut projects = manifest.manifests.iter().rev();
        let project = projects.find(|entry| entry.artifact_type.as_deref() == Some(ARTIFACT)).ok_or_else(other)?;
        hex(&project.digest).ok_or_else(|| damaged(&project.digest))?;
        let bytes = registry.manifest_at(&reference, &project.digest, &[MANIFEST]).await.map_err(refused)?;
        manifest = read(&bytes)?;
    }
    let layers = layers(&manifest)?;
    let mut files = Vec::new();
    for layer in layers {
        hex(&layer.digest).ok_or_else(|| damaged(&layer.digest))?;
        files.push((layer, registry.blob(&reference, &layer.digest, MOST_BYTES).await.map_err(refused)?));
    }
    write(&files, cache.draft()?)?.keep("oci", key)
}

/// The digits of a digest; it names a folder.
fn hex(digest: &str) -> Option<&str> {
    let digits = digest.strip_prefix("sha256:")?;
    let fits = digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    fits.then_some(digits)
}

fn damaged(digest: &str) -> Refusal {
    Refusal::new(format!("`{digest}` is not a digest"), "publish it again")
}

fn other() -> Refusal {
    Refusal::new("it is no compose project", "publish one with `docker compose publish`; an image goes under `image:`")
}

fn refusal(error: RegistryError, reference: &Reference) -> Refusal {
    let registry = reference.registry();
    let hint = registry::access(&error, registry).unwrap_or_else(|| match &error {
        RegistryError::NotFound => format!("look for the name and tag at `{registry}`"),
        RegistryError::Damaged(_) => "do not use it; ask who runs the registry".to_owned(),
        RegistryError::TooLarge(_) => "a compose file is smaller; publish it again".to_owned(),
        RegistryError::Unreachable(_)
        | RegistryError::Denied(_)
        | RegistryError::Broken(_)
        | RegistryError::Other(_) => "try again, or keep the file on this machine".to_owned(),
    });
    let reason = match error {
        RegistryError::NotFound => format!("`{registry}` has no `{reference}`"),
        error => error.to_string(),
    };
    Refusal::new(reason, hint)
}

fn read(bytes: &[u8]) -> Result<Manifest, Refusal> {
    serde_json::from_slice(bytes)
        .map_err(|error| Refusal::new(format!("its manifest is damaged: {error}"), "publish it again"))
}

/// The layers that are files, of a manifest that is a compose project's.
fn layers(manifest: &Manifest) -> Result<Vec<&Descriptor>, Refusal> {
    let kind = manifest.artifact_type.as_deref().filter(|kind| !kind.is_empty());
    let config = manifest.config.as_ref().map(|config| config.media_type.as_str());
    if kind.is_some_and(|kind| kind != ARTIFACT) || kind.is_none() && config != Some(CONFIG) {
        return Err(other());
    }
    let known = |layer: &&Descriptor| [COMPOSE_FILE, ENV_FILE].contains(&layer.media_type.as_str());
    let layers: Vec<_> = manifest.layers.iter().filter(known).collect();
    if layers.len() > MOST_FILES {
        return Err(Refusal::new(format!("it has more than {MOST_FILES} files"), "publish less at once"));
    }
    Ok(layers)
}

/// Writes the layers as files: `compose.yaml` with all overrides behind it, and the others by their names.
fn write(files: &[(&Descriptor, Vec<u8>)], mut draft: Draft) -> Result<Draft, Refusal> {
    let mut compose = Vec::new();
    let mut others: BTreeMap<&str, &[u8]> = BTreeMap::new();
    for (layer, content) in files {
        let annotation = |name: &str| layer.annotations.get(name).map(String::as_str);
        let name = match layer.media_type.as_str() {
            COMPOSE_FILE if annotation("com.docker.compose.extends").is_none() => {
                if !compose.is_empty() {
                    compose.extend_from_slice(b"\n---\n");
                }
                compose.extend_from_slice(content);
                continue;
            }
            COMPOSE_FILE => annotation("com.docker.compose.file"),
            _ => annotation("com.docker.compose.envfile"),
        };
        let name = name.ok_or_else(|| Refusal::new("one of its files has no name", "publish it again"))?;
        if name.contains(['/', '\\']) {
            return Err(Refusal::new(
                format!("it holds a file called `{name}`, which is outside of it"),
                "do not use it unless you know who made it, and why",
            ));
        }
        if name == "compose.yaml" || others.insert(name, content).is_some() {
            return Err(Refusal::new(format!("it holds two files called `{name}`"), "publish it again"));
        }
    }
    if compose.is_empty() {
        return Err(other());
    }
    draft.file(Path::new("compose.yaml"), &compose, Mode::Plain)?;
    for (name, content) in others {
        draft.file(Path::new(name), content, Mode::Plain)?;
    }
    Ok(draft)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(kind: &str, annotations: &[(&str, &str)]) -> Descriptor {
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let digest = format!("sha256:{}", "0".repeat(64));
        Descriptor { media_type: kind.into(), digest, artifact_type: None, annotations }
    }

    #[test]
    fn layers_become_files_of_one_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path().to_owned()).map_err(|failure| failure.text()).expect("a cache");
        let file = layer(COMPOSE_FILE, &[("com.docker.compose.file", "a.yaml")]);
        let base =
            layer(COMPOSE_FILE, &[("com.docker.compose.file", "b.yaml"), ("com.docker.compose.extends", "true")]);
        let variables = layer(ENV_FILE, &[("com.docker.compose.envfile", "c.env")]);
        let files =
            [(&file, b"a".to_vec()), (&base, b"b".to_vec()), (&variables, b"c".to_vec()), (&file, b"d".to_vec())];
        let draft = write(&files, cache.draft().expect("a draft")).expect("they are written");
        let root = draft.keep("oci", "00").expect("it is kept");
        for (name, text) in [("compose.yaml", "a\n---\nd"), ("b.yaml", "b"), ("c.env", "c")] {
            assert_eq!(std::fs::read_to_string(root.join(name)).expect(name), text);
        }
        for name in ["../x", "a/b", "..", "a\\b", "compose.yaml"] {
            let bad = layer(ENV_FILE, &[("com.docker.compose.envfile", name)]);
            let files = [(&file, b"a".to_vec()), (&bad, b"c".to_vec())];
            assert!(write(&files, cache.draft().expect("a draft")).is_err(), "{name}");
        }
        let nameless = layer(ENV_FILE, &[]);
        assert!(write(&[(&file, b"a".to_vec()), (&nameless, b"c".to_vec())], cache.draft().expect("a draft")).is_err());
        assert!(write(&[(&variables, b"c".to_vec())], cache.draft().expect("a draft")).is_err());
    }

    #[test]
    fn only_compose_projects_are_taken() {
        let manifest = |kind: Option<&str>, config: &str| Manifest {
            artifact_type: kind.map(str::to_owned),
            config: Some(layer(config, &[])),
            layers: vec![layer(COMPOSE_FILE, &[]), layer("application/octet-stream", &[])],
            manifests: Vec::new(),
        };
        let empty = "application/vnd.oci.empty.v1+json";
        for (kind, config, taken) in [
            (Some(ARTIFACT), empty, true),
            (None, CONFIG, true),
            (Some(""), CONFIG, true),
            (Some("application/wasm"), CONFIG, false),
            (None, empty, false),
        ] {
            let manifest = manifest(kind, config);
            assert_eq!(layers(&manifest).map(|layers| layers.len()).ok(), taken.then_some(1), "{kind:?} {config}");
        }
    }

    #[test]
    fn a_digest_names_a_folder_only_when_it_is_one() {
        assert!(hex(&format!("sha256:{}", "0f".repeat(32))).is_some());
        for digest in ["sha256:..", "sha256:../../x", "md5:00", "", &format!("sha256:{}", "0F".repeat(32))] {
            assert_eq!(hex(digest), None, "{digest}");
        }
    }
}
