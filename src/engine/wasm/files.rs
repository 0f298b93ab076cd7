//! What a guest sees of files: a private root, and over it volumes, binds, configs and secrets.
//!
//! The root is a copy of the image's files that lives as long as a container's would: made by `create`, kept over restarts, gone with `remove`.
//! WASI knows folders only, so a single file (a config, a secret, a bind of a file) is placed in the root. Nothing here
//! follows a symbolic link of an image: a link in the root could lead out of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::host::{Folder, Preopen};
use crate::model::{FileContent, FileGrant, Mount, MountSource};
use crate::plan::unit::InstanceSpec;

/// The files of one instance, on the host.
#[derive(Debug, Clone)]
pub struct Files {
    /// `<data>/instances/<id>`.
    folder: PathBuf,
    /// `<data>/volumes`.
    volumes: PathBuf,
}

/// Folders ready to be opened.
#[derive(Debug, Default)]
pub struct Opened {
    /// As the guest sees them, the root first.
    pub preopens: Vec<Preopen>,
    /// What people should know of them.
    pub notes: Vec<String>,
}

/// What the components of an application see, by their names.
pub type Rooms = BTreeMap<String, Arc<[Preopen]>>;

/// A file or folder that could not be made ready.
#[derive(Debug, Error)]
#[error("{action} `{}`: {source}", path.display())]
pub struct FilesError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

type Result<T> = std::result::Result<T, FilesError>;

impl Files {
    /// The files of the instance of that short id.
    pub fn new(data: &Path, id: &str) -> Self {
        Self { folder: data.join("instances").join(id), volumes: data.join("volumes") }
    }

    /// Makes a fresh private root, a copy of the image's files where there are any.
    pub fn create(&self, image: Option<&Path>) -> Result<()> {
        self.remove()?;
        // Secrets lie in it.
        private_folder(&self.folder)?;
        let root = self.root();
        make_folder(&root)?;
        match image {
            Some(image) => copy_tree(image, &root),
            None => Ok(()),
        }
    }

    /// Puts a new version of a file of the image into the root, where the guest has one of that name.
    pub fn renew(&self, from: &Path, inside: &Path) -> Result<()> {
        let place = self::inside(&self.root(), inside).map_err(failed("renew", inside))?;
        if !place.is_file() {
            return Ok(());
        }
        let mode = fs::metadata(from).map_err(failed("read", from))?.permissions().mode();
        let content = fs::read(from).map_err(failed("read", from))?;
        write_file(&place, &content, mode & 0o777 | 0o600)
    }

