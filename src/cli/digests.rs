//! `config --resolve-image-digests` and `--lock-image-digests`: images by what their tags stand for now, as their
//! registries say. No engine is asked.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use super::outcome::Failure;
use super::registry;
use crate::image::kind::is_path;
use crate::image::registry::{MANIFESTS, Reference, RegistryError};

/// Puts digests to the images of a document's services, each with its registry spelt out. Local modules and images that
/// are named by digest stay what they are.
///
/// # Errors
///
/// All images whose registries do not answer, or do not have them.
pub async fn pin(document: &mut Value) -> Result<(), Failure> {
    let Some(services) = services(document) else { return Ok(()) };
    let images = services.values().filter_map(|service| service.get("image")?.as_str());
    let mut references = BTreeMap::new();
    for image in images.filter(|image| !is_path(image)) {
        let reference = Reference::parse(image).ok_or_else(|| {
            Failure::new(format!("`{image}` is not the name of an image"), ["write `[REGISTRY/]NAME[:TAG]`".to_owned()])
        })?;
        references.insert(image.to_owned(), reference);
    }
    let asked = references.into_iter().map(|(image, reference)| async move {
        let pinned = match reference.digest() {
            Some(_) => Ok(reference.to_string()),
            None => digest(&reference).await.map(|digest| format!("{reference}@{digest}")),
        };
        (image, reference, pinned)
    });
    let mut pinned = BTreeMap::new();
    let mut failures = Vec::new();
    for (image, reference, answer) in join_all(asked).await {
        match answer {
            Ok(name) => {
                pinned.insert(image, name);
            }
            Err(error) => failures.push(failure(&image, &reference, &error)),
        }
    }
    if !failures.is_empty() {
        return Err(Failure::Many(failures));
    }
    for service in services.values_mut().filter_map(Value::as_object_mut) {
        let name = service.get("image").and_then(Value::as_str).and_then(|image| pinned.get(image)).cloned();
        if let Some(name) = name {
            service.insert("image".into(), name.into());
        }
    }
    Ok(())
}

/// What an override file needs to keep these images: nothing else of the services.
pub fn lock(mut document: Value) -> Value {
    let services = services(&mut document).map(std::mem::take);
    let images: Map<String, Value> = services
        .into_iter()
        .flatten()
        .filter_map(|(name, mut service)| Some((name, json!({ "image": service.get_mut("image")?.take() }))))
        .collect();
    json!({ "services": images })
}

fn services(document: &mut Value) -> Option<&mut Map<String, Value>> {
    document.get_mut("services")?.as_object_mut()
}

async fn digest(reference: &Reference) -> Result<String, RegistryError> {
    let registry = registry::open(reference).await;
    registry.manifest(reference, MANIFESTS).await.map(|(_, digest)| digest)
}

fn failure(image: &str, reference: &Reference, error: &RegistryError) -> Failure {
    let registry = reference.registry();
    let hint = registry::access(error, registry).unwrap_or_else(|| match error {
        RegistryError::NotFound => format!("`{registry}` has no `{reference}`; push it first, or look for its tag"),
        RegistryError::Unreachable(_)
        | RegistryError::Denied(_)
        | RegistryError::Damaged(_)
        | RegistryError::TooLarge(_)
        | RegistryError::Broken(_)
        | RegistryError::Other(_) => "try again".to_owned(),
    });
    Failure::new(format!("cannot find out the digest of `{image}`: {error}"), [hint])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_keeps_images_alone() {
        let document = json!({ "name": "x", "services": { "a": { "image": "i@sha256:1", "ports": [] }, "b": {} } });
        assert_eq!(lock(document), json!({ "services": { "a": { "image": "i@sha256:1" } } }));
    }
}
