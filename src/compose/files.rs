//! Where the loader reads: the disk, or a table in memory for tests. Nothing else of the loader touches a file.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use super::limits;
use super::remote::Remote;

/// Reads files for the loader.
pub trait Files {
    /// The text of a file.
    fn read(&self, path: &Path) -> io::Result<String>;
    /// What is at a path, links followed.
    fn kind(&self, path: &Path) -> Option<Kind>;
    /// The path without symbolic links; the path itself where that cannot be told.
    fn real(&self, path: &Path) -> PathBuf;
    /// What is known of a remote file. The loader fetches nothing.
    fn remote(&self, remote: &Remote) -> RemoteState;
}

/// What is known of a remote file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteState {
    /// It was fetched.
    Present(Fetched),
    /// It could not be fetched: why, and what to do.
    Failed(String, String),
    /// Nobody tried to fetch it.
    Unknown,
}

/// The local copy of a remote file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The compose file.
    pub file: PathBuf,
    /// The folder that was fetched, with the file in or below it.
    pub root: PathBuf,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file, or something that reads as one.
    File,
    /// A directory.
    Directory,
}

/// The file system; it has no remote files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<String> {
        text(std::fs::File::open(path)?)
    }

    fn kind(&self, path: &Path) -> Option<Kind> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(if metadata.is_dir() { Kind::Directory } else { Kind::File })
    }

    fn real(&self, path: &Path) -> PathBuf {
        std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
    }

    fn remote(&self, _: &Remote) -> RemoteState {
        RemoteState::Unknown
    }
}

/// All of a text, no longer than a file may be.
///
/// # Errors
///
/// `FileTooLarge` beyond the limit, `InvalidData` for what is not UTF-8, and those of the reader.
pub fn text(reader: impl io::Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    let most = u64::try_from(limits::FILE_BYTES).unwrap_or(u64::MAX);
    reader.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limits::FILE_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Files by their absolute path.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    files: BTreeMap<PathBuf, String>,
    remotes: BTreeMap<Remote, RemoteState>,
}

impl Memory {
    /// Files with their texts.
    pub fn new<P: Into<PathBuf>, T: Into<String>>(files: impl IntoIterator<Item = (P, T)>) -> Self {
        let files = files.into_iter().map(|(path, text)| (path.into(), text.into())).collect();
        Self { files, remotes: BTreeMap::new() }
    }

    /// The same with what is known of remote files.
    pub fn remotes(mut self, remotes: impl IntoIterator<Item = (Remote, RemoteState)>) -> Self {
        self.remotes.extend(remotes);
        self
    }
}

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<String> {
        match self.kind(path) {
            Some(Kind::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            _ => self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into()),
        }
    }

    fn kind(&self, path: &Path) -> Option<Kind> {
        if self.files.contains_key(path) {
            return Some(Kind::File);
        }
        self.files.keys().any(|file| file.starts_with(path)).then_some(Kind::Directory)
    }

    fn real(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    fn remote(&self, remote: &Remote) -> RemoteState {
        self.remotes.get(remote).cloned().unwrap_or(RemoteState::Unknown)
    }
}

/// `base` joined with `path`, without `.` and `..`, as Go's `filepath.Join` has it.
pub fn join(base: &Path, path: impl AsRef<Path>) -> PathBuf {
    let mut joined = PathBuf::new();
    for component in base.join(path.as_ref()).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(joined.components().next_back(), Some(Component::Normal(_))) => {
                joined.pop();
            }
            Component::ParentDir if joined.has_root() => {}
            component => joined.push(component),
        }
    }
    joined
}
