//! See STYLE, layout.
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Config hash of a service.
pub fn service_hash(document: &Value) -> String {
    hash(document)
}

/// Config hash of a network.
pub fn network_hash(document: &Value) -> String {
    hash(document)
}

/// Config hash of a volume.
pub fn volume_hash(document: &Value) -> String {
    hash(document)
}

/// Hash of a Wasm instance.
pub fn wasm_hash(module_digest: &str, x_wasm: &Value) -> String {
    hash(&serde_json::json!([module_digest, x_wasm]))
}

fn hash(value: &Value) -> String {
    Sha256::digest(value.to_string()).iter().map(|byte| format!("{byte:02x}")).collect()
}
