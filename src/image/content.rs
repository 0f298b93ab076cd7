//! wcompose's own store of images: blobs by digest (`<data>/content/blobs/sha256/…`), and names that stand for them.
//!
//! What is stored is what its digest says: a blob is hashed while it is written, and again when it is read.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::layers::{ArchiveError, io_error};
use super::oci;
use super::whole::{self, Unnamed};

/// The store of one user.
#[derive(Debug, Clone)]
pub struct Content {
    folder: PathBuf,
}

/// What could not be stored or read.
#[derive(Debug, Error)]
pub enum ContentError {
    /// The store, or an archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Something is not what its digest says.
    #[error("what should be `{digest}` is something else")]
    Damaged {
        /// Which.
        digest: String,
    },
    /// A digest of another kind, or none at all.
    #[error("`{0}` is not a sha256 digest")]
    NoDigest(String),
    /// The store does not have it.
    #[error("`{0}` is not in wcompose's store")]
    Missing(String),
}

/// A name in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The reference, in full.
    pub name: String,
    /// The digest of its manifest.
    pub digest: String,
    /// When it was last fetched.
    pub fetched: SystemTime,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    digest: String,
}

impl Content {
    /// The store in a data folder; nothing is made before something is stored.
    pub fn new(data: &Path) -> Self {
        Self { folder: data.join("content") }
    }

    /// Whether a blob is there.
    pub fn has(&self, digest: &str) -> bool {
        self.path(digest).is_ok_and(|path| path.is_file())
    }

    /// Where a blob is, or would be.
    pub fn path(&self, digest: &str) -> Result<PathBuf, ContentError> {
        let hex = oci::hex(digest).ok_or_else(|| ContentError::NoDigest(digest.to_owned()))?;
        Ok(self.blobs().join(hex))
    }

    /// A blob of at most so many bytes, held against its digest.
    pub fn read(&self, digest: &str, most: u64) -> Result<Vec<u8>, ContentError> {
        let mut bytes = Vec::new();
        let path = self.path(digest)?;
        let count = self.open(digest)?.take(most.saturating_add(1)).read_to_end(&mut bytes);
        if count.map_err(io_error("reading", &path))? as u64 > most {
            return Err(ArchiveError::TooLarge(format!("{most} bytes")).into());
        }
        if oci::sha256(&bytes) != digest {
            return Err(ContentError::Damaged { digest: digest.to_owned() });
        }
        Ok(bytes)
    }

