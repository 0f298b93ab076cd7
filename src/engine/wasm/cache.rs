//! Code compiled ahead of time, kept in a private folder of the user's cache.
//!
//! Loading compiled code is running it, so an entry is trusted only if it lies in a folder that this user alone may
//! enter, belongs to this user, is writable by nobody else, and ends with the digest of its own bytes. It is written under a temporary name,
//! synced and renamed; it is opened once, and what was checked is what is mapped. Anything else is discarded and compiled again.
//! Keys are made by [`super::compile`]; what the bytes mean is not known here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

/// Length of the digest at the end of an entry.
const DIGEST: usize = 32;

/// The folder of compiled code.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
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

impl Cache {
    /// The cache in `folder/code`; nothing is made before something is stored.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.join("code") }
    }

    /// The entry of a key, if there is one that can be trusted. One that cannot is removed.
    pub fn find(&self, key: &str) -> Option<Entry> {
        let path = self.path(key);
        let file = match OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(_) => {
                self.discard(key);
                return None;
            }
        };
        match self.check_folder().and_then(|()| check(&file)) {
            Ok(()) => Some(Entry { file }),
            Err(_) => {
                self.discard(key);
                None
            }
        }
    }

    /// Stores compiled code under a key, in place of what is there.
    pub fn store(&self, key: &str, code: &[u8]) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        self.check_folder()?;
        let temporary = self.folder.join(format!(".{key}.{}", std::process::id()));
        let write = || {
            let _ = fs::remove_file(&temporary);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(code)?;
            file.write_all(&Sha256::digest(code))?;
            file.sync_all()?;
            fs::rename(&temporary, self.path(key))
        };
        write().inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })
    }

    /// Removes the entry of a key.
    pub fn discard(&self, key: &str) {
        let _ = fs::remove_file(self.path(key));
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.cwasm"))
    }

    fn check_folder(&self) -> io::Result<()> {
        let metadata = fs::symlink_metadata(&self.folder)?;
        if !metadata.is_dir() || metadata.uid() != own_uid() || metadata.mode() & 0o077 != 0 {
            return Err(io::Error::other(format!("`{}` is not a folder of this user alone", self.folder.display())));
        }
        Ok(())
    }
}

/// Checks owner, mode and digest of an open entry.
fn check(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.uid() != own_uid() || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("not a private file of this user"));
    }
    let Some(mut left) = metadata.len().checked_sub(DIGEST as u64) else {
        return Err(io::Error::other("too short"));
    };
    let mut digest = Sha256::new();
    let mut reader = file;
    let mut buffer = vec![0; 256 * 1024];
    while left > 0 {
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        reader.read_exact(&mut buffer[..wanted])?;
        digest.update(&buffer[..wanted]);
        left -= wanted as u64;
    }
    let mut expected = [0; DIGEST];
    reader.read_exact(&mut expected)?;
    if digest.finalize().as_slice() != expected {
        return Err(io::Error::other("its digest does not match"));
    }
    Ok(())
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        cache.store("key", b"code").unwrap();
        (folder, cache)
    }

    #[test]
    fn what_was_stored_is_found() {
        let (_folder, cache) = cache();
        let entry = cache.find("key").expect("just stored");
        assert_eq!(&fs::read(entry.path()).unwrap()[..4], b"code");
        assert!(cache.find("other").is_none());
        cache.store("key", b"new").unwrap();
        assert_eq!(&fs::read(cache.find("key").unwrap().path()).unwrap()[..3], b"new");
        assert_eq!(fs::read_dir(&cache.folder).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_damaged_entry_is_discarded() {
        for damage in [&b"cod"[..], b"", b"c0de+++++++++++++++++++++++++++++++++++"] {
            let (_folder, cache) = cache();
            fs::write(cache.path("key"), damage).unwrap();
            assert!(cache.find("key").is_none());
            assert!(!cache.path("key").exists());
        }
    }

    #[test]
    fn an_entry_others_may_write_is_discarded() {
        let (_folder, cache) = cache();
        fs::set_permissions(cache.path("key"), fs::Permissions::from_mode(0o622)).unwrap();
        assert!(cache.find("key").is_none());
        assert!(!cache.path("key").exists());
    }

    #[test]
    fn a_link_is_not_followed() {
        let (folder, cache) = cache();
        let elsewhere = folder.path().join("elsewhere");
        fs::rename(cache.path("key"), &elsewhere).unwrap();
        symlink(&elsewhere, cache.path("key")).unwrap();
        assert!(cache.find("key").is_none());
        assert!(elsewhere.exists() && !cache.path("key").exists());
    }

    #[test]
    fn a_folder_others_may_enter_is_not_trusted() {
        let (_folder, cache) = cache();
        fs::set_permissions(&cache.folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(cache.find("key").is_none());
        assert!(cache.store("key", b"code").is_err());
    }
}
