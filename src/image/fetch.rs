//! From a registry into the content store: a reference's manifest, Wasm where there are several, and what it names.
//!
//! Nothing is believed: each document and blob has the digest it was asked by, all together stay within limits, and what
//! breaks off is asked for again. What is there already is not fetched.

use std::io;

use futures_util::{StreamExt as _, TryStreamExt as _};
use thiserror::Error;

use super::content::{Content, ContentError};
use super::layers::Limits;
use super::oci::{self, Choice, Descriptor, Document, Form};
use super::registry::{MANIFESTS, Reference, Registry, RegistryError};

/// Longest configuration of an image.
const LONGEST_CONFIG: u64 = 16 << 20;
/// How often what breaks off is asked for.
const ATTEMPTS: usize = 3;
/// How many blobs come at once, as in docker.
const AT_ONCE: usize = 3;

/// What could not be fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// Something is wrong with what it names.
    #[error("its manifest is damaged: {0}")]
    Malformed(String),
    /// It is for other platforms.
    #[error("it has nothing for WebAssembly, only {}", .0.join(", "))]
    OtherPlatforms(Vec<String>),
    /// It is no image and no module.
    #[error("it is neither an image nor a WebAssembly module (its configuration is `{0}`)")]
    OtherKind(String),
}

/// Which of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Only<'p> {
    /// Wasm, or whatever stands alone.
    #[default]
    Any,
    /// This platform of Wasm first.
    Platform(&'p str),
    /// Wasm; nothing else is fetched.
    Wasm,
}

/// A reference at its registry, the store it is fetched into, and who hears of it.
pub struct Fetch<'f> {
    /// Where.
    pub registry: &'f Registry,
    /// What.
    pub reference: &'f Reference,
    /// Where to.
    pub content: &'f Content,
    /// Gets short lines for people.
    pub progress: &'f (dyn Fn(String) + Send + Sync),
}

impl Fetch<'_> {
    /// Fetches what the reference stands for, and names it in the store: the digest of its manifest.
    pub async fn fetch(&self, only: Only<'_>, limits: Limits) -> Result<String, FetchError> {
        let Self { reference, content, .. } = *self;
        let (bytes, digest, document) = self.manifest(only).await?;
        let config =
            document.config.clone().ok_or_else(|| FetchError::Malformed("it names no configuration".into()))?;
        let form = document.form();
        if form == Form::Other {
            return Err(FetchError::OtherKind(config.media_type));
        }
        self.one(&config, LONGEST_CONFIG).await?;
        if only == Only::Wasm && form == Form::Files {
            let parsed = content.read(&config.digest, LONGEST_CONFIG)?;
            let parsed = oci::image_config(&parsed).map_err(FetchError::Malformed)?;
            if !super::kind::is_wasm_platform(&parsed.platform) {
                return Err(FetchError::OtherPlatforms(vec![parsed.platform]));
            }
        }
        let layers: Vec<&Descriptor> = match form {
            Form::Module(layer) => vec![layer],
            Form::Files | Form::Spin | Form::Other => document.layers.iter().collect(),
        };
        let declared: u64 = layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size));
        if declared > limits.bytes || layers.len() as u64 > limits.entries {
            return Err(RegistryError::TooLarge(limits.bytes).into());
        }
        futures_util::stream::iter(layers)
            .map(Ok)
            .try_for_each_concurrent(AT_ONCE, |layer| self.one(layer, layer.size))
            .await?;
        content.put(&digest, &bytes)?;
        content.name(&reference.to_string(), &digest)?;
        Ok(digest)
    }

    /// The manifest, out of an index where there is one: its bytes, its digest, what it says.
    async fn manifest(&self, only: Only<'_>) -> Result<(Vec<u8>, String, Document), FetchError> {
        let Self { registry, reference, .. } = *self;
        let (bytes, digest) = again(|| registry.manifest(reference, MANIFESTS)).await?;
        hold(&bytes, reference.digest().unwrap_or(&digest))?;
        let document = Document::read(&bytes).map_err(FetchError::Malformed)?;
        if document.manifests.is_empty() {
            let digest = oci::sha256(&bytes);
            return Ok((bytes, digest, document));
        }
        let platform = if let Only::Platform(platform) = only { Some(platform) } else { None };
        let next = match oci::choose(&document.manifests, platform) {
            Choice::One(next) => next.clone(),
            Choice::None(platforms) => return Err(FetchError::OtherPlatforms(platforms)),
        };
        next.hex().ok_or_else(|| FetchError::Malformed(format!("`{}` is not a sha256 digest", next.digest)))?;
        let bytes = again(|| registry.manifest_at(reference, &next.digest, MANIFESTS)).await?;
        hold(&bytes, &next.digest)?;
        let document = Document::read(&bytes).map_err(FetchError::Malformed)?;
        Ok((bytes, next.digest, document))
    }

    /// One blob, of the size that its descriptor says at most.
    async fn one(&self, part: &Descriptor, most: u64) -> Result<(), FetchError> {
        let hex = part.hex().ok_or_else(|| ContentError::NoDigest(part.digest.clone()))?;
        let short = &hex[..12];
        if self.content.has(&part.digest) {
            (self.progress)(format!("{short}: Already exists"));
            return Ok(());
        }
        let mut attempt = 1;
        loop {
            let mut draft = self.content.draft()?;
            match self.registry.blob_into(self.reference, &part.digest, most, &mut draft).await {
                Ok(()) => {
                    draft.keep(&part.digest)?;
                    (self.progress)(format!("{short}: Pull complete"));
                    return Ok(());
                }
                Err(RegistryError::Broken(why)) if attempt < ATTEMPTS => {
                    (self.progress)(format!("{short}: Retrying ({why})"));
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Asks again where the answer breaks off.
async fn again<T, F: Future<Output = Result<T, RegistryError>>>(ask: impl Fn() -> F) -> Result<T, RegistryError> {
    let mut attempt = 1;
    loop {
        match ask().await {
            Err(RegistryError::Broken(_)) if attempt < ATTEMPTS => attempt += 1,
            answer => return answer,
        }
    }
}

fn hold(bytes: &[u8], digest: &str) -> Result<(), FetchError> {
    // A registry may speak of other digests; what was asked for by SHA-256 has it.
    if digest.starts_with("sha256:") && oci::sha256(bytes) != digest {
        return Err(
            RegistryError::Damaged(io::Error::other(format!("a manifest is not `{digest}`")).to_string()).into()
        );
    }
    Ok(())
}
