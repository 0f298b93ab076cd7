//! What the client's crate does not do: manifests of bounded length, and tokens for identity tokens, as credential helpers
//! have them for some registries.
//!
//! An identity token is a refresh token (RFC 6749, section 6), traded at the service that the registry names in its challenge
//! (<https://distribution.github.io/distribution/spec/auth/oauth/>). It is sent nowhere else, and never in the clear but on this
//! machine.

use oci_client::Reference;
use reqwest::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use super::{RegistryError, SILENCE, causes, is_local};
use crate::image::form::encoded;
use crate::image::oci;

/// Longest manifest (OCI distribution specification: registries need not take more than 4 MiB).
const LONGEST: u64 = 4 << 20;
/// Longest answer of a token service, and longest error.
const SHORT: u64 = 64 << 10;
/// How token services know who asks.
const CLIENT: &str = "wcompose";

/// Asks a registry.
pub(super) struct Asking {
    client: Client,
}

/// Who asks.
pub(super) enum Asker {
    /// Somebody.
    Anybody,
    /// Whoever has this token.
    Bearer(String),
    /// This user, with this password.
    User(String, String),
}

impl Asking {
    pub(super) fn new(agent: &str) -> Result<Self, RegistryError> {
        let client = Client::builder().connect_timeout(SILENCE).read_timeout(SILENCE).user_agent(agent).build();
        Ok(Self { client: client.map_err(|error| RegistryError::Other(causes(&error)))? })
    }

    /// A manifest of one of the types, and its digest. One that is asked for by digest has it.
    pub(super) async fn manifest(
        &self,
        reference: &Reference,
        types: &[&str],
        asker: Asker,
    ) -> Result<(Vec<u8>, String), RegistryError> {
        let at = reference.digest().or_else(|| reference.tag()).unwrap_or("latest");
        let address = format!("{}/{}/manifests/{at}", root(reference), reference.repository());
        let request = self.client.get(address).header(ACCEPT, types.join(", "));
        let request = match asker {
            Asker::Anybody => request,
            Asker::Bearer(token) => request.bearer_auth(token),
            Asker::User(name, password) => request.basic_auth(name, Some(password)),
        };
        let response = sent(request).await?;
        let told = response.headers().get("docker-content-digest").and_then(|digest| digest.to_str().ok());
        let told = told.map(str::to_owned);
        let bytes = body(response, LONGEST).await?;
        let digest = oci::sha256(&bytes);
        let expected = reference.digest().map(str::to_owned).or(told.filter(|told| told.starts_with("sha256:")));
        match expected {
            Some(expected) if expected != digest => {
                Err(RegistryError::Damaged(format!("a manifest is `{digest}`, not `{expected}`")))
            }
            _ => Ok((bytes, digest)),
        }
    }

    /// A token for `actions` (`pull`, `pull,push`) in the repository of a reference; none where the registry wants none.
    pub(super) async fn token(
        &self,
        reference: &Reference,
        actions: &str,
        identity: &str,
    ) -> Result<Option<String>, RegistryError> {
        let response = self.client.get(format!("{}/", root(reference))).send().await.map_err(|error| lost(&error))?;
        let asked = response.headers().get(WWW_AUTHENTICATE).and_then(|header| header.to_str().ok());
        let Some(Challenge { realm, service }) = asked.and_then(challenge) else { return Ok(None) };
        if !realm.starts_with("https://") && !is_local(reference.resolve_registry()) {
            return Err(RegistryError::Denied(format!("its token service `{realm}` is not behind TLS")));
        }
        let scope = format!("repository:{}:{actions}", reference.repository());
        let form = [
            ("grant_type", "refresh_token".to_owned()),
            ("refresh_token", identity.to_owned()),
            ("client_id", CLIENT.to_owned()),
            ("service", service.unwrap_or_default()),
            ("scope", scope),
        ];
        let request = self.client.post(realm).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let response = sent(request.body(encoded(&form))).await.map_err(|error| match error {
            RegistryError::Other(why) => RegistryError::Denied(format!("its token service answers: {why}")),
            RegistryError::NotFound => RegistryError::Denied("its token service knows no identity tokens".into()),
            other => other,
        })?;
        let answer: Value = serde_json::from_slice(&body(response, SHORT).await?).unwrap_or_default();
        let token = answer.get("access_token").or_else(|| answer.get("token")).and_then(Value::as_str);
        let token = token.ok_or_else(|| RegistryError::Denied("its token service gave no token".into()))?;
        Ok(Some(token.to_owned()))
    }
}

/// Where a registry's API is; without a slash at the end.
fn root(reference: &Reference) -> String {
    let registry = reference.resolve_registry();
    format!("{}://{registry}/v2", if is_local(registry) { "http" } else { "https" })
}

/// Sends a request; an answer that is no success is an error.
async fn sent(request: RequestBuilder) -> Result<Response, RegistryError> {
    let response = request.send().await.map_err(|error| lost(&error))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let said = body(response, SHORT).await.unwrap_or_default();
    let said: Value = serde_json::from_slice(&said).unwrap_or_default();
    let said = said.pointer("/errors/0/message").or_else(|| said.pointer("/details")).and_then(Value::as_str);
    Err(match status {
        StatusCode::NOT_FOUND => RegistryError::NotFound,
        StatusCode::UNAUTHORIZED => RegistryError::Denied(said.unwrap_or("it wants credentials").to_owned()),
        StatusCode::FORBIDDEN => RegistryError::Denied(said.unwrap_or("it refuses").to_owned()),
        status => RegistryError::Other(said.map_or_else(|| status.to_string(), str::to_owned)),
    })
}

/// The body of an answer, of at most so many bytes.
async fn body(mut response: Response, most: u64) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| RegistryError::Broken(causes(&error)))? {
        if (bytes.len() + chunk.len()) as u64 > most {
            return Err(RegistryError::TooLarge(most));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn lost(error: &reqwest::Error) -> RegistryError {
    if error.is_connect() || error.is_timeout() {
        RegistryError::Unreachable(causes(error))
    } else {
        RegistryError::Broken(causes(error))
    }
}

/// Where tokens are to be had.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    realm: String,
    service: Option<String>,
}

/// Reads `Bearer realm="…",service="…"` (RFC 6750, section 3).
fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, mut rest) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service) = (None, None);
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value.to_owned()),
            "service" => service = Some(value.to_owned()),
            _ => {}
        }
        rest = after.trim_start_matches([',', ' ']);
    }
    Some(Challenge { realm: realm?, service })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let both = Challenge { realm: "https://auth.example/token".into(), service: Some("registry, x".into()) };
        let header = "Bearer realm=\"https://auth.example/token\",service=\"registry, x\",scope=\"repository:a:pull\"";
        assert_eq!(challenge(header), Some(both));
        let bare = Challenge { realm: "https://auth.example".into(), service: None };
        assert_eq!(challenge("bearer scope=x, realm=https://auth.example"), Some(bare));
        for other in ["Basic realm=\"x\"", "Bearer", "Bearer service=\"x\"", "Bearer realm=\"x"] {
            assert_eq!(challenge(other), None, "{other}");
        }
    }
}
