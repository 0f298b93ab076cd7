//! Where fetched files are kept: a folder by the digest of its content, put there whole or not at all.
//!
//! Entries are made in a folder of their own and renamed, so any number of processes can fetch the same at once. What is
//! there is not looked into again: services may have written beside the files.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context as _;

use super::super::outcome::Failure;
use super::Refusal;

/// Most files and folders of an entry.
const MOST_FILES: usize = 200_000;

/// Most bytes of an entry.
const MOST_BYTES: u64 = 1 << 30;

/// The cache.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache in a private folder. What processes left that died on the way is removed.
    pub fn open(folder: PathBuf) -> Result<Self, Failure> {
        let list = fs::read_dir(&folder).with_context(|| format!("list `{}`", folder.display()))?;
        for entry in list.flatten() {
            if owner(&entry.file_name()).is_some_and(|owner| rustix::process::test_kill_process(owner).is_err()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(Self { folder })
    }

    /// The entry of a digest.
    pub fn entry(&self, kind: &str, digest: &str) -> Option<PathBuf> {
        let path = self.path(kind, digest);
        path.is_dir().then_some(path)
    }

    fn path(&self, kind: &str, digest: &str) -> PathBuf {
        self.folder.join(kind).join(digest)
    }

    /// A place to make an entry in.
    pub fn draft(&self) -> Result<Draft, Refusal> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(format!("new-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let root = folder.join("root");
        for path in [&folder, &root] {
            DirBuilder::new().mode(0o700).create(path).map_err(|error| broken("create", path, &error))?;
        }
        Ok(Draft { cache: self.clone(), folder, root, files: 0, bytes: 0 })
    }
}

/// The process that makes a draft.
fn owner(name: &OsStr) -> Option<rustix::process::Pid> {
    let (pid, _) = name.to_str()?.strip_prefix("new-")?.split_once('-')?;
    rustix::process::Pid::from_raw(pid.parse().ok()?)
}

fn broken(doing: &str, path: &Path, error: &io::Error) -> Refusal {
    Refusal::new(
        format!("{doing} `{}`: {error}", path.display()),
        "set WCOMPOSE_CACHE_DIR to a folder that can be written and has room",
    )
}

/// An entry that is being made; gone when it is dropped.
#[derive(Debug)]
pub(super) struct Draft {
    cache: Cache,
    folder: PathBuf,
    root: PathBuf,
    files: usize,
    bytes: u64,
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Whether a file is a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Plain,
    Executable,
}

impl Draft {
    /// A folder beside the entry, for what is needed to make it.
    pub fn aside(&self) -> PathBuf {
        self.folder.join("aside")
    }

    /// Adds a folder. `path` is one name, or names below folders that were added.
    pub fn folder(&mut self, path: &Path) -> Result<(), Refusal> {
        let place = self.place(path, 0)?;
        DirBuilder::new().create(&place).map_err(|error| broken("create", &place, &error))
    }

    /// Adds a file. One that is there already is an error.
    pub fn file(&mut self, path: &Path, content: &[u8], mode: Mode) -> Result<(), Refusal> {
        let place = self.place(path, content.len() as u64)?;
        let mode = if mode == Mode::Executable { 0o755 } else { 0o644 };
        let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(&place);
        made.and_then(|mut file: File| file.write_all(content)).map_err(|error| broken("write", &place, &error))
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &Path, target: &Path) -> Result<(), Refusal> {
        let place = self.place(path, 0)?;
        std::os::unix::fs::symlink(target, &place).map_err(|error| broken("write", &place, &error))
    }

    fn place(&mut self, path: &Path, bytes: u64) -> Result<PathBuf, Refusal> {
        let last = path.components().next_back();
        let named = matches!(last, Some(Component::Normal(name)) if !name.eq_ignore_ascii_case(".git"));
        if !named || !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(Refusal::new(
                format!(
                    "it holds a file called `{}`, which is outside of it or means something to git",
                    path.display()
                ),
                "do not use it unless you know who made it, and why",
            ));
        }
        self.files += 1;
        self.bytes += bytes;
        if self.files > MOST_FILES || self.bytes > MOST_BYTES {
            return Err(Refusal::new(
                format!("it has more than {MOST_FILES} files or {} MiB", MOST_BYTES >> 20),
                "keep compose files in a smaller place, or fetch them yourself",
            ));
        }
        Ok(self.root.join(path))
    }

    /// Puts the entry in its place, and says where that is. One that somebody else put there meanwhile is as good.
    pub fn keep(self, kind: &str, digest: &str) -> Result<PathBuf, Refusal> {
        links_stay_inside(&self.root)?;
        let path = self.cache.path(kind, digest);
        let above = self.cache.folder.join(kind);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&above);
        made.map_err(|error| broken("create", &above, &error))?;
        match fs::rename(&self.root, &path) {
            Err(error) if !path.is_dir() => Err(broken("create", &path, &error)),
            Ok(()) | Err(_) => Ok(path),
        }
    }
}

