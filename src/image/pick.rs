//! From an image to its module: the file its entrypoint names, or the artifact itself.
//!
//! An image's files are unpacked once, into a folder named by the image; that folder is where a guest's root starts.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
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
use super::whole;
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
        module.files = Some(self.others(&folder, Some(&path))?);
        module.root = Some(folder);
        module.config = config;
        Ok(module)
    }

    /// SHA-256 over the files of an image but this one: names, kinds, modes, contents. They are read once.
    fn others(&self, folder: &Path, module: Option<&Path>) -> Result<String, PickError> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let path = self.images.join(format!("{name}.files"));
        let list = match fs::read_to_string(&path) {
            Ok(list) => list,
            Err(_) => {
                let mut lines = Vec::new();
                list_files(folder, Path::new(""), &mut lines).map_err(io_error("reading", folder))?;
                let list = lines.concat();
                whole::write(&path, list.as_bytes()).map_err(io_error("writing", &path))?;
                list
            }
        };
        let root = folder.canonicalize().map_err(io_error("reading", folder))?;
        let own = module.and_then(|module| module.strip_prefix(root).ok()).map(shown);
        let of_others = |line: &&str| own.as_ref().is_none_or(|own| line.split(' ').next() != Some(own));
        let others: Vec<&str> = list.lines().filter(of_others).collect();
        Ok(super::store::digest(others.join("\n").as_bytes()))
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

/// A path without blanks and line ends, the same for no two.
fn shown(path: &Path) -> String {
    path.as_os_str().as_encoded_bytes().escape_ascii().to_string().replace(' ', "\\x20")
}

/// A line for each file below a folder, in the order of names: path, mode, and what is in it.
fn list_files(root: &Path, inside: &Path, lines: &mut Vec<String>) -> io::Result<()> {
    let mut entries = fs::read_dir(root.join(inside))?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, metadata) = (inside.join(entry.file_name()), entry.metadata()?);
        let content = if metadata.is_dir() {
            "folder".to_owned()
        } else if metadata.is_symlink() {
            format!("link {}", shown(&fs::read_link(entry.path())?))
        } else if metadata.is_file() {
            super::store::digest(&fs::read(entry.path())?)
        } else {
            continue;
        };
        let mode = metadata.permissions().mode();
        lines.push(format!("{} {mode:o} {content}\n", shown(&path)));
        if metadata.is_dir() {
            list_files(root, &path, lines)?;
        }
    }
    Ok(())
}

/// A file of an image, wherever its links lead, as long as that is in the image.
pub(super) fn contained(folder: &Path, path: &Path) -> io::Result<PathBuf> {
    let (path, root) = (path.canonicalize()?, folder.canonicalize()?);
    if path.starts_with(root) && path.is_file() { Ok(path) } else { Err(io::ErrorKind::NotFound.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_files_of_an_image_are_known_by_their_content() {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("images");
        let picker =
            Picker { content: Content::new(folder.path()), store: Store::new(folder.path()), images: images.clone() };
        let pick = |name: &str, module: &str, note: &str| {
            let root = images.join(name);
            fs::create_dir_all(root.join("data")).unwrap();
            fs::write(root.join("app.wasm"), wat::parse_str(module).unwrap()).unwrap();
            fs::write(root.join("data/a note"), note).unwrap();
            let config = ImageConfig { entrypoint: vec!["/app.wasm".into()], ..ImageConfig::default() };
            let module = picker.in_folder("x", root, config, Entry::default()).unwrap();
            (module.digest, module.files.unwrap())
        };
        let one = pick("1", "(module (func (export \"_start\")))", "same");
        let other_module = pick("2", "(module (func (export \"_start\") nop))", "same");
        let other_note = pick("3", "(module (func (export \"_start\")))", "changed");
        assert!(one.0 != other_module.0 && one.1 == other_module.1);
        assert!(one.0 == other_note.0 && one.1 != other_note.1);
        assert_eq!(
            pick("1", "(module (func (export \"_start\")))", "same"),
            one,
            "what was read once is not read again"
        );
    }
}
