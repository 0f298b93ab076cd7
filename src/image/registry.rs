//! A registry, as one asks it for manifests and blobs. The only place that names the client's crates.
//!
//! Everything that comes back has the digest it was asked by, and no blob is larger than the caller allows. Registries on
//! this machine are spoken to in plain HTTP, as docker does; all others over TLS.

mod asking;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};

use self::asking::{Asker, Asking};
use super::credentials::Credentials;
use super::tls;

/// The types of what a tag of an image can stand for.
pub const MANIFESTS: &[&str] = &[
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Bytes of a blob that are sent at a time.
const CHUNK: usize = 1 << 20;
/// Who asks, by name.
const AGENT: &str = concat!("wcompose/", env!("CARGO_PKG_VERSION"));
/// How long a registry may say nothing.
const SILENCE: Duration = Duration::from_secs(30);

/// The name of something in a registry, as docker reads it: `alpine` is `docker.io/library/alpine:latest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference(oci_client::Reference);

impl Reference {
    /// Reads a reference; nothing when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }

    /// The registry's name, with its port.
    pub fn registry(&self) -> &str {
        self.0.registry()
    }

    /// What it must be, whatever the tag says.
    pub fn digest(&self) -> Option<&str> {
        self.0.digest()
    }

    /// The same place, by digest.
    fn at(&self, digest: &str) -> oci_client::Reference {
        self.0.clone_with_digest(digest.to_owned())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a registry could not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// It does not answer.
    #[error("the registry does not answer: {0}")]
    Unreachable(String),
    /// It has no such thing.
    #[error("the registry has no such thing")]
    NotFound,
    /// It wants to know who asks, or does not let them.
    #[error("the registry does not let you: {0}")]
    Denied(String),
    /// What came is not what was asked for.
    #[error("what the registry sent is not what its digest says: {0}")]
    Damaged(String),
    /// A blob is larger than allowed.
    #[error("what the registry holds is larger than {0} bytes")]
    TooLarge(u64),
    /// It went away in the middle.
    #[error("the registry broke off: {0}")]
    Broken(String),
    /// Anything else.
    #[error("the registry answers: {0}")]
    Other(String),
}

/// A registry, with what it asks of its users.
pub struct Registry {
    client: Client,
    auth: RegistryAuth,
    /// A token that others are had for, and those that were, by what they let do.
    identity: Option<String>,
    tokens: Mutex<BTreeMap<&'static str, RegistryAuth>>,
}

impl Registry {
    /// The registry of a reference. Nothing is sent yet.
    pub fn new(reference: &Reference, credentials: Option<Credentials>) -> Self {
        tls::prepare();
        let name = reference.0.resolve_registry();
        let protocol = if is_local(name) { ClientProtocol::Http } else { ClientProtocol::Https };
        let config = ClientConfig {
            protocol,
            connect_timeout: Some(SILENCE),
            read_timeout: Some(SILENCE),
            user_agent: AGENT,
            ..ClientConfig::default()
        };
        let identity = credentials.as_ref().and_then(|credentials| credentials.identity_token.clone());
        let auth = match credentials {
            Some(Credentials { registry_token: Some(token), .. }) => RegistryAuth::Bearer(token),
            Some(Credentials { username: Some(user), password: Some(password), .. }) => {
                RegistryAuth::Basic(user, password)
            }
            Some(_) | None => RegistryAuth::Anonymous,
        };
        Self { client: Client::new(config), auth, identity, tokens: Mutex::default() }
    }

    /// Makes the next requests about a reference ones of a user who may do this; a token to show, where the registry has such.
    async fn enter(&self, reference: &Reference, operation: RegistryOperation) -> Result<Asker, RegistryError> {
        let auth = match &self.identity {
            Some(identity) => self.traded(reference, &operation, identity).await?,
            None => self.auth.clone(),
        };
        let token = self.client.auth(&reference.0, &auth, operation).await.map_err(error)?;
        Ok(match (token, auth) {
            (Some(token), _) => Asker::Bearer(token),
            (None, RegistryAuth::Basic(name, password)) => Asker::User(name, password),
            (None, RegistryAuth::Anonymous | RegistryAuth::Bearer(_)) => Asker::Anybody,
        })
    }

    /// What an identity token was traded for, once for each thing to do: a registry is asked about one repository.
    async fn traded(
        &self,
        reference: &Reference,
        operation: &RegistryOperation,
        identity: &str,
    ) -> Result<RegistryAuth, RegistryError> {
        let actions = match operation {
            RegistryOperation::Pull => "pull",
            RegistryOperation::Push => "pull,push",
        };
        let tokens = || self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(auth) = tokens().get(actions) {
            return Ok(auth.clone());
        }
        let token = Asking::new(AGENT)?.token(&reference.0, actions, identity).await?;
        let auth = token.map_or(RegistryAuth::Anonymous, RegistryAuth::Bearer);
        tokens().insert(actions, auth.clone());
        Ok(auth)
    }

    /// A manifest or index of one of the types, of 4 MiB at most, and its digest. One that is asked for by digest has it.
    pub async fn manifest(&self, reference: &Reference, types: &[&str]) -> Result<(Vec<u8>, String), RegistryError> {
        let asker = self.enter(reference, RegistryOperation::Pull).await?;
        Asking::new(AGENT)?.manifest(&reference.0, types, asker).await
    }

    /// The manifest with a digest, beside `reference`.
    pub async fn manifest_at(
        &self,
        reference: &Reference,
        digest: &str,
        types: &[&str],
    ) -> Result<Vec<u8>, RegistryError> {
        let (bytes, _) = self.manifest(&Reference(reference.at(digest)), types).await?;
        Ok(bytes)
    }

    /// The blob with a digest, of at most so many bytes.
    pub async fn blob(&self, reference: &Reference, digest: &str, most: u64) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        self.blob_into(reference, digest, most, &mut bytes).await?;
        Ok(bytes)
    }

    /// The blob with a digest, of at most so many bytes, as it comes. On an error part of it was written.
    pub async fn blob_into(
        &self,
        reference: &Reference,
        digest: &str,
        most: u64,
        to: &mut impl Write,
    ) -> Result<(), RegistryError> {
        let mut stream = self.client.pull_blob_stream(&reference.0, digest).await.map_err(error)?;
        let mut count = 0;
        while let Some(chunk) = stream.stream.next().await {
            let chunk = chunk.map_err(broken)?;
            count += chunk.len() as u64;
            if count > most {
                return Err(RegistryError::TooLarge(most));
            }
            to.write_all(&chunk)
                .map_err(|fault| RegistryError::Other(format!("its answer cannot be kept: {fault}")))?;
        }
        Ok(())
    }

    /// Gives a blob to the registry, unless it has it: whether it was sent.
    pub async fn give_blob(
        &self,
        reference: &Reference,
        digest: &str,
        from: File,
        size: u64,
    ) -> Result<bool, RegistryError> {
        self.enter(reference, RegistryOperation::Push).await?;
        if self.client.blob_exists(&reference.0, digest).await.unwrap_or(false) {
            return Ok(false);
        }
        let chunks = futures_util::stream::try_unfold(from, |mut from| async move {
            let mut chunk = vec![0; CHUNK];
            let count = from.read(&mut chunk)?;
            chunk.truncate(count);
            Ok((count > 0).then(|| (bytes::Bytes::from(chunk), from)))
        });
        self.client.push_blob_stream(&reference.0, chunks, digest, Some(size)).await.map_err(error)?;
        Ok(true)
    }

    /// Gives a manifest to the registry, under the reference's tag. What it names must be there already.
    pub async fn give_manifest(
        &self,
        reference: &Reference,
        bytes: Vec<u8>,
        media_type: &str,
    ) -> Result<(), RegistryError> {
        self.enter(reference, RegistryOperation::Push).await?;
        let kind = media_type.parse().map_err(|_| RegistryError::Other(format!("`{media_type}` is no media type")))?;
        self.client.push_manifest_raw(&reference.0, bytes, kind).await.map(drop).map_err(error)
    }
}

/// What ended a blob too early: other bytes than its digest says, or the connection's end.
fn broken(fault: io::Error) -> RegistryError {
    if fault.get_ref().is_some_and(|inner| inner.is::<DigestError>()) {
        return RegistryError::Damaged(fault.to_string());
    }
    RegistryError::Broken(causes(&fault))
}

/// Whether a registry is on this machine.
fn is_local(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn error(error: OciDistributionError) -> RegistryError {
    let text = causes(&error);
    match error {
        OciDistributionError::RequestError(fault) if fault.is_connect() || fault.is_timeout() => {
            RegistryError::Unreachable(text)
        }
        OciDistributionError::AuthenticationFailure(_) => RegistryError::Denied("it refuses the credentials".into()),
        OciDistributionError::UnauthorizedError { .. } => RegistryError::Denied("it wants credentials".into()),
        OciDistributionError::ImageManifestNotFoundError(_) | OciDistributionError::ServerError { code: 404, .. } => {
            RegistryError::NotFound
        }
        OciDistributionError::ServerError { code: 401, .. } => RegistryError::Denied("it wants credentials".into()),
        OciDistributionError::ServerError { code: 403, .. } => RegistryError::Denied("it refuses".into()),
        OciDistributionError::DigestError(_) => RegistryError::Damaged(text),
        OciDistributionError::RegistryError { envelope, .. } => {
            let unknown = [OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::BlobUnknown];
            match envelope.errors.first() {
                Some(first) if unknown.contains(&first.code) => RegistryError::NotFound,
                Some(first) if [OciErrorCode::Denied, OciErrorCode::Unauthorized].contains(&first.code) => {
                    RegistryError::Denied(first.message.clone())
                }
                Some(first) => RegistryError::Other(first.message.clone()),
                None => RegistryError::Other(text),
            }
        }
        _ => RegistryError::Other(text),
    }
}

/// An error with its causes, each once.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_docker_reads_them() {
        let cases = [
            ("alpine", "docker.io/library/alpine:latest", "docker.io"),
            ("me/app:1", "docker.io/me/app:1", "docker.io"),
            ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000"),
            ("ghcr.io/a/b/c:x", "ghcr.io/a/b/c:x", "ghcr.io"),
        ];
        for (text, whole, registry) in cases {
            let reference = Reference::parse(text).expect(text);
            assert_eq!((reference.to_string().as_str(), reference.registry()), (whole, registry), "{text}");
        }
        for text in ["", "a B", "a b", "x@sha256:00", "host:99/x:"] {
            assert_eq!(Reference::parse(text), None, "{text}");
        }
    }

    #[test]
    fn registries_of_this_machine_are_known() {
        for name in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.0.0.2", "[::1]:5000"] {
            assert!(is_local(name), "{name}");
        }
        for name in ["docker.io", "localhost.example.com:80", "10.0.0.1:5000", "127.0.0.1.example.com"] {
            assert!(!is_local(name), "{name}");
        }
    }
}
