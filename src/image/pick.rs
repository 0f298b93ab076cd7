//! From an image to its module: the file its entrypoint names, or the artifact itself.
//!
//! An image's files are unpacked once, into a folder named by the image; that folder is where a guest's root starts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use indexmap::IndexMap;
use thiserror::Error;

use super::content::{Content, ContentError};
use super::export::{self, is_saved};
use super::layers::{ArchiveError, Limits, Target, io_error};
use super::module::Unsuitable;
use super::oci::{self, Document, Form};
use super::plug::PlugError;
use super::prune::use_now;
use super::spin::SpinError;
use super::store::{ModuleError, Store};
use crate::model::{ImageConfig, Module};

/// Longest document of an image that is read.
pub(super) const LONGEST: u64 = 16 << 20;
/// Largest module.
pub(super) const LARGEST: u64 = 1 << 30;

/// What a service has in place of the image's own words.
#[derive(Debug, Clone, Copy, Default)]
pub struct Entry<'e> {
    /// `entrypoint`.
    pub entrypoint: Option<&'e [String]>,
    /// `command`.
    pub command: Option<&'e [String]>,
    /// `environment`, with values for the variables of an application.
    pub environment: Option<&'e IndexMap<String, Option<String>>>,
}

impl Entry<'_> {
    /// What the environment has under a name.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        self.environment?.get(name)?.clone()
    }

    /// The first word of entrypoint and command.
    fn first(&self, config: &ImageConfig) -> Option<String> {
        let entrypoint = self.entrypoint.unwrap_or(&config.entrypoint);
        let image_command: &[String] = if self.entrypoint.is_some() { &[] } else { &config.command };
        entrypoint.first().or_else(|| self.command.unwrap_or(image_command).first()).cloned()
    }
}

