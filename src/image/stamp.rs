//! How a file was when it was looked at.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What tells one content of a file from the next one.
///
/// It leaves out what changes without the content: the time of change with each link to the file, the inode at will on some
/// file systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl Stamp {
    /// Of what a path leads to now; nothing when it cannot be asked.
    pub fn of(path: &Path) -> Option<Self> {
        Some((&fs::metadata(path).ok()?).into())
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self { size: metadata.size(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}
