//! Files that are there whole or not at all: written under a passing name in their folder, brought to the disk, renamed.
//!
//! Two processes that write the same file do each other no harm, and a crash leaves no half of one. What it leaves has a
//! hidden name that nothing reads.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes a file, in the place of what is there, into a folder that exists.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = Unnamed::within(path.parent().unwrap_or(Path::new("/")))?;
    file.write_all(bytes)?;
    file.keep(path)
}

/// A file that is being written, for this user alone; dropped before it is kept, it leaves nothing.
#[derive(Debug)]
pub(super) struct Unnamed {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl Unnamed {
    /// In a folder that exists.
    pub(super) fn within(folder: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let path = folder.join(format!(".{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                // Of a process of another life, or of one that counts processes in a namespace of its own.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                opened => return Ok(Self { file: opened?, path, kept: false }),
            }
        }
    }

    /// Gives it its name, in the same folder or another one of the same file system.
    pub(super) fn keep(mut self, name: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, name)?;
        self.kept = true;
        Ok(())
    }

    /// Where it is for now.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Write for Unnamed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        // Kept, the name may be another writer's by now.
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_whole_or_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let mut dropped = Unnamed::within(folder.path()).unwrap();
        dropped.write_all(b"half").unwrap();
        assert_eq!(names(folder.path()).len(), 2);
        drop(dropped);
        // A folder cannot be replaced by a file.
        fs::create_dir_all(folder.path().join("folder/below")).unwrap();
        assert!(write(&folder.path().join("folder"), b"x").is_err());
        let mut left = names(folder.path());
        left.sort();
        assert_eq!(left, ["file", "folder"]);
    }

    #[test]
    fn writers_of_one_file_do_each_other_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::thread::scope(|scope| {
            for letter in b'a'..b'e' {
                let path = &path;
                scope.spawn(move || (0..20).for_each(|_| write(path, &[letter; 4096]).unwrap()));
            }
        });
        let text = fs::read(&path).unwrap();
        assert!(text.len() == 4096 && text.iter().all(|letter| *letter == text[0]));
        assert_eq!(names(folder.path()), ["file"]);
    }
}
