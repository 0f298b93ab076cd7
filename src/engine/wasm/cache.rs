//! Code compiled ahead of time, kept in a private folder of the user's cache, shared by all projects.
//!
//! Loading compiled code is running it, so an entry is trusted only if it lies in a folder that this user alone may
//! enter, belongs to this user, is writable by nobody else, and ends with the checksum of its own bytes. It is opened once, and what
//! was checked is what is mapped. Anything else is discarded and compiled again. The checksum is against damage, for which XXH3
//! is as good as a digest and ten times as fast: who can write the file could write its digest as well.
//!
//! Any number of processes use the folder at once, and each may be killed at any moment. Who makes an entry holds the kernel's lock
//! of the file it is written to; others wait for it, and find the entry. The file is synced and renamed, so an entry is there whole
//! or not at all; what a killed process left is locked by nobody, and goes with the next entry that is made. An entry is locked
//! while a process that loaded it lives: growth and `system prune` take those that nobody uses, the least recently used first.
//! Keys are made by `compile.rs`; what the bytes mean is not known here.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, flock, futimens};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::image::prune::Pruning;

/// Length of the checksum at the end of an entry.
const CHECKSUM: usize = 16;
/// Bytes that entries may have together: some fifty components of interpreters (40 MB compiled), or thousands of small ones.
const SIZE: u64 = 2 << 30;
/// How long one process waits for another that makes the same entry; compiling the largest takes half a minute.
const PATIENCE: Duration = Duration::from_secs(120);
/// Entries that stay locked by this process; the oldest is let go first.
const HELD: usize = 256;
/// Ending of entries.
const ENTRY: &str = ".cwasm";
/// Ending of what is being made.
const DRAFT: &str = ".new";

/// The folder of compiled code.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    size: u64,
    /// What this process uses, locked.
    held: Mutex<VecDeque<(String, File)>>,
}

/// An entry that was checked. The descriptor stays open, so that what is mapped is what was checked.
#[derive(Debug)]
pub struct Entry {
    file: File,
}

impl Entry {
    /// A path that leads to the open descriptor, whatever happens to the name it was opened by.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// The right to make an entry. Nobody else makes it meanwhile.
#[derive(Debug)]
pub struct Making<'a> {
    cache: &'a Cache,
    key: String,
    /// Absent where the folder cannot be written, or another process took too long.
    draft: Option<File>,
}

/// What was removed, and what had to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Entries removed.
    pub entries: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Entries that a running process uses.
    pub used: usize,
}

/// An entry as a listing shows it.
#[derive(Debug)]
struct Listed {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl Cache {
    /// The cache in `folder/code`; nothing is made before something is stored.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.join("code"), size: SIZE, held: Mutex::default() }
    }