/// No link of the folder leads out of it, neither now nor once a missing target is made.
fn links_stay_inside(root: &Path) -> Result<(), Refusal> {
    let real = fs::canonicalize(root).map_err(|error| broken("look at", root, &error))?;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| broken("list", &folder, &error))? {
            let entry = entry.map_err(|error| broken("list", &folder, &error))?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(|error| broken("look at", &folder, &error))?);
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_symlink() && !stays_inside(&path, root, &real) {
                let shown = path.strip_prefix(root).unwrap_or(&path).display();
                return Err(Refusal::new(
                    format!("its `{shown}` is a link that leads out of it"),
                    "take the link out, or fetch the files yourself",
                ));
            }
        }
    }
    Ok(())
}

fn stays_inside(link: &Path, root: &Path, real: &Path) -> bool {
    let Ok(target) = fs::read_link(link) else { return false };
    if target.is_absolute() {
        return false;
    }
    match fs::canonicalize(link) {
        Ok(target) => target.starts_with(real),
        // Nothing is there yet: then the words of the link must not lead out, whatever comes to be there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut depth = link.strip_prefix(root).map_or(0, |inner| inner.components().count()) - 1;
            for part in target.components() {
                match part {
                    Component::ParentDir if depth == 0 => return false,
                    Component::ParentDir => depth -= 1,
                    Component::Normal(_) => depth += 1,
                    Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
                }
            }
            true
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path().to_owned()).map_err(|failure| failure.text()).expect("a cache");
        (folder, cache)
    }

    #[test]
    fn an_entry_is_there_whole_or_not_at_all() {
        let (folder, cache) = cache();
        let mut draft = cache.draft().expect("a draft");
        draft.folder(Path::new("a")).expect("a folder");
        draft.file(Path::new("a/b"), b"text", Mode::Executable).expect("a file");
        draft.link(Path::new("c"), Path::new("a/b")).expect("a link");
        assert_eq!(cache.entry("git", "00"), None);
        let path = draft.keep("git", "00").expect("it is kept");
        assert_eq!(cache.entry("git", "00"), Some(path.clone()));
        assert_eq!(fs::read_to_string(path.join("c")).expect("it is there"), "text");

        let mut again = cache.draft().expect("a draft");
        again.file(Path::new("other"), b"", Mode::Plain).expect("a file");
        assert_eq!(again.keep("git", "00"), Ok(path.clone()));
        assert!(!path.join("other").exists());
        drop(cache.draft().expect("a draft that comes to nothing"));
        let left: Vec<_> =
            fs::read_dir(folder.path()).expect("a list").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["git"]);
    }

    #[test]
    fn nothing_leads_out_of_an_entry() {
        let (_folder, cache) = cache();
        for path in ["../x", "/etc/x", "a/../../x", "..", ".", "", ".git", ".GIT"] {
            let mut draft = cache.draft().expect("a draft");
            assert!(draft.file(Path::new(path), b"", Mode::Plain).is_err(), "{path}");
        }
        for (target, inside) in [
            ("file", true),
            ("../file", true),
            ("missing", true),
            ("../missing", true),
            ("/etc/passwd", false),
            ("../../x", false),
            ("deep/../../..", false),
            ("link", false),
        ] {
            let mut draft = cache.draft().expect("a draft");
            draft.file(Path::new("file"), b"", Mode::Plain).expect("a file");
            draft.folder(Path::new("sub")).expect("a folder");
            draft.folder(Path::new("sub/deep")).expect("a folder");
            draft.file(Path::new("sub/file"), b"", Mode::Plain).expect("a file");
            draft.link(Path::new("sub/link"), Path::new(target)).expect("a link");
            assert_eq!(draft.keep("git", target).is_ok(), inside, "{target}");
        }
        let mut draft = cache.draft().expect("a draft");
        draft.link(Path::new("a"), Path::new("sub")).expect("a link");
        assert!(draft.folder(Path::new("a")).is_err(), "a link is not written through");
    }

    #[test]
    fn what_a_dead_process_left_is_removed() {
        let (folder, cache) = cache();
        let draft = cache.draft().expect("a draft");
        let dead = folder.path().join("new-2147483646-0");
        fs::create_dir(&dead).expect("a folder");
        Cache::open(folder.path().to_owned()).map_err(|failure| failure.text()).expect("a cache");
        assert!(!dead.exists());
        assert!(draft.folder.exists());
    }
}
