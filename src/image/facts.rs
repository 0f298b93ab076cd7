//! What earlier starts found out about module files, so that a large one is not read and hashed again at each start:
//! `<data>/facts/<key>.json`, one for each path and export.
//!
//! A fact holds as long as the file's [`State`] is the same. As with git's index, a file that was changed in the very moment it was
//! looked at could change again without its state showing it; of such a file nothing is kept. Facts save time and nothing
//! else: one that cannot be read or written is no error.

use std::fs::{self, Metadata};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::stamp::Stamp;
use super::whole;
use crate::model::ModuleKind;

/// Of what a fact says; another version of this program may see more in a module.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "-1");
/// A change within this time of another may leave the same time stamp: the coarsest of common file systems.
const GRAIN: Duration = Duration::from_secs(2);

/// What tells one state of a file from any other, as nobody can bring one back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    stamp: Stamp,
    device: u64,
    inode: u64,
    /// Seconds and nanoseconds; of anything about it, and it cannot be set.
    changed: (i64, i64),
}

impl State {
    /// Of a file as it is now; nothing when it cannot be asked or changed only just now.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let now = Self::from(&metadata);
        let (seconds, nanoseconds) = now.changed;
        let since =
            SystemTime::UNIX_EPOCH + Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?);
        (metadata.is_file() && since.elapsed().ok()? > GRAIN).then_some(now)
    }
}

impl From<&Metadata> for State {
    fn from(metadata: &Metadata) -> Self {
        Self {
            stamp: metadata.into(),
            device: metadata.dev(),
            inode: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What is known of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// SHA-256 of its bytes, 64 hex digits.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// How it runs.
    pub kind: ModuleKind,
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: String,
    path: PathBuf,
    state: State,
    fact: Fact,
}

/// The folder of facts.
#[derive(Debug, Clone)]
pub struct Facts(PathBuf);

impl Facts {
    /// In this folder; it is made before something is kept.
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Where facts are.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// What is known of a file in this state.
    pub fn recall(&self, path: &Path, function: Option<&str>, state: &State) -> Option<Fact> {
        let record = read(&self.path(path, function))?;
        (record.state == *state).then_some(record.fact)
    }

    /// Keeps what was found out about a file that was in this state before it was read; not when it is in another one since.
    pub fn keep(&self, path: &Path, function: Option<&str>, state: State, fact: Fact) {
        if State::of(path).as_ref() != Some(&state) {
            return;
        }
        let at = self.path(path, function);
        let Ok(text) = serde_json::to_vec(&Record { version: VERSION.to_owned(), path: path.to_owned(), state, fact })
        else {
            return;
        };
        let write = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
            whole::write(&at, &text)
        };
        // Without it, the module is read again.
        let _ = write();
    }

    fn path(&self, path: &Path, function: Option<&str>) -> PathBuf {
        let mut key = Sha256::new();
        key.update(path.as_os_str().as_encoded_bytes());
        key.update([0]);
        key.update(function.unwrap_or_default());
        self.0.join(format!("{:.32}.json", format!("{:x}", key.finalize())))
    }
}

/// Whether what a file of the folder says can still be made use of: the module is there, in the state it was in.
pub fn holds(path: &Path) -> bool {
    read(path).is_some_and(|record| State::of(&record.path).as_ref() == Some(&record.state))
}

fn read(path: &Path) -> Option<Record> {
    let record: Record = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (record.version == VERSION).then_some(record)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Timespec, Timestamps, utimensat};

    use super::*;

    fn fact(digest: &str) -> Fact {
        Fact { digest: digest.into(), size: 3, kind: ModuleKind::Core }
    }

    /// The state as if the file had been in it for long: its change time cannot be set.
    fn state(path: &Path) -> State {
        (&fs::metadata(path).unwrap()).into()
    }

    #[test]
    fn what_changed_only_just_now_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (facts, file) = (Facts::new(folder.path().join("facts")), folder.path().join("app.wasm"));
        fs::write(&file, "one").unwrap();
        assert_eq!(State::of(&file), None);
        facts.keep(&file, None, state(&file), fact("a"));
        assert!(!folder.path().join("facts").exists());
        // An old time of modification is no proof of anything.
        let old = Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
        let times = Timestamps { last_access: old, last_modification: old };
        utimensat(rustix::fs::CWD, &file, &times, rustix::fs::AtFlags::empty()).unwrap();
        assert_eq!(State::of(&file), None);
    }

    #[test]
    fn a_fact_holds_for_its_state_path_and_export_alone() {
        let folder = tempfile::tempdir().unwrap();
        let facts = Facts::new(folder.path().join("facts"));
        // A file of the system that nobody changes.
        let file = fs::canonicalize("/bin/sh").unwrap();
        let now = State::of(&file).unwrap();
        assert_eq!(facts.recall(&file, None, &now), None);
        facts.keep(&file, None, now.clone(), fact("a"));
        assert_eq!(facts.recall(&file, None, &now), Some(fact("a")));
        assert_eq!(facts.recall(&file, Some("other"), &now), None);
        assert_eq!(facts.recall(&folder.path().join("other"), None, &now), None);
        let later = State { changed: (now.changed.0, now.changed.1 + 1), ..now };
        assert_eq!(facts.recall(&file, None, &later), None);
        // A torn fact is none.
        let kept = fs::read_dir(folder.path().join("facts")).unwrap().next().unwrap().unwrap().path();
        fs::write(kept, "{").unwrap();
        assert_eq!(facts.recall(&file, None, &State::of(&file).unwrap()), None);
    }
}
