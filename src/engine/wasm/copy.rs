//! `cp` into and out of a guest's files, as tar archives.
//!
//! Every name is opened in the folder above it, which was opened in the one above that, and symbolic links are opened as
//! what they are: whatever the guest changes meanwhile, nothing outside its own folders is read or written. A guest's
//! files have one owner, so owners of an archive are not kept; devices are left out.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use tar::{EntryType, Header};
use tokio::sync::mpsc;

use super::host::Preopen;
use super::inside::{self, Links};
use super::{Wasm, failed};
use crate::engine::archive::{Incoming, Outgoing};
use crate::engine::{EngineError, ErrorKind, Result};
use crate::model::InstanceName;
use crate::plan::unit::InstanceSpec;

/// Folders within folders that are followed.
const DEPTH: usize = 128;

impl Wasm {
    /// Writes a file or folder of a guest as an archive; its entries begin with the path's last name.
    pub async fn copy_out(
        &self,
        name: &InstanceName,
        path: String,
        follow: bool,
        to: mpsc::Sender<Bytes>,
    ) -> Result<()> {
        let (spec, preopens) = self.files_of(name)?;
        let work = move || {
            let links = if follow { Links::Followed } else { Links::Kept };
            pack(&preopens, &path, links, Outgoing::new(to)).map_err(|error| told("copy", &path, error))
        };
        tokio::task::spawn_blocking(work).await.map_err(|lost| failed("copy files of", &spec, lost))?
    }

    /// Unpacks an archive into a folder of a guest; where there is none, its one entry gets that name.
    pub async fn copy_in(&self, name: &InstanceName, path: String, from: mpsc::Receiver<Bytes>) -> Result<()> {
        let (spec, preopens) = self.files_of(name)?;
        let work = move || unpack(&preopens, &path, Incoming::new(from)).map_err(|error| told("copy to", &path, error));
        tokio::task::spawn_blocking(work).await.map_err(|lost| failed("copy files to", &spec, lost))?
    }

    /// Removes files and folders of a guest; what is not there is done.
    pub async fn remove_files(&self, name: &InstanceName, paths: Vec<String>) -> Result<()> {
        let (spec, preopens) = self.files_of(name)?;
        let work = move || {
            paths.iter().try_for_each(|path| remove(&preopens, path).map_err(|error| told("remove", path, error)))
        };
        tokio::task::spawn_blocking(work).await.map_err(|lost| failed("remove files of", &spec, lost))?
    }

    fn files_of(&self, name: &InstanceName) -> Result<(Arc<InstanceSpec>, Arc<[Preopen]>)> {
        let instances = self.lock();
        let found = instances
            .get(name)
            .and_then(|instance| Some((instance.spec.clone(), instance.running()?.grants.preopens.clone())));
        found.ok_or_else(|| EngineError::new(ErrorKind::Conflict, "copy files of", name.to_string(), "it does not run"))
    }
}

fn told(operation: &'static str, path: &str, error: io::Error) -> EngineError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        _ => ErrorKind::Invalid,
    };
    EngineError::new(kind, operation, path, error)
}

fn pack(preopens: &[Preopen], path: &str, links: Links, to: Outgoing) -> io::Result<()> {
    let whole = inside::absolute(None, path);
    let (preopen, rest) = inside::place(preopens, &whole)?;
    let root = inside::root(preopen)?;
    let mut archive = tar::Builder::new(to);
    // `folder/.` is what is in the folder.
    let inner = path.ends_with("/.") || path == "." || whole == Path::new("/");
    let name = if inner { PathBuf::from(".") } else { PathBuf::from(whole.file_name().unwrap_or_default()) };
    if rest.as_os_str().is_empty() {
        pack_folder(&mut archive, &root, &name, 0)?;
    } else {
        let above =
            inside::open(&root, rest.parent().unwrap_or(Path::new("")), FOLDER, Mode::empty(), Links::Followed)?;
        let last = Path::new(rest.file_name().unwrap_or_default());
        let is_link = file_type(&above, last)? == FileType::Symlink;
        if is_link && (links == Links::Followed || inner) {
            let opened = inside::open(&root, &rest, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty(), Links::Followed)?;
            pack_opened(&mut archive, opened, &name, 0)?;
        } else {
            pack_entry(&mut archive, &above, last, &name, 0)?;
        }
    }
    archive.finish()?;
    archive.into_inner()?.flush()
}

const FOLDER: OFlags = OFlags::DIRECTORY;

