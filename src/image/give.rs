//! From the content store to a registry, and how what was built becomes an image of Wasm.
//!
//! An engine builds for Linux, whatever is in the image; what is pushed says `wasi/wasm`, so that every runtime for Wasm
//! takes it. A module that was made without an image is pushed as a Wasm artifact.

use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::content::{Content, ContentError, Draft};
use super::fetch::FetchError;
use super::layers::{ArchiveError, io_error};
use super::oci::{self, Descriptor, Document};
use super::registry::{Reference, Registry};
use crate::model::ModuleKind;

/// Longest document that is read.
const LONGEST: u64 = 16 << 20;
/// What a platform is called when nothing else is said.
const PLATFORM: &str = "wasi/wasm";

/// Gives a manifest and what it names to a registry.
pub async fn give(
    registry: &Registry,
    reference: &Reference,
    content: &Content,
    digest: &str,
    progress: &(dyn Fn(String) + Send + Sync),
) -> Result<(), FetchError> {
    let bytes = content.read(digest, LONGEST)?;
    let manifest = Document::read(&bytes).map_err(FetchError::Malformed)?;
    for part in manifest.layers.iter().chain(&manifest.config) {
        let short = part.hex().map_or("", |hex| &hex[..12]);
        let file = content.open(&part.digest)?;
        let sent = registry.give_blob(reference, &part.digest, file, part.size).await?;
        progress(format!("{short}: {}", if sent { "Pushed" } else { "Layer already exists" }));
    }
    let kind = manifest.media_type.unwrap_or_else(|| oci::MANIFEST.to_owned());
    registry.give_manifest(reference, bytes, &kind).await?;
    Ok(())
}

/// The image that was built for Linux, as one of Wasm with packed layers: the digest of its manifest.
pub fn image(content: &Content, digest: &str, platform: Option<&str>) -> Result<String, ContentError> {
    let malformed = |why: String| ArchiveError::Malformed { path: digest.into(), why };
    let manifest = Document::read(&content.read(digest, LONGEST)?).map_err(malformed)?;
    let config = manifest.config.ok_or_else(|| malformed("it names no configuration".into()))?;
    let mut config: Value = serde_json::from_slice(&content.read(&config.digest, LONGEST)?)
        .map_err(|error| malformed(error.to_string()))?;
    let (os, architecture) = platform.and_then(|platform| platform.split_once('/')).unwrap_or(("wasi", "wasm"));
    if let Some(config) = config.as_object_mut() {
        config.insert("os".into(), os.into());
        config.insert("architecture".into(), architecture.into());
        config.shift_remove("variant");
    }
    let mut layers = Vec::new();
    for layer in &manifest.layers {
        layers.push(packed(content, layer)?);
    }
    manifest_of(content, oci::CONFIG, &config, &layers.into())
}

/// A module as a Wasm artifact (CNCF's layout): the digest of its manifest.
pub fn artifact(content: &Content, module: &[u8], kind: ModuleKind) -> Result<String, ContentError> {
    let layer = oci::sha256(module);
    content.put(&layer, module)?;
    let os = match kind {
        ModuleKind::Core => "wasip1",
        ModuleKind::Command | ModuleKind::Http => "wasip2",
        ModuleKind::AsyncCommand | ModuleKind::AsyncHttp => "wasip3",
    };
    let config = json!({ "architecture": "wasm", "os": os, "layerDigests": [layer] });
    let layers = json!([{ "mediaType": oci::WASM, "digest": layer, "size": module.len() }]);
    manifest_of(content, oci::WASM_CONFIG, &config, &layers)
}

/// The platform of Wasm among those that a build names.
pub fn platform(platforms: &[String]) -> &str {
    let wasm = platforms.iter().find(|platform| super::kind::is_wasm_platform(platform) && platform.contains('/'));
    wasm.map_or(PLATFORM, String::as_str)
}

/// Stores a configuration, and the manifest that joins it with layers: the manifest's digest.
fn manifest_of(content: &Content, kind: &str, config: &Value, layers: &Value) -> Result<String, ContentError> {
    let config = config.to_string();
    let digest = put(content, &config)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": oci::MANIFEST,
        "config": { "mediaType": kind, "digest": digest, "size": config.len() },
        "layers": layers,
    });
    put(content, &manifest.to_string())
}

fn put(content: &Content, text: &str) -> Result<String, ContentError> {
    let digest = oci::sha256(text.as_bytes());
    content.put(&digest, text.as_bytes())?;
    Ok(digest)
}

/// A layer packed with gzip; one that is packed already stays.
fn packed(content: &Content, layer: &Descriptor) -> Result<Value, ContentError> {
    if layer.media_type != oci::LAYER {
        return Ok(json!({ "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size }));
    }
    let path = content.path(&layer.digest)?;
    // Equal layers give equal digests: the packed form holds no time and no name.
    let mut packer = GzEncoder::new(content.draft()?, Compression::default());
    io::copy(&mut content.open(&layer.digest)?, &mut packer).map_err(io_error("reading", &path))?;
    let mut draft: Draft = packer.finish().map_err(io_error("packing", &path))?;
    draft.flush().map_err(io_error("writing", &path))?;
    let size = draft.size();
    let digest = draft.keep_as_it_is()?;
    Ok(json!({ "mediaType": format!("{}+gzip", oci::LAYER), "digest": digest, "size": size }))
}
