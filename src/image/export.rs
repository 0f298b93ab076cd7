//! Reading an engine's image export (`docker save`): from the tar to the image's files in a folder.
//!
//! Both layouts are read: the one with `manifest.json`, which every engine writes, and the OCI one with `index.json` and `blobs/`.
//! The tar and the layers in it are untrusted: nothing is written outside the folder, through a link or past a limit; no owner,
//! special permission or device is taken over. What cannot be represented safely (device nodes, pipes, links that lead out) is
//! left out and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::ops::Bound;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde_json::Value;
use tar::EntryType;
use thiserror::Error;

/// Bounds on what an image may unpack to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files, folders and links together.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 4 << 30, entries: 200_000 }
    }
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpacked {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files, folders and links written.
    pub entries: u64,
    /// Entries left out because they cannot be represented safely.
    pub left_out: u64,
}

/// Why an export could not be unpacked.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The archive is not an image export, or one that is damaged.
    #[error("{path} is not an image export: {why}")]
    Malformed {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The image is bigger than allowed.
    #[error("the image holds more than {0}")]
    TooLarge(String),
    /// A layer is packed in a way that is not known here.
    #[error("layer {layer} is packed with {packing}, which is not supported")]
    Packing {
        /// The layer's name in the archive.
        layer: String,
        /// How it is packed.
        packing: &'static str,
    },
    /// Reading or writing failed.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Unpacks the files of the (first) image in `archive` into `folder`, which must exist and be empty.
pub fn unpack(archive: &Path, folder: &Path, limits: Limits) -> Result<Unpacked, ExportError> {
    let file = File::open(archive).map_err(io_error("opening", archive))?;
    let mut export = Export { path: archive, file, entries: BTreeMap::new() };
    export.list()?;
    let layers = export.layers()?;
    let mut target = Target { root: folder, limits, done: Unpacked::default() };
    for layer in layers {
        let reader = export.open(&layer)?;
        target.apply(&layer, reader, archive)?;
    }
    Ok(target.done)
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ExportError {
    let path = path.to_owned();
    move |source| ExportError::Io { what, path, source }
}

/// The outer archive: where each entry lies, so that layers are read in place, whatever their order.
struct Export<'a> {
    path: &'a Path,
    file: File,
    entries: BTreeMap<String, Place>,
}

enum Place {
    /// Offset and size.
    At(u64, u64),
    /// Another entry's content: older engines link equal layers.
    Same(String),
}

impl Export<'_> {
    fn list(&mut self) -> Result<(), ExportError> {
        let mut archive = tar::Archive::new(BufReader::new(&self.file));
        let entries = archive.entries_with_seek().map_err(|error| malformed(self.path, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| malformed(self.path, error))?;
            let Some(name) = entry.path().ok().and_then(|path| plain(&path)) else { continue };
            let place = match entry.header().entry_type() {
                kind if kind.is_file() => Place::At(entry.raw_file_position(), entry.size()),
                EntryType::Symlink | EntryType::Link => {
                    let Ok(Some(link)) = entry.link_name() else { continue };
                    let relative = entry.header().entry_type() == EntryType::Symlink;
                    let base = Path::new(&name).parent().filter(|_| relative).unwrap_or(Path::new(""));
                    let Some(target) = plain(&base.join(link)) else { continue };
                    Place::Same(target)
                }
                _ => continue,
            };
            self.entries.insert(name, place);
        }
        Ok(())
    }

    /// Names of the layers, lowest first.
    fn layers(&mut self) -> Result<Vec<String>, ExportError> {
        if self.entries.contains_key("manifest.json") {
            let manifest = self.json("manifest.json")?;
            let layers = manifest.pointer("/0/Layers").and_then(Value::as_array);
            let layers = layers.ok_or_else(|| self.malformed("its manifest names no layers"))?;
            return Ok(layers.iter().filter_map(Value::as_str).map(str::to_owned).collect());
        }
        if !self.entries.contains_key("index.json") {
            return Err(self.malformed("there is no manifest.json and no index.json in it"));
        }
        let mut document = self.json("index.json")?;
        // An index may lead to further indexes; an image has a manifest at the end.
        for _ in 0..4 {
            if let Some(layers) = document.get("layers").and_then(Value::as_array) {
                return layers.iter().map(|layer| self.blob(layer)).collect();
            }
            let manifests = document.get("manifests").and_then(Value::as_array);
            let first = manifests
                .into_iter()
                .flatten()
                .find(|entry| entry.pointer("/platform/os").and_then(Value::as_str) != Some("unknown"));
            let first = first.ok_or_else(|| self.malformed("its index names no manifest"))?;
            let blob = self.blob(first)?;
            document = self.json(&blob)?;
        }
        Err(self.malformed("its indexes are nested too deeply"))
    }

    fn blob(&self, descriptor: &Value) -> Result<String, ExportError> {
        let digest = descriptor.get("digest").and_then(Value::as_str).and_then(|digest| digest.split_once(':'));
        let (algorithm, hex) = digest.ok_or_else(|| self.malformed("a descriptor has no digest"))?;
        Ok(format!("blobs/{algorithm}/{hex}"))
    }

    fn json(&mut self, name: &str) -> Result<Value, ExportError> {
        const LONGEST: u64 = 16 << 20;
        let mut text = Vec::new();
        let reader = self.open(name)?;
        reader.take(LONGEST).read_to_end(&mut text).map_err(io_error("reading", self.path))?;
        serde_json::from_slice(&text).map_err(|error| self.malformed(format!("{name}: {error}")))
    }

    fn open(&mut self, name: &str) -> Result<io::Take<&mut File>, ExportError> {
        let mut current = name.trim_start_matches("./");
        // A link leads to a file in one step; a chain of them is not something engines write.
        for _ in 0..8 {
            match self.entries.get(current) {
                Some(Place::At(offset, size)) => {
                    let (offset, size) = (*offset, *size);
                    self.file.seek(SeekFrom::Start(offset)).map_err(io_error("reading", self.path))?;
                    return Ok(Read::by_ref(&mut self.file).take(size));
                }
                Some(Place::Same(target)) => current = target,
                None => break,
            }
        }
        Err(self.malformed(format!("it lacks {name}")))
    }

    fn malformed(&self, why: impl Into<String>) -> ExportError {
        ExportError::Malformed { path: self.path.to_owned(), why: why.into() }
    }
}