fn file_type(folder: &OwnedFd, name: &Path) -> io::Result<FileType> {
    let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

/// An entry of a folder, by its own name there and its name in the archive.
fn pack_entry(
    archive: &mut tar::Builder<Outgoing>,
    folder: &OwnedFd,
    name: &Path,
    shown: &Path,
    depth: usize,
) -> io::Result<()> {
    match file_type(folder, name)? {
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(folder, name, Vec::new())?;
            let target = PathBuf::from(OsStr::from_bytes(target.as_bytes()));
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            archive.append_link(&mut header, shown, target)
        }
        FileType::Directory | FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            pack_opened(archive, rustix::fs::openat(folder, name, flags, Mode::empty())?, shown, depth)
        }
        // Pipes, sockets, devices: a guest cannot make them.
        _ => Ok(()),
    }
}

fn pack_opened(archive: &mut tar::Builder<Outgoing>, opened: OwnedFd, shown: &Path, depth: usize) -> io::Result<()> {
    let stat = rustix::fs::fstat(&opened)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => pack_folder(archive, &opened, shown, depth),
        FileType::RegularFile => {
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            let mut header = header(&stat, EntryType::Regular);
            header.set_size(size);
            // What grows or shrinks meanwhile is taken as it was, so that the archive stays sound.
            let content = File::from(opened).take(size).chain(io::repeat(0)).take(size);
            archive.append_data(&mut header, shown, content)
        }
        _ => Ok(()),
    }
}

fn pack_folder(archive: &mut tar::Builder<Outgoing>, folder: &OwnedFd, shown: &Path, depth: usize) -> io::Result<()> {
    let names = names_in(folder, depth)?;
    let mut header = header(&rustix::fs::fstat(folder)?, EntryType::Directory);
    header.set_size(0);
    archive.append_data(&mut header, shown, io::empty())?;
    for name in names {
        match pack_entry(archive, folder, &name, &shown.join(&name), depth + 1) {
            // It is gone since the folder was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            packed => packed?,
        }
    }
    Ok(())
}

fn header(stat: &rustix::fs::Stat, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header
}

fn unpack(preopens: &[Preopen], path: &str, from: Incoming) -> io::Result<()> {
    let whole = inside::absolute(None, path);
    let (preopen, rest) = inside::place(preopens, &whole)?;
    if preopen.read_only {
        return Err(io::ErrorKind::ReadOnlyFilesystem.into());
    }
    let root = inside::root(preopen)?;
    let (folder, renamed) = match inside::open(&root, &rest, FOLDER, Mode::empty(), Links::Followed) {
        Ok(folder) => (folder, None),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
                && !path.ends_with('/') =>
        {
            let above = rest.parent().unwrap_or(Path::new(""));
            let folder = inside::open(&root, above, FOLDER, Mode::empty(), Links::Followed)?;
            (folder, rest.file_name().map(PathBuf::from))
        }
        Err(error) => return Err(error),
    };
    let base = if renamed.is_some() { whole.parent().unwrap_or(&whole) } else { &whole };
    let mut archive = tar::Archive::new(from);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let mut name = plain(&entry.path()?)?;
        if let Some(renamed) = &renamed {
            let inner: PathBuf = name.components().skip(1).collect();
            name = if inner.as_os_str().is_empty() { renamed.clone() } else { renamed.join(inner) };
        }
        if name.as_os_str().is_empty() {
            continue;
        }
        match mounted_below(preopens, preopen, base, &name) {
            Some((mount, _)) if mount.read_only => return Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            // The mount itself stays.
            Some((_, inner)) if inner.as_os_str().is_empty() => {}
            Some((mount, inner)) => unpack_entry(&inside::root(mount)?, &inner, &mut entry)?,
            None => unpack_entry(&folder, &name, &mut entry)?,
        }
    }
    // Whoever sends it learns that all of it was read.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map(drop)
}

/// The mount that covers a name of an archive, where it is another one than the folder's; and the name in it.
fn mounted_below<'p>(
    preopens: &'p [Preopen],
    own: &Preopen,
    base: &Path,
    name: &Path,
) -> Option<(&'p Preopen, PathBuf)> {
    let found = inside::place(preopens, &base.join(name)).ok()?;
    (!std::ptr::eq(found.0, own)).then_some(found)
}

