//! Asking a registry in the user's name: with what docker knows of them, and with advice where it does not answer.

use crate::image::credentials;
use crate::image::registry::{Reference, Registry, RegistryError};

/// The registry of a reference. Nothing is sent yet; a credential helper may be asked.
pub async fn open(reference: &Reference) -> Registry {
    let asked = reference.to_string();
    let credentials = tokio::task::spawn_blocking(move || credentials::of_reference(&asked)).await;
    Registry::new(reference, credentials.unwrap_or_default())
}

/// What to do where a registry cannot be asked; nothing where it was, and the matter is what it said.
pub fn access(error: &RegistryError, registry: &str) -> Option<String> {
    match error {
        RegistryError::Unreachable(_) => {
            Some(format!("check the address and the network: is `{registry}` a registry?"))
        }
        RegistryError::Denied(_) => Some(format!("log in: `docker login {registry}`")),
        RegistryError::NotFound
        | RegistryError::Damaged(_)
        | RegistryError::TooLarge(_)
        | RegistryError::Broken(_)
        | RegistryError::Other(_) => None,
    }
}