fn malformed(path: &Path, error: io::Error) -> ExportError {
    ExportError::Malformed { path: path.to_owned(), why: error.to_string() }
}

/// A path without tricks: relative, no `..`; nothing otherwise.
fn plain(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// The folder that layers are laid over.
struct Target<'a> {
    root: &'a Path,
    limits: Limits,
    done: Unpacked,
}

impl Target<'_> {
    fn apply(&mut self, layer: &str, mut reader: impl Read + Seek, archive: &Path) -> Result<(), ExportError> {
        let mut magic = [0; 4];
        let count = reader.read(&mut magic).map_err(io_error("reading", archive))?;
        reader.seek(SeekFrom::Start(0)).map_err(io_error("reading", archive))?;
        match &magic[..count] {
            // As engines with the containerd image store keep and export them.
            [0x1f, 0x8b, ..] => self.lay(MultiGzDecoder::new(BufReader::new(reader)), archive),
            [0x28, 0xb5, 0x2f, 0xfd] => Err(ExportError::Packing { layer: layer.to_owned(), packing: "zstd" }),
            _ => self.lay(BufReader::new(reader), archive),
        }
    }

    fn lay(&mut self, layer: impl Read, archive: &Path) -> Result<(), ExportError> {
        // What the limits allow, with its headers: a small file can unpack to an endless one.
        let longest = self.limits.bytes.saturating_add(self.limits.entries.saturating_mul(4096));
        let mut entries = tar::Archive::new(layer.take(longest));
        // What this layer itself wrote: its opaque folders hide only what lower layers brought.
        let mut written = BTreeSet::new();
        for entry in entries.entries().map_err(|error| malformed(archive, error))? {
            let mut entry = entry.map_err(|error| malformed(archive, error))?;
            let path = entry.path().map(|path| path.into_owned()).map_err(|error| malformed(archive, error))?;
            let Some(path) = within(&path) else {
                self.done.left_out += 1;
                continue;
            };
            if path.as_os_str().is_empty() {
                continue;
            }
            self.place(&mut entry, &path, &mut written)?;
        }
        Ok(())
    }

    fn place(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        path: &Path,
        written: &mut BTreeSet<PathBuf>,
    ) -> Result<(), ExportError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let folder = path.parent().unwrap_or(Path::new(""));
        // A folder reached through a link of the image might be anywhere.
        if !self.is_real_folder(folder) {
            self.done.left_out += 1;
            return Ok(());
        }
        if name == ".wh..wh..opq" {
            return self.empty(folder, written);
        }
        if let Some(hidden) = name.strip_prefix(".wh.") {
            return match hidden {
                "" | "." | ".." => Ok(()),
                _ => self.clear(&folder.join(hidden)),
            };
        }
        let full = self.root.join(path);
        let kind = entry.header().entry_type();
        let mode = entry.header().mode().unwrap_or(0o644);
        match kind {
            EntryType::Directory => {
                self.count()?;
                self.make_folders(path)?;
                set_mode(&full, (mode & 0o777) | 0o700)?;
            }
            EntryType::Regular | EntryType::Continuous => {
                self.count()?;
                self.make_folders(folder)?;
                self.clear(path)?;
                self.write_file(entry, &full, mode)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name().ok().flatten().map(|target| target.into_owned());
                let Some(target) = target.and_then(|target| contained(folder, &target)) else {
                    self.done.left_out += 1;
                    return Ok(());
                };
                self.count()?;
                self.make_folders(folder)?;
                self.clear(path)?;
                symlink(target, &full).map_err(io_error("linking", &full))?;
            }
            EntryType::Link => {
                let target = entry.link_name().ok().flatten().and_then(|target| within(&target));
                let Some(target) = target.filter(|target| self.is_real_file(target)) else {
                    self.done.left_out += 1;
                    return Ok(());
                };
                self.count()?;
                self.make_folders(folder)?;
                if target != path {
                    self.clear(path)?;
                    fs::hard_link(self.root.join(target), &full).map_err(io_error("linking", &full))?;
                }
            }
            _ => {
                self.done.left_out += 1;
                return Ok(());
            }
        }
        written.insert(path.to_owned());
        Ok(())
    }

    fn count(&mut self) -> Result<(), ExportError> {
        self.done.entries += 1;
        if self.done.entries > self.limits.entries {
            return Err(ExportError::TooLarge(format!("{} files", self.limits.entries)));
        }
        Ok(())
    }

    fn write_file(&mut self, entry: &mut tar::Entry<'_, impl Read>, full: &Path, mode: u32) -> Result<(), ExportError> {
        let left = self.limits.bytes - self.done.bytes;
        // Neither through a link nor over something that is there: the way was checked and cleared just before.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode((mode & 0o777) | 0o600)
            .open(full)
            .map_err(io_error("creating", full))?;
        let copied = io::copy(&mut entry.take(left.saturating_add(1)), &mut file).map_err(io_error("writing", full))?;
        if copied > left {
            return Err(ExportError::TooLarge(format!("{} bytes", self.limits.bytes)));
        }
        self.done.bytes += copied;
        file.flush().map_err(io_error("writing", full))
    }

    /// Whether each part of the path is a folder, or nothing yet; no link among them.
    fn is_real_folder(&self, folder: &Path) -> bool {
        let mut full = self.root.to_owned();
        for part in folder.components() {
            full.push(part);
            match fs::symlink_metadata(&full) {
                Ok(found) if found.is_dir() => {}
                // A file in the way gives way; a link does not.
                Ok(found) if found.is_symlink() => return false,
                Ok(_) | Err(_) => return true,
            }
        }
        true
    }

    fn is_real_file(&self, path: &Path) -> bool {
        self.is_real_folder(path.parent().unwrap_or(Path::new("")))
            && fs::symlink_metadata(self.root.join(path)).is_ok_and(|found| found.is_file())
    }

    /// Makes the folders of a path; whatever else stands in the way is removed.
    fn make_folders(&self, folder: &Path) -> Result<(), ExportError> {
        let mut full = self.root.to_owned();
        for part in folder.components() {
            full.push(part);
            match fs::symlink_metadata(&full) {
                Ok(found) if found.is_dir() => continue,
                Ok(_) => fs::remove_file(&full).map_err(io_error("replacing", &full))?,
                Err(_) => {}
            }
            fs::create_dir(&full).map_err(io_error("creating", &full))?;
        }
        Ok(())
    }

    /// Removes what lower layers (or this one) put there.
    fn clear(&self, path: &Path) -> Result<(), ExportError> {
        let full = self.root.join(path);
        let removed = match fs::symlink_metadata(&full) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&full),
            Ok(_) => fs::remove_file(&full),
            Err(_) => Ok(()),
        };
        removed.map_err(io_error("removing", &full))
    }

    /// Removes everything of a folder that this layer did not write.
    fn empty(&self, folder: &Path, written: &BTreeSet<PathBuf>) -> Result<(), ExportError> {
        let full = self.root.join(folder);
        let Ok(entries) = fs::read_dir(&full) else { return Ok(()) };
        for entry in entries {
            let name = entry.map_err(io_error("reading", &full))?.file_name();
            let path = folder.join(name);
            // Paths are ordered by component, so what lies below a path follows it.
            let next = written.range::<Path, _>((Bound::Included(path.as_path()), Bound::Unbounded)).next();
            if !next.is_some_and(|known| known.starts_with(&path)) {
                self.clear(&path)?;
            } else if !written.contains(&path)
                || fs::symlink_metadata(self.root.join(&path)).is_ok_and(|it| it.is_dir())
            {
                self.empty(&path, written)?;
            }
        }
        Ok(())
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), ExportError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io_error("changing", path))
}

/// The path below the root; nothing when a `..` is in it.
fn within(path: &Path) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => inside.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(inside)
}

/// The target a link in `folder` gets, so that it leads to a place below the root whatever lies on the way; nothing where that
/// cannot be known. An absolute one means the image's root and is made relative.
///
/// `..` is taken only at the front: there it counts real folders, whose number is known. Further on it would count from
/// wherever another link leads. Every link written keeps this rule, so following several stays below the root as well.
fn contained(folder: &Path, target: &Path) -> Option<PathBuf> {
    let depth = folder.components().count();
    let (mut up, mut down) = (if target.is_absolute() { depth } else { 0 }, PathBuf::new());
    for component in target.components() {
        match component {
            Component::Normal(part) => down.push(part),
            Component::CurDir | Component::RootDir => {}
            // The parent of the root is the root itself.
            Component::ParentDir if down.as_os_str().is_empty() && target.is_absolute() => {}
            Component::ParentDir if down.as_os_str().is_empty() && up < depth => up += 1,
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    let mut contained: PathBuf = std::iter::repeat_n(Component::ParentDir, up).collect();
    contained.push(down);
    Some(if contained.as_os_str().is_empty() { PathBuf::from(".") } else { contained })
}

#[cfg(test)]
mod tests;
