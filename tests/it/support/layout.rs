//! Images as folders (OCI image layout), made here: no engine and no registry takes part.

use std::fs;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Project;

/// Media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an image's configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of an image's layer.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The digest of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// A layer with these files.
pub fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *bytes).expect("an archive in memory");
    }
    archive.into_inner().expect("an archive in memory")
}

/// Writes an OCI layout of one manifest to the project's folder `layout`.
pub fn layout(project: &Project, config: Vec<u8>, kind: &str, layers: Vec<(&str, Vec<u8>)>) {
    let described: Vec<Value> = layers
        .iter()
        .map(|(kind, layer)| json!({ "mediaType": kind, "digest": digest(layer), "size": layer.len() }))
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": { "mediaType": kind, "digest": digest(&config), "size": config.len() },
        "layers": described,
    });
    let manifest = manifest.to_string().into_bytes();
    let index = json!({ "schemaVersion": 2, "manifests": [{ "mediaType": MANIFEST, "digest": digest(&manifest), "size": manifest.len() }] });
    let folder = project.folder().join("layout");
    fs::create_dir_all(folder.join("blobs/sha256")).expect("a writable folder");
    fs::write(folder.join("index.json"), index.to_string()).expect("a writable folder");
    for part in layers.into_iter().map(|(_, layer)| layer).chain([config, manifest]) {
        let name = digest(&part);
        fs::write(folder.join("blobs/sha256").join(name.trim_start_matches("sha256:")), part)
            .expect("a writable folder");
    }
}
