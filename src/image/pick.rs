//! From an image to its module: the file its entrypoint names, or the artifact itself.
//!
//! An image's files are unpacked once, into a folder named by the image; that folder is where a guest's root starts.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use super::content::{Content, ContentError};
use super::export::{self, is_saved};
use super::layers::{ArchiveError, Limits, Target, io_error};
use super::oci::{self, Document, Form};
use super::spin;
use super::store::{ModuleError, Store};
use crate::model::{ImageConfig, Module, ModuleKind};

/// Longest document of an image that is read.
const LONGEST: u64 = 16 << 20;
/// Largest module.
const LARGEST: u64 = 1 << 30;

/// What a service has in place of the image's own words.
#[derive(Debug, Clone, Copy, Default)]
pub struct Entry<'e> {
    /// `entrypoint`.
    pub entrypoint: Option<&'e [String]>,
    /// `command`.
    pub command: Option<&'e [String]>,
}

impl Entry<'_> {
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
                self.artifact(reference, &bytes, function.as_deref(), config)
            }
            Form::Spin => self.locked_spin(reference, digest, &manifest),
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
            return self.spin(reference, &folder, config);
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
            ModuleError::Unsuitable { source, .. } => none(format!("`{file}`: {source}")),
            error @ ModuleError::Io { .. } => PickError::Module(error),
        })?;
        module.root = Some(folder);
        module.config = config;
        Ok(module)
    }

    /// The one component of a Spin application on scratch.
    fn spin(&self, reference: &str, folder: &Path, config: ImageConfig) -> Result<Module, PickError> {
        let path = folder.join("spin.toml");
        let text = contained(folder, &path).and_then(fs::read_to_string).map_err(io_error("reading", &path))?;
        let app = spin::manifest(&text).map_err(|error| PickError::None(error.to_string()))?;
        let inside = |file: &str| contained(folder, &folder.join(file.trim_start_matches('/')));
        let Ok(source) = inside(&app.source) else {
            return Err(PickError::None(format!("`{}` of its `spin.toml` is not a file in it", app.source)));
        };
        let bytes = fs::read(&source).map_err(io_error("reading", &source))?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let root = self.unpacked(&format!("{name}-spin"), |root| {
            for file in &app.files {
                let from = folder.join(file.source.trim_start_matches('/'));
                copy(folder, &from, &below(root, &file.target)?, 0)?;
            }
            Ok(())
        })?;
        self.component(reference, &bytes, app, config, root)
    }

    /// The one component of a Spin application that a registry holds in Spin's own form.
    fn locked_spin(&self, reference: &str, digest: &str, manifest: &Document) -> Result<Module, PickError> {
        let config = manifest.config.as_ref().map(|config| self.content.read(&config.digest, LONGEST)).transpose()?;
        let app = spin::locked(&config.unwrap_or_default()).map_err(|error| PickError::None(error.to_string()))?;
        let bytes = self.content.read(&app.source, LARGEST)?;
        let hex = oci::hex(digest).ok_or_else(|| ContentError::NoDigest(digest.to_owned()))?;
        let root = self.unpacked(&format!("{hex}-spin"), |root| {
            for file in &app.files {
                let target = below(root, &file.target)?;
                let layer = manifest.layers.iter().find(|layer| layer.digest == file.source);
                if layer.is_some_and(|layer| layer.media_type.contains(".tar")) {
                    fs::create_dir_all(&target).map_err(io_error("creating", &target))?;
                    let mut files = Target::new(&target, Limits::default());
                    files.apply(self.content.open(&file.source)?, Path::new(reference))?;
                    continue;
                }
                let content = match &file.inline {
                    Some(text) => super::credentials::base64(text)
                        .ok_or_else(|| PickError::None(format!("its file `{}` is damaged", file.target)))?,
                    None => self.content.read(&file.source, LARGEST)?,
                };
                let folder = target.parent().unwrap_or(root);
                fs::create_dir_all(folder).map_err(io_error("creating", folder))?;
                fs::write(&target, content).map_err(io_error("writing", &target))?;
            }
            Ok(())
        })?;
        self.component(reference, &bytes, app, ImageConfig { platform: "wasi/wasm".into(), ..Default::default() }, root)
    }

    fn component(
        &self,
        reference: &str,
        bytes: &[u8],
        app: spin::App,
        config: ImageConfig,
        root: PathBuf,
    ) -> Result<Module, PickError> {
        let named = |why: String| PickError::None(format!("`{}` of the Spin application: {why}", app.component));
        let module = self.artifact(reference, bytes, None, config).map_err(|error| match error {
            PickError::None(why) => named(why),
            other => other,
        })?;
        if !matches!(module.kind, ModuleKind::Http | ModuleKind::AsyncHttp) {
            return Err(named(format!("it is a {}, not a wasi:http component", module.kind.as_str())));
        }
        let mut module = Module { root: Some(root), ..module };
        // `/spin.toml` names no module, and is no argument.
        (module.config.entrypoint, module.config.command) = (Vec::new(), Vec::new());
        module.config.environment.extend(app.environment);
        (module.config.egress, module.config.settings) = (app.egress, app.settings);
        Ok(module)
    }

    /// A module that is no file of an image.
    fn artifact(
        &self,
        reference: &str,
        bytes: &[u8],
        function: Option<&str>,
        config: ImageConfig,
    ) -> Result<Module, PickError> {
        let kind = super::module::inspect(bytes, function).map_err(|error| PickError::None(error.to_string()))?;
        let digest = super::store::digest(bytes);
        let path = self.store.put(bytes, &digest).map_err(PickError::Module)?;
        Ok(Module {
            reference: reference.to_owned(),
            path,
            digest,
            size: bytes.len() as u64,
            kind,
            function: function.map(str::to_owned),
            root: None,
            config,
        })
    }
}

/// A file of an image, wherever its links lead, as long as that is in the image.
fn contained(folder: &Path, path: &Path) -> io::Result<PathBuf> {
    let (path, root) = (path.canonicalize()?, folder.canonicalize()?);
    if path.starts_with(root) && path.is_file() { Ok(path) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// A place below a folder that is named from outside.
fn below(root: &Path, target: &str) -> Result<PathBuf, PickError> {
    let mut path = root.to_owned();
    for part in Path::new(target).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(PickError::None(format!("it puts a file outside of its root: `{target}`")));
            }
        }
    }
    Ok(path)
}

/// Copies a file of an image, or a folder with all that is in it; links that stay in the image are followed.
fn copy(image: &Path, from: &Path, to: &Path, depth: usize) -> Result<(), PickError> {
    /// No image has folders that deep; a link that leads back up would make some.
    const DEEPEST: usize = 64;

    let real = from.canonicalize().map_err(io_error("reading", from))?;
    let root = image.canonicalize().map_err(io_error("reading", image))?;
    if !real.starts_with(root) || depth > DEEPEST {
        return Err(PickError::None(format!("`{}` leads out of it", from.display())));
    }
    if real.is_dir() {
        fs::create_dir_all(to).map_err(io_error("creating", to))?;
        for entry in fs::read_dir(&real).map_err(io_error("reading", &real))? {
            let entry = entry.map_err(io_error("reading", &real))?;
            copy(image, &entry.path(), &to.join(entry.file_name()), depth + 1)?;
        }
        return Ok(());
    }
    let folder = to.parent().unwrap_or(to);
    fs::create_dir_all(folder).map_err(io_error("creating", folder))?;
    fs::copy(&real, to).map(drop).map_err(io_error("copying", &real))?;
    Ok(())
}
