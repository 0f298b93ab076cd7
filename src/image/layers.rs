//! Layers of an image → its files in a folder (OCI image specification, "layer").
//!
//! A layer is untrusted: nothing is written outside the folder, through a link or past a limit; no owner, special
//! permission or device is taken over. What cannot be represented safely (device nodes, pipes, links that lead out) is
//! left out and counted.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::ops::Bound;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;
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

/// Why an archive could not be read or unpacked.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The archive is not what it should be, or damaged.
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

/// How a file is packed, by its first bytes; its name says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    None,
    /// gzip: as engines with the containerd image store keep and export layers, and as registries mostly have them.
    Gzip,
    /// zstd.
    Zstd,
}

/// Looks at what comes next, and takes nothing of it.
pub fn packing(reader: &mut BufReader<impl Read>) -> io::Result<Packing> {
    use std::io::BufRead as _;

    Ok(match reader.fill_buf()? {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
        _ => Packing::None,
    })
}

/// The folder that layers are laid over.
pub struct Target<'a> {
    root: &'a Path,
    limits: Limits,
    done: Unpacked,
}

impl<'a> Target<'a> {
    /// A folder, which must exist and be empty.
    pub fn new(root: &'a Path, limits: Limits) -> Self {
        Self { root, limits, done: Unpacked::default() }
    }

    /// What was written so far.
    pub fn done(&self) -> Unpacked {
        self.done
    }

    /// Lays a layer over what is there: a tar, as it is or packed with gzip or zstd. `archive` is what errors name.
    pub fn apply(&mut self, reader: impl Read, archive: &Path) -> Result<(), ArchiveError> {
        let mut reader = BufReader::new(reader);
        match packing(&mut reader).map_err(io_error("reading", archive))? {
            Packing::Gzip => self.lay(MultiGzDecoder::new(reader), archive),
            Packing::Zstd => {
                let unpacked = StreamingDecoder::new(reader).map_err(|error| ArchiveError::Malformed {
                    path: archive.to_owned(),
                    why: format!("a layer is packed with zstd, and damaged: {error}"),
                })?;
                self.lay(unpacked, archive)
            }
            Packing::None => self.lay(reader, archive),
        }
    }

    fn lay(&mut self, layer: impl Read, archive: &Path) -> Result<(), ArchiveError> {
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
    ) -> Result<(), ArchiveError> {
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

    fn count(&mut self) -> Result<(), ArchiveError> {
        self.done.entries += 1;
        if self.done.entries > self.limits.entries {
            return Err(ArchiveError::TooLarge(format!("{} files", self.limits.entries)));
        }
        Ok(())
    }

    fn write_file(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        full: &Path,
        mode: u32,
    ) -> Result<(), ArchiveError> {
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
            return Err(ArchiveError::TooLarge(format!("{} bytes", self.limits.bytes)));
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
    fn make_folders(&self, folder: &Path) -> Result<(), ArchiveError> {
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
    fn clear(&self, path: &Path) -> Result<(), ArchiveError> {
        let full = self.root.join(path);
        let removed = match fs::symlink_metadata(&full) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&full),
            Ok(_) => fs::remove_file(&full),
            Err(_) => Ok(()),
        };
        removed.map_err(io_error("removing", &full))
    }

    /// Removes everything of a folder that this layer did not write.
    fn empty(&self, folder: &Path, written: &BTreeSet<PathBuf>) -> Result<(), ArchiveError> {
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

fn set_mode(path: &Path, mode: u32) -> Result<(), ArchiveError> {
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

/// Adapter for `map_err`: what was being done, to which file.
pub fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| ArchiveError::Io { what, path, source }
}

/// An archive that cannot be read, and why.
pub fn malformed(path: &Path, error: io::Error) -> ArchiveError {
    ArchiveError::Malformed { path: path.to_owned(), why: error.to_string() }
}