    /// The entry of a key, if there is one that can be trusted. One that cannot is removed.
    pub fn find(&self, key: &str) -> Option<Entry> {
        let path = self.path(key);
        let file = match open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(_) => {
                self.discard(key);
                return None;
            }
        };
        // Whoever removes it in this very moment takes the name away only.
        let _ = flock(&file, FlockOperation::NonBlockingLockShared);
        match self.check_folder().and_then(|()| check(&file)) {
            Ok(()) => {
                let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
                let same = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
                // Without it, the entry only looks older than it is.
                let _ = futimens(&file, &Timestamps { last_access: now, last_modification: same });
                Some(Entry { file })
            }
            Err(_) => {
                self.discard(key);
                None
            }
        }
    }

    /// Keeps an entry that was loaded locked for as long as this process lives.
    pub fn hold(&self, key: &str, entry: Entry) {
        self.keep(key, entry.file);
    }

    fn keep(&self, key: &str, file: File) {
        let mut held = self.held.lock().expect("no panic while it is held");
        held.retain(|(earlier, _)| earlier != key);
        held.push_back((key.to_owned(), file));
        if held.len() > HELD {
            held.pop_front();
        }
    }

    /// Takes the right to make an entry, waiting while somebody else does: then [`Cache::find`] finds it. Blocks.
    pub fn make(&self, key: &str) -> Making<'_> {
        Making { cache: self, key: key.to_owned(), draft: self.draft(key).ok().flatten() }
    }

    fn draft(&self, key: &str) -> io::Result<Option<File>> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        self.check_folder()?;
        let path = self.folder.join(format!(".{key}{DRAFT}"));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(OFlags::NOFOLLOW.bits() as i32);
        let start = SystemTime::now();
        while start.elapsed().is_ok_and(|waited| waited < PATIENCE) {
            let file = options.open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // The file may have become the entry, or gone, before it was locked.
                Ok(()) if is_at(&file, &path) => return Ok(Some(file)),
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(10)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Removes the entry of a key.
    pub fn discard(&self, key: &str) {
        let _ = fs::remove_file(self.path(key));
    }

    /// Removes entries that no process uses: all of them, or those not used for so long.
    pub fn prune(&self, unused: Option<Duration>, pruning: Pruning) -> io::Result<Pruned> {
        let mut pruned = Pruned::default();
        for entry in self.entries()? {
            let age = entry.used.elapsed().unwrap_or_default();
            if unused.is_none_or(|unused| age >= unused) {
                self.remove(&entry, pruning, &mut pruned);
            }
        }
        self.clear_drafts(pruning, &mut pruned);
        Ok(pruned)
    }

    /// Removes the least recently used entries while all together are too large, and some more: not at each new entry again.
    fn shrink(&self) {
        let Ok(mut entries) = self.entries() else { return };
        let mut total: u64 = entries.iter().map(|entry| entry.bytes).sum();
        if total > self.size {
            entries.sort_by_key(|entry| entry.used);
            for entry in &entries {
                if total <= self.size / 4 * 3 {
                    break;
                }
                let mut pruned = Pruned::default();
                self.remove(entry, Pruning::Done, &mut pruned);
                total -= pruned.bytes;
            }
        }
        self.clear_drafts(Pruning::Done, &mut Pruned::default());
    }

    /// Removes what killed processes left unfinished: a file that nobody has locked.
    fn clear_drafts(&self, pruning: Pruning, pruned: &mut Pruned) {
        for draft in self.list(DRAFT).unwrap_or_default() {
            let Ok(file) = open(&draft.path) else { continue };
            let free = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
            if free && is_at(&file, &draft.path) && (pruning == Pruning::Told || fs::remove_file(&draft.path).is_ok()) {
                pruned.bytes += draft.bytes;
            }
        }
    }

    fn remove(&self, entry: &Listed, pruning: Pruning, pruned: &mut Pruned) {
        let Ok(file) = open(&entry.path) else { return };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            pruned.used += 1;
        } else if pruning == Pruning::Told || fs::remove_file(&entry.path).is_ok() {
            pruned.entries += 1;
            pruned.bytes += entry.bytes;
        }
    }

    fn entries(&self) -> io::Result<Vec<Listed>> {
        self.list(ENTRY)
    }

    fn list(&self, ending: &str) -> io::Result<Vec<Listed>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        self.check_folder()?;
        let mut listed = Vec::new();
        for entry in entries {
            let entry = entry?;
            // One that goes meanwhile is gone.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() && entry.file_name().to_string_lossy().ends_with(ending) {
                let used = metadata.accessed().unwrap_or(SystemTime::UNIX_EPOCH);
                listed.push(Listed { path: entry.path(), bytes: metadata.len(), used });
            }
        }
        Ok(listed)
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}{ENTRY}"))
    }

    fn check_folder(&self) -> io::Result<()> {
        let metadata = fs::symlink_metadata(&self.folder)?;
        if !metadata.is_dir() || metadata.uid() != own_uid() || metadata.mode() & 0o077 != 0 {
            return Err(io::Error::other(format!("`{}` is not a folder of this user alone", self.folder.display())));
        }
        Ok(())
    }
}

impl Making<'_> {
    /// Stores the entry, in place of what is there.
    pub fn store(mut self, code: &[u8]) -> io::Result<()> {
        let Some(mut draft) = self.draft.take() else { return Ok(()) };
        let path = self.draft_path();
        let write = |draft: &mut File| {
            draft.set_len(0)?;
            draft.write_all(code)?;
            draft.write_all(&xxh3_128(code).to_le_bytes())?;
            draft.sync_all()?;
            fs::rename(&path, self.cache.path(&self.key))
        };
        if let Err(error) = write(&mut draft) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        // From maker to user, without a moment in between where nobody has it locked.
        let _ = flock(&draft, FlockOperation::NonBlockingLockShared);
        self.cache.keep(&self.key, draft);
        self.cache.shrink();
        Ok(())
    }

    fn draft_path(&self) -> PathBuf {
        self.cache.folder.join(format!(".{}{DRAFT}", self.key))
    }
}

/// What came to nothing leaves nothing.
impl Drop for Making<'_> {
    fn drop(&mut self) {
        if self.draft.is_some() {
            let _ = fs::remove_file(self.draft_path());
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path)
}

/// Whether a name still leads to an open file.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), fs::symlink_metadata(path)) else { return false };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

/// Checks owner, mode and checksum of an open entry.
fn check(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.uid() != own_uid() || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("not a private file of this user"));
    }
    let Some(mut left) = metadata.len().checked_sub(CHECKSUM as u64) else {
        return Err(io::Error::other("too short"));
    };
    let mut checksum = Xxh3::new();
    let mut reader = file;
    let mut buffer = vec![0; 256 * 1024];
    while left > 0 {
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        reader.read_exact(&mut buffer[..wanted])?;
        checksum.update(&buffer[..wanted]);
        left -= wanted as u64;
    }
    let mut expected = [0; CHECKSUM];
    reader.read_exact(&mut expected)?;
    if checksum.digest128().to_le_bytes() != expected {
        return Err(io::Error::other("its checksum does not match"));
    }
    Ok(())
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}
