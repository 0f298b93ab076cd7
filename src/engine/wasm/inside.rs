//! A guest's files from outside of it, for `exec` and `cp`: paths as the guest writes them, resolved beneath its own
//! folders. The kernel resolves them as if the folder were the whole file system, so no `..` and no symbolic link, not
//! even one that is changed meanwhile, leads out of it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::host::Preopen;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// A symbolic link at the end of the path is followed, inside.
    Followed,
    /// It is what is opened.
    Kept,
}

/// The path in absolute form, without `.` and `..`; a relative one starts at `folder`.
pub fn absolute(folder: Option<&str>, path: &str) -> PathBuf {
    let mut whole = PathBuf::from("/");
    for component in Path::new("/").join(folder.unwrap_or("/")).join(path).components() {
        match component {
            Component::Normal(name) => whole.push(name),
            Component::ParentDir => {
                whole.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    whole
}

/// The folder that holds a path, and the path in it: of several mounts, the innermost.
pub fn place<'p>(preopens: &'p [Preopen], path: &Path) -> io::Result<(&'p Preopen, PathBuf)> {
    let within = preopens.iter().filter_map(|preopen| {
        let guest = absolute(None, &preopen.guest);
        Some((preopen, guest.components().count(), path.strip_prefix(&guest).ok()?.to_owned()))
    });
    let found = within.max_by_key(|(_, depth, _)| *depth);
    found.map(|(preopen, _, rest)| (preopen, rest)).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The folder itself.
pub fn root(preopen: &Preopen) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, preopen.host.path(), flags, Mode::empty())?)
}

/// Opens `path` beneath `root`.
pub fn open(root: &OwnedFd, path: &Path, flags: OFlags, mode: Mode, links: Links) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let kept = if links == Links::Kept { OFlags::NOFOLLOW } else { OFlags::empty() };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // The kernel asks for another try where something was renamed while it looked.
    for _ in 0..16 {
        match rustix::fs::openat2(root, path, flags | kept | OFlags::CLOEXEC, mode, resolve) {
            Err(rustix::io::Errno::AGAIN) => {}
            opened => return Ok(opened?),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// The content of a file, no longer than `largest`.
pub fn read(preopens: &[Preopen], path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    let (preopen, rest) = place(preopens, path)?;
    // Not blocking, for a named pipe in the place of a file would be waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = File::from(open(&root(preopen)?, &rest, flags, Mode::empty(), Links::Followed)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(largest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > largest {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::host::Folder;
    use super::*;

    fn preopen(host: &Path, guest: &str) -> Preopen {
        Preopen { host: Folder::At(host.to_owned()), guest: guest.to_owned(), read_only: false }
    }

    #[test]
    fn paths_are_resolved_beneath_the_guests_folders() {
        let folder = tempfile::tempdir().unwrap();
        let (root, volume) = (folder.path().join("root"), folder.path().join("volume"));
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::create_dir_all(&volume).unwrap();
        std::fs::write(folder.path().join("secret"), "host").unwrap();
        std::fs::write(root.join("bin/app"), "app").unwrap();
        std::fs::write(volume.join("note"), "note").unwrap();
        symlink("/bin/app", root.join("absolute")).unwrap();
        symlink("../../secret", root.join("bin/up")).unwrap();
        symlink(folder.path().join("secret"), root.join("out")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        let preopens = [preopen(&root, "/"), preopen(&volume, "/data")];
        let read = |path: &str| read(&preopens, &absolute(None, path), 100);
        assert_eq!(read("/bin/app").unwrap(), b"app");
        assert_eq!(read("bin/../../../bin/app").unwrap(), b"app");
        assert_eq!(read("/absolute").unwrap(), b"app");
        assert_eq!(read("/data/note").unwrap(), b"note");
        for path in ["/out", "/bin/up", "/../secret", "/magic/etc/passwd", "/data/../../secret"] {
            assert!(read(path).is_err(), "{path}");
        }
    }
}