/// Removes a file or folder; of a mount, what is in it.
fn remove(preopens: &[Preopen], path: &str) -> io::Result<()> {
    let (preopen, rest) = inside::place(preopens, &inside::absolute(None, path))?;
    if preopen.read_only {
        return Err(io::ErrorKind::ReadOnlyFilesystem.into());
    }
    let root = inside::root(preopen)?;
    let Some(last) = rest.file_name() else { return remove_content(&root, 0) };
    let above = rest.parent().unwrap_or(Path::new(""));
    match inside::open(&root, above, FOLDER, Mode::empty(), Links::Followed) {
        Ok(above) => remove_entry(&above, Path::new(last), 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// An entry of a folder; a symbolic link goes itself.
fn remove_entry(folder: &OwnedFd, name: &Path, depth: usize) -> io::Result<()> {
    let flags = match file_type(folder, name) {
        Ok(FileType::Directory) => {
            let flags = FOLDER | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            remove_content(&rustix::fs::openat(folder, name, flags, Mode::empty())?, depth + 1)?;
            AtFlags::REMOVEDIR
        }
        Ok(_) => AtFlags::empty(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match rustix::fs::unlinkat(folder, name, flags) {
        Err(error) if error != rustix::io::Errno::NOENT => Err(error.into()),
        _ => Ok(()),
    }
}

fn remove_content(folder: &OwnedFd, depth: usize) -> io::Result<()> {
    names_in(folder, depth)?.iter().try_for_each(|name| remove_entry(folder, name, depth))
}

/// What is in a folder, as long as it does not lie too deep.
fn names_in(folder: &OwnedFd, depth: usize) -> io::Result<Vec<PathBuf>> {
    if depth > DEPTH {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("folders lie more than {DEPTH} deep")));
    }
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = PathBuf::from(OsStr::from_bytes(entry?.file_name().to_bytes()));
        if name != Path::new(".") && name != Path::new("..") {
            names.push(name);
        }
    }
    Ok(names)
}

fn unpack_entry(root: &OwnedFd, name: &Path, entry: &mut tar::Entry<'_, Incoming>) -> io::Result<()> {
    let kind = entry.header().entry_type();
    let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
    if kind.is_dir() {
        return make_folders(root, name).map(drop);
    }
    let above = make_folders(root, name.parent().unwrap_or(Path::new("")))?;
    let last = Path::new(name.file_name().unwrap_or_default());
    if kind.is_file() || kind.is_symlink() || kind.is_hard_link() {
        // Never through a name that is there already: it may be a link.
        match rustix::fs::unlinkat(&above, last, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if kind.is_file() {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // The guest acts with our rights: its owner can read and write what it was given.
        let opened = rustix::fs::openat(&above, last, flags, Mode::from_raw_mode(mode | 0o600))?;
        let mut file = File::from(opened);
        io::copy(entry, &mut file)?;
        let modified = std::time::Duration::from_secs(entry.header().mtime().unwrap_or(0));
        file.set_modified(std::time::UNIX_EPOCH + modified)
    } else if kind.is_symlink() {
        let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?.into_owned();
        Ok(rustix::fs::symlinkat(&target, &above, last)?)
    } else if kind.is_hard_link() {
        let target = plain(&entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?)?;
        let from =
            inside::open(root, target.parent().unwrap_or(Path::new("")), FOLDER, Mode::empty(), Links::Followed)?;
        let linked = Path::new(target.file_name().unwrap_or_default());
        Ok(rustix::fs::linkat(&from, linked, &above, last, AtFlags::empty())?)
    } else {
        Ok(())
    }
}

/// The folder of that name beneath `root`, made where it is missing.
fn make_folders(root: &OwnedFd, name: &Path) -> io::Result<OwnedFd> {
    let mut done = PathBuf::new();
    for component in name.components() {
        done.push(component);
        match inside::open(root, &done, FOLDER, Mode::empty(), Links::Followed) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let above = done.parent().unwrap_or(Path::new(""));
                let above = inside::open(root, above, FOLDER, Mode::empty(), Links::Followed)?;
                let last = Path::new(done.file_name().unwrap_or_default());
                rustix::fs::mkdirat(&above, last, Mode::from_raw_mode(0o755))?;
            }
            Err(error) => return Err(error),
        }
    }
    inside::open(root, name, FOLDER, Mode::empty(), Links::Followed)
}

/// A name of an archive, without `.` and a leading `/`; one with `..` is refused.
fn plain(name: &Path) -> io::Result<PathBuf> {
    let mut plain = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => plain.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the archive has a name with `..`"));
            }
        }
    }
    Ok(plain)
}