    /// Removes everything of the instance.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &self.folder)(error)),
            _ => Ok(()),
        }
    }

    /// The folder of a named volume without an engine.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.volumes.join(name)
    }

    /// Makes everything ready for a start. `passed` are directory descriptors of volumes by target, from the agent.
    fn open(&self, spec: &InstanceSpec, image: Option<&Path>, passed: Vec<(PathBuf, OwnedFd)>) -> Result<Opened> {
        if !self.root().is_dir() {
            self.create(image)?;
        }
        self.open_at(&self.root(), spec, passed)
    }

    /// The same, and for components whose root is a folder in the root, by its name.
    pub fn open_all(
        &self,
        spec: &InstanceSpec,
        image: Option<&Path>,
        passed: Vec<(PathBuf, OwnedFd)>,
        rooms: &[String],
    ) -> Result<(Opened, Rooms)> {
        let again = |(target, folder): &(PathBuf, OwnedFd)| Ok((target.clone(), folder.try_clone()?));
        let copies = rooms.iter().map(|_| passed.iter().map(again).collect::<io::Result<Vec<_>>>());
        let copies = copies.collect::<io::Result<Vec<_>>>().map_err(failed("open the volumes of", &self.folder))?;
        let opened = self.open(spec, image, passed)?;
        let mut found = Rooms::new();
        for (name, passed) in rooms.iter().zip(copies) {
            let room = place(&self.root(), name)?;
            make_folder(&room)?;
            found.insert(name.clone(), self.open_at(&room, spec, passed)?.preopens.into());
        }
        Ok((opened, found))
    }

    fn open_at(&self, root: &Path, spec: &InstanceSpec, mut passed: Vec<(PathBuf, OwnedFd)>) -> Result<Opened> {
        let mut opened = Opened::default();
        opened.preopens.push(Preopen { host: Folder::At(root.to_owned()), guest: "/".into(), read_only: false });
        for (number, mount) in spec.service.mounts.iter().enumerate() {
            let place = place(root, &mount.target)?;
            let at = passed.iter().position(|(target, _)| same_target(target, &mount.target));
            let host = match (at, &mount.source) {
                (Some(at), _) => {
                    let (_, descriptor) = passed.swap_remove(at);
                    Folder::Passed(descriptor)
                }
                (None, MountSource::Bind { path, .. }) if path.is_file() => {
                    opened.notes.extend(place_bind(path, &place, mount)?);
                    continue;
                }
                (None, source) => match self.folder_of(number, source, spec, &place)? {
                    Some(host) => Folder::At(host),
                    None => {
                        opened.notes.push(format!("the mount at {} has no meaning for a Wasm service", mount.target));
                        continue;
                    }
                },
            };
            // So that the mount shows in a listing of the folder above it.
            make_folder(&place)?;
            opened.preopens.push(Preopen { host, guest: mount.target.clone(), read_only: mount.read_only });
        }
        for grant in spec.service.configs.iter().chain(&spec.service.secrets) {
            place_grant(grant, &place(root, &grant.target)?)?;
        }
        Ok(opened)
    }

    /// Makes anew what a start brings with it: files that are copies, and what is in memory.
    pub fn refresh(&self, spec: &InstanceSpec) -> Result<()> {
        for (number, mount) in spec.service.mounts.iter().enumerate() {
            match &mount.source {
                MountSource::Bind { path, .. } if path.is_file() => {
                    place_bind(path, &place(&self.root(), &mount.target)?, mount)?;
                }
                MountSource::Tmpfs { .. } => drop(self.memory(number)?),
                MountSource::Bind { .. }
                | MountSource::Volume { .. }
                | MountSource::Anonymous { .. }
                | MountSource::Other { .. } => {}
            }
        }
        for grant in spec.service.configs.iter().chain(&spec.service.secrets) {
            place_grant(grant, &place(&self.root(), &grant.target)?)?;
        }
        Ok(())
    }

    /// The empty folder of a mount that is in memory.
    fn memory(&self, number: usize) -> Result<PathBuf> {
        let folder = self.folder.join("tmpfs").join(number.to_string());
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(failed("empty", &folder))?;
        }
        make_folder(&folder)?;
        Ok(folder)
    }

    /// The host's folder behind a mount, made where that is its rule.
    fn folder_of(
        &self,
        number: usize,
        source: &MountSource,
        spec: &InstanceSpec,
        place: &Path,
    ) -> Result<Option<PathBuf>> {
        Ok(Some(match source {
            MountSource::Volume { key, no_copy, subpath } => {
                let name = spec.volumes.get(key).map_or(key.as_str(), String::as_str);
                let volume = self.volume(name);
                make_folder(&volume)?;
                if !no_copy && is_empty(&volume)? && place.is_dir() {
                    copy_tree(place, &volume)?;
                }
                match subpath {
                    Some(subpath) => {
                        let folder = inside(&volume, Path::new(subpath)).map_err(failed("open", &volume))?;
                        make_folder(&folder)?;
                        folder
                    }
                    None => volume,
                }
            }
            MountSource::Anonymous { no_copy } => {
                let folder = self.folder.join("anonymous").join(number.to_string());
                let fresh = !folder.is_dir();
                make_folder(&folder)?;
                if fresh && !no_copy && place.is_dir() {
                    copy_tree(place, &folder)?;
                }
                folder
            }
            MountSource::Bind { path, create, .. } => {
                if *create && !path.exists() {
                    make_folder(path)?;
                }
                fs::metadata(path).map_err(failed("mount", path))?;
                path.clone()
            }
            MountSource::Tmpfs { .. } => self.memory(number)?,
            MountSource::Other { .. } => return Ok(None),
        }))
    }

    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }
}