/// Why no module comes of an image.
#[derive(Debug, Error)]
pub enum PickError {
    /// The image's parts.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The module's file.
    #[error(transparent)]
    Module(ModuleError),
    /// It is an application that no service can be.
    #[error(transparent)]
    Application(#[from] SpinError),
    /// Other components cannot be joined with it.
    #[error(transparent)]
    Plug(#[from] PlugError),
    /// There is none in it.
    #[error("it holds no WebAssembly module: {0}")]
    None(String),
}

impl From<ArchiveError> for PickError {
    fn from(error: ArchiveError) -> Self {
        Self::Content(error.into())
    }
}

/// Where images are kept, and what becomes of them.
#[derive(Debug, Clone)]
pub struct Picker {
    /// Images by digest.
    pub content: Content,
    /// Modules by digest.
    pub store: Store,
    /// Files of images, a folder each.
    pub images: PathBuf,
}

impl Picker {
    /// The module of a path: a module itself (binary or text), or a saved image.
    pub fn local(&self, reference: &str, path: &Path, entry: Entry<'_>) -> Result<Module, PickError> {
        if is_saved(path) {
            let digest = export::take_in(path, &self.content, Limits::default())?;
            return self.image(reference, &digest, entry);
        }
        self.store.local(reference, path, None).map_err(PickError::Module)
    }

    /// The module of an image in the content store, by the digest of its manifest.
    pub fn image(&self, reference: &str, digest: &str, entry: Entry<'_>) -> Result<Module, PickError> {
        let malformed = |why: String| ArchiveError::Malformed { path: digest.into(), why };
        let manifest = Document::read(&self.content.read(digest, LONGEST)?).map_err(malformed)?;
        let config = match &manifest.config {
            Some(config) => oci::image_config(&self.content.read(&config.digest, LONGEST)?).map_err(malformed)?,
            None => ImageConfig::default(),
        };
        match manifest.form() {
            Form::Files => {
                let hex = oci::hex(digest).ok_or_else(|| ContentError::NoDigest(digest.to_owned()))?;
                let folder = self.unpacked(hex, |root| {
                    let mut target = Target::new(root, Limits::default());
                    for layer in &manifest.layers {
                        target.apply(self.content.open(&layer.digest)?, Path::new(reference))?;
                    }
                    Ok(())
                })?;
                self.in_folder(reference, folder, config, entry)
            }
            Form::Module(layer) => {
                let bytes = self.content.read(&layer.digest, LARGEST)?;
                let function =
                    entry.first(&config).and_then(|entry| entry.split_once('#').map(|(_, name)| name.to_owned()));
                self.artifact(reference, reference, bytes, function.as_deref(), config)
            }
            Form::Spin => self.locked_spin(reference, digest, &manifest, entry),
            Form::Other => Err(PickError::None("it is neither an image nor a module".into())),
        }
    }

    /// The folder with the files of an image, unpacked by `unpack` if this is the first time.
    pub fn unpacked(
        &self,
        name: &str,
        unpack: impl FnOnce(&Path) -> Result<(), PickError>,
    ) -> Result<PathBuf, PickError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let folder = self.images.join(name);
        if folder.is_dir() {
            use_now(&folder);
            return Ok(folder);
        }
        // Beside the final place and renamed, so that a half-read image is never taken for a whole one.
        let work = self.images.join(format!(".work-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let _ = fs::remove_dir_all(&work);
        fs::create_dir_all(&work).map_err(io_error("creating", &work))?;
        let outcome = unpack(&work).and_then(|()| match fs::rename(&work, &folder) {
            // Another process was as fast.
            Err(error) if !folder.is_dir() => Err(io_error("renaming", &work)(error).into()),
            _ => Ok(()),
        });
        let _ = fs::remove_dir_all(&work);
        outcome.map(|()| folder)
    }

    /// The module that the entrypoint names, in a folder with an image's files.
    pub fn in_folder(
        &self,
        reference: &str,
        folder: PathBuf,
        config: ImageConfig,
        entry: Entry<'_>,
    ) -> Result<Module, PickError> {
        let none = |why: String| PickError::None(why);
        let first = entry.first(&config);
        let names_module = first.as_deref().is_some_and(|first| {
            let file = first.split('#').next().unwrap_or(first);
            file.ends_with(".wasm") || file.ends_with(".wat")
        });
        if !names_module && folder.join("spin.toml").is_file() {
            return self.spin(reference, &folder, config, entry);
        }
        let entry = first.ok_or_else(|| none("it has no entrypoint and no command".into()))?;
        let (file, function) = match entry.split_once('#') {
            Some((file, function)) => (file, Some(function.to_owned())),
            None => (entry.as_str(), None),
        };
        let working_dir = config.working_dir.as_deref().unwrap_or("/");
        let inside = Path::new(working_dir).join(file);
        let path = folder.join(inside.strip_prefix("/").unwrap_or(&inside));
        let Ok(path) = contained(&folder, &path) else {
            return Err(none(format!("its entrypoint `{file}` is not a file in it")));
        };
        let module = self.store.local(reference, &path, function.as_deref());
        let mut module = module.map_err(|error| match error {
            ModuleError::Unsuitable { source: Unsuitable::Plug(error), .. } => error.into(),
            ModuleError::Unsuitable { source, .. } => none(format!("`{file}`: {source}")),
            error @ ModuleError::Io { .. } => PickError::Module(error),
        })?;
        module.root = Some(folder);
        module.config = config;
        Ok(module)
    }

    /// A module that is no file of this machine; `name` is what people call it.
    pub(super) fn artifact(
        &self,
        reference: &str,
        name: &str,
        bytes: Vec<u8>,
        function: Option<&str>,
        config: ImageConfig,
    ) -> Result<Module, PickError> {
        let module = self.store.keep(reference, name, bytes, function);
        let module = module.map_err(|error| match error {
            ModuleError::Unsuitable { source: Unsuitable::Plug(error), .. } => error.into(),
            ModuleError::Unsuitable { source, .. } => PickError::None(source.to_string()),
            error @ ModuleError::Io { .. } => PickError::Module(error),
        })?;
        Ok(Module { config, ..module })
    }
}

/// A file of an image, wherever its links lead, as long as that is in the image.
pub(super) fn contained(folder: &Path, path: &Path) -> io::Result<PathBuf> {
    let (path, root) = (path.canonicalize()?, folder.canonicalize()?);
    if path.starts_with(root) && path.is_file() { Ok(path) } else { Err(io::ErrorKind::NotFound.into()) }
}
