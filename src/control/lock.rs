//! One supervisor a project: an advisory lock on a file of the runtime folder that names its holder.
//! The kernel drops the lock with the process, however that ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};

/// The lock, held as long as this lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Who holds a lock: `process 812`.
pub type Holder = String;

impl Lock {
    /// Takes the lock, or says who holds it.
    pub fn acquire(path: &Path) -> io::Result<Result<Self, Holder>> {
        let mut file = open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                file.set_len(0)?;
                file.rewind()?;
                write!(file, "{}", std::process::id())?;
                Ok(Ok(Self { _file: file }))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid)?;
                Ok(Err(format!("process {}", pid.trim())))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Blocks until nobody holds the lock.
    pub fn wait(path: &Path) -> io::Result<()> {
        match OpenOptions::new().read(true).open(path) {
            Ok(file) => Ok(flock(file, FlockOperation::LockShared)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether a supervisor holds the lock.
    pub fn is_held(path: &Path) -> io::Result<bool> {
        if !path.exists() {
            return Ok(false);
        }
        match flock(open(path)?, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32);
    options.open(path).map_err(|error| io::Error::new(error.kind(), format!("open lock `{}`: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::acquire(&path).unwrap().unwrap();
        assert!(Lock::is_held(&path).unwrap());
        assert_eq!(Lock::acquire(&path).unwrap().unwrap_err(), format!("process {}", std::process::id()));
        drop(first);
        assert!(!Lock::is_held(&path).unwrap());
        assert!(Lock::acquire(&path).unwrap().is_ok());
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        Lock::acquire(&path).unwrap_err();
        assert!(!folder.path().join("elsewhere").exists());
    }
}