/// Where a target of the guest lies in its root.
fn place(root: &Path, target: &str) -> Result<PathBuf> {
    inside(root, Path::new(target)).map_err(failed("mount at", Path::new(target)))
}

fn place_grant(grant: &FileGrant, place: &Path) -> Result<()> {
    let text;
    let content = match &grant.content {
        FileContent::File(path) => {
            text = fs::read(path).map_err(failed("read", path))?;
            text.as_slice()
        }
        FileContent::Environment { value, .. } => value.as_deref().unwrap_or_default().as_bytes(),
        FileContent::Inline(content) => content.as_bytes(),
        FileContent::External { name } => {
            let error = io::Error::new(io::ErrorKind::Unsupported, "external configs and secrets need a swarm");
            return Err(failed("place", Path::new(name))(error));
        }
    };
    write_file(place, content, grant.mode.unwrap_or(0o444))
}

/// A single file of the host. Writable, it is the same file where both lie on one file system, as a bind is; else a copy.
fn place_bind(path: &Path, place: &Path, mount: &Mount) -> Result<Option<String>> {
    let above = place.parent().unwrap_or(place);
    make_folder(above)?;
    if !mount.read_only {
        let _ = fs::remove_file(place);
        if fs::hard_link(path, place).is_ok() {
            return Ok(None);
        }
    }
    let content = fs::read(path).map_err(failed("read", path))?;
    write_file(place, &content, if mount.read_only { 0o444 } else { 0o644 })?;
    Ok((!mount.read_only).then(|| {
        format!("{} is a copy of {}: what is written to it stays in this service", mount.target, path.display())
    }))
}

fn write_file(place: &Path, content: &[u8], mode: u32) -> Result<()> {
    let above = place.parent().unwrap_or(place);
    make_folder(above)?;
    let write = || {
        // Never through a name that is there already: it may be a hard link to a file of the host.
        match fs::remove_file(place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Readable by us whatever the mode says; the guest runs with our rights.
        fs::OpenOptions::new().write(true).create_new(true).mode(mode | 0o400).open(place)?.write_all(content)
    };
    write().map_err(failed("write", place))
}

/// `base/path`, never outside of `base` and never through a symbolic link.
fn inside(base: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut place = base.to_owned();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => continue,
            Component::Normal(name) => place.push(name),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "a path with `..`"));
            }
        }
        if fs::symlink_metadata(&place).is_ok_and(|metadata| metadata.is_symlink()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a symbolic link of the image is in the way"));
        }
    }
    Ok(place)
}

/// Copies folders, files with their modes, and symbolic links as they are; nothing else.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).map_err(failed("read", from))? {
        let entry = entry.map_err(failed("read", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(failed("read", &source))?;
        if kind.is_dir() {
            make_folder(&target)?;
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&source).map_err(failed("read", &source))?;
            symlink(link, &target).map_err(failed("write", &target))?;
        } else if kind.is_file() {
            fs::copy(&source, &target).map_err(failed("copy", &source))?;
            let mode = fs::symlink_metadata(&target).map_err(failed("read", &target))?.permissions().mode();
            // A file its owner may not read is root's in a container; here the guest has our rights.
            fs::set_permissions(&target, fs::Permissions::from_mode(mode | 0o600)).map_err(failed("write", &target))?;
        }
    }
    Ok(())
}

fn private_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make the folder", path))
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(failed("make the folder", path))
}

fn is_empty(folder: &Path) -> Result<bool> {
    Ok(fs::read_dir(folder).map_err(failed("read", folder))?.next().is_none())
}

fn same_target(target: &Path, written: &str) -> bool {
    target.components().eq(Path::new(written).components())
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FilesError + 'a {
    move |source| FilesError { action, path: path.to_owned(), source }
}