    /// A blob, to be read through. It was held against its digest when it was written.
    pub fn open(&self, digest: &str) -> Result<File, ContentError> {
        let path = self.path(digest)?;
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ContentError::Missing(digest.to_owned())),
            opened => Ok(opened.map_err(io_error("opening", &path))?),
        }
    }

    /// Stores bytes that have this digest.
    pub fn put(&self, digest: &str, bytes: &[u8]) -> Result<(), ContentError> {
        let mut draft = self.draft()?;
        draft.write_all(bytes).map_err(io_error("writing", draft.path()))?;
        draft.keep(digest)
    }

    /// Something to be written and then kept.
    pub fn draft(&self) -> Result<Draft, ContentError> {
        let blobs = self.blobs();
        private(&blobs)?;
        let file = Unnamed::within(&blobs).map_err(io_error("creating a file in", &blobs))?;
        Ok(Draft { content: self.clone(), file, hash: Sha256::new(), size: 0 })
    }

    /// Lets a name stand for a manifest, from now on.
    pub fn name(&self, name: &str, digest: &str) -> Result<(), ContentError> {
        let path = self.entry(name);
        private(&self.folder.join("names"))?;
        let entry = Entry { name: name.to_owned(), digest: digest.to_owned() };
        let text = serde_json::to_vec(&entry).map_err(io::Error::from).map_err(io_error("writing", &path))?;
        Ok(whole::write(&path, &text).map_err(io_error("writing", &path))?)
    }

    /// Lets a name stand for nothing.
    pub fn forget(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.entry(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The folder of the blobs, each named by its digits.
    pub fn blobs(&self) -> PathBuf {
        self.folder.join("blobs/sha256")
    }

    /// What a name stands for, as long as its manifest is there.
    pub fn named(&self, name: &str) -> Option<Named> {
        read_entry(&self.entry(name)).filter(|named| named.name == name && self.has(&named.digest))
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<Named> {
        let entries = fs::read_dir(self.folder.join("names")).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.filter_map(|entry| read_entry(&entry.path())).collect();
        names.sort_by(|a, b| a.name.cmp(&b.name));
        names
    }

    fn entry(&self, name: &str) -> PathBuf {
        self.folder.join("names").join(format!("{:x}.json", Sha256::digest(name)))
    }
}

impl Named {
    /// Whether it was fetched longer ago than this.
    pub fn is_older(&self, age: Duration, now: SystemTime) -> bool {
        now.duration_since(self.fetched).is_ok_and(|since| since > age)
    }
}

fn read_entry(path: &Path) -> Option<Named> {
    if path.extension().is_none_or(|extension| extension != "json") {
        return None;
    }
    let entry: Entry = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let fetched = fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
    Some(Named { name: entry.name, digest: entry.digest, fetched })
}

fn private(folder: &Path) -> Result<(), ContentError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    Ok(made.map_err(io_error("creating", folder))?)
}

/// A blob that is being written; dropped, it leaves nothing.
#[derive(Debug)]
pub struct Draft {
    content: Content,
    file: Unnamed,
    hash: Sha256,
    size: u64,
}

impl Draft {
    /// Where it is for now.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Keeps it under the digest it must have.
    pub fn keep(mut self, digest: &str) -> Result<(), ContentError> {
        let target = self.content.path(digest)?;
        let hash = std::mem::take(&mut self.hash).finalize();
        if format!("sha256:{hash:x}") != digest {
            return Err(ContentError::Damaged { digest: digest.to_owned() });
        }
        Ok(self.file.keep(&target).map_err(io_error("writing", &target))?)
    }
}

impl Draft {
    /// Keeps it under the digest it has.
    pub fn keep_as_it_is(self) -> Result<String, ContentError> {
        let digest = format!("sha256:{:x}", self.hash.clone().finalize());
        self.keep(&digest)?;
        Ok(digest)
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_has_its_digest_and_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let content = Content::new(folder.path());
        let digest = oci::sha256(b"hello");
        content.put(&digest, b"hello").unwrap();
        assert_eq!(content.read(&digest, 5).unwrap(), b"hello");
        assert!(matches!(content.read(&digest, 4), Err(ContentError::Archive(ArchiveError::TooLarge(_)))));
        content.name("a:1", &digest).unwrap();
        let named = content.named("a:1").unwrap();
        assert_eq!(named.digest, digest);
        assert!(!named.is_older(Duration::from_secs(60), SystemTime::now()));
        assert!(named.is_older(Duration::from_secs(60), SystemTime::now() + Duration::from_secs(90)));
        assert_eq!(content.names(), [named]);
        fs::remove_file(content.path(&digest).unwrap()).unwrap();
        assert_eq!(content.named("a:1"), None, "a name without its manifest stands for nothing");
    }

    #[test]
    fn what_is_something_else_is_not_kept_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let content = Content::new(folder.path());
        let digest = oci::sha256(b"hello");
        assert!(matches!(content.put(&digest, b"hullo"), Err(ContentError::Damaged { .. })));
        assert!(matches!(content.put("sha256:../../x", b"x"), Err(ContentError::NoDigest(_))));
        assert!(!content.has(&digest));
        assert_eq!(fs::read_dir(folder.path().join("content/blobs/sha256")).unwrap().count(), 0);
        content.put(&digest, b"hello").unwrap();
        fs::write(content.path(&digest).unwrap(), b"hullo").unwrap();
        assert!(
            matches!(content.read(&digest, 5), Err(ContentError::Damaged { .. })),
            "it is held against its digest again"
        );
    }
}
