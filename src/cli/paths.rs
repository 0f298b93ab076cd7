//! Where a run keeps things: sockets that die with the machine, state, caches, data; one folder a project.
//!
//! By the XDG base directory specification; `WCOMPOSE_{RUNTIME,STATE,CACHE,DATA}_DIR` come first. The runtime folder is
//! private and short: socket paths hold 108 bytes.

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sha2::{Digest, Sha256};

use super::outcome::Failure;
use super::resolve::ImageFolders;
use crate::engine::wasm::Folders;
use crate::model::ProjectName;

/// Longest runtime folder under which an agent's socket (`/<12 hex>/<12 hex>/s`) still fits into 107 bytes.
const LONGEST_RUNTIME: usize = 75;

/// The user's folders.
#[derive(Debug, Clone)]
pub struct Paths {
    runtime: PathBuf,
    state: PathBuf,
    cache: PathBuf,
    data: PathBuf,
}

/// The folders and files of one project.
#[derive(Debug, Clone)]
pub struct ProjectPaths {
    /// Control socket.
    pub socket: PathBuf,
    /// Lock of the one supervisor.
    pub lock: PathBuf,
    /// Runtime folder, with a folder for each agent.
    pub runtime: PathBuf,
    /// State folder.
    pub state: PathBuf,
    /// Output of Wasm instances.
    pub logs: PathBuf,
    /// Output of a detached supervisor itself.
    pub supervisor_log: PathBuf,
    cache: PathBuf,
    data: PathBuf,
}

impl Paths {
    /// Reads the environment. Nothing is made yet.
    pub fn new(environment: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let var = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let absolute = |name: &str| var(name).filter(|path| path.is_absolute());
        let home = absolute("HOME");
        let folder = |own: &str, xdg: &str, below_home: &str| {
            let found = var(own).or_else(|| absolute(xdg).map(|base| base.join("wcompose")));
            found.or_else(|| home.as_ref().map(|home| home.join(below_home).join("wcompose")))
        };
        let uid = rustix::process::getuid().as_raw();
        let fallback = || std::env::temp_dir().join(format!("wcompose-{uid}"));
        let runtime = var("WCOMPOSE_RUNTIME_DIR")
            .or_else(|| absolute("XDG_RUNTIME_DIR").filter(|base| base.is_dir()).map(|base| base.join("wcompose")));
        let runtime = std::path::absolute(runtime.unwrap_or_else(fallback))?;
        if runtime.as_os_str().len() > LONGEST_RUNTIME {
            return Err(Failure::new(
                format!("the runtime folder `{}` is too long for socket paths", runtime.display()),
                [format!("set WCOMPOSE_RUNTIME_DIR to a folder of at most {LONGEST_RUNTIME} bytes")],
            ));
        }
        Ok(Self {
            state: std::path::absolute(
                folder("WCOMPOSE_STATE_DIR", "XDG_STATE_HOME", ".local/state")
                    .unwrap_or_else(|| fallback().join("state")),
            )?,
            cache: std::path::absolute(
                folder("WCOMPOSE_CACHE_DIR", "XDG_CACHE_HOME", ".cache").unwrap_or_else(|| fallback().join("cache")),
            )?,
            data: std::path::absolute(
                folder("WCOMPOSE_DATA_DIR", "XDG_DATA_HOME", ".local/share").unwrap_or_else(|| fallback().join("data")),
            )?,
            runtime,
        })
    }

    /// Where fetched compose files are kept; made for the user alone.
    pub fn remotes(&self) -> Result<PathBuf, Failure> {
        let folder = self.cache.join("remote");
        private(&folder)?;
        Ok(folder)
    }

    /// The control sockets of all projects that have one.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let projects = std::fs::read_dir(&self.runtime).into_iter().flatten().flatten();
        projects.map(|project| project.path().join("control")).filter(|socket| socket.exists()).collect()
    }

    /// Where what was read out of images is kept.
    pub fn image_folders(&self) -> ImageFolders {
        ImageFolders { images: self.cache.join("images"), data: self.data.clone() }
    }

    /// What can be made again.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The folders of a project. Nothing is made: a command that only looks leaves nothing behind.
    pub fn project(&self, project: &ProjectName) -> ProjectPaths {
        let short: String = Sha256::digest(project.as_str()).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let runtime = self.runtime.join(short);
        let state = self.state.join(project.as_str());
        ProjectPaths {
            socket: runtime.join("control"),
            lock: runtime.join("lock"),
            logs: state.join("logs"),
            supervisor_log: state.join("supervisor.log"),
            cache: self.cache.clone(),
            data: self.data.clone(),
            runtime,
            state,
        }
    }
}

impl ProjectPaths {
    /// Makes the folders that hold sockets and state, for the user alone.
    pub fn make(&self) -> Result<(), Failure> {
        let above = self.runtime.parent().into_iter();
        above.chain([self.runtime.as_path(), self.state.as_path()]).try_for_each(private)
    }

    /// The folders the Wasm engine works in.
    pub fn engine_folders(&self) -> Folders {
        Folders { runtime: self.runtime.clone(), cache: self.cache.clone(), data: self.data.clone() }
    }

    /// Whether a run of the project used the Docker engine.
    pub fn used_engine(&self) -> bool {
        self.state.join("engine").exists()
    }

    /// Notes that a run of the project uses the Docker engine: a later command asks it as well.
    pub fn note_engine(&self) {
        // Without the note, files that say nothing of Linux services are still taken at their word.
        let _ = std::fs::write(self.state.join("engine"), "");
    }

    /// Where images that were read out of an engine are kept.
    pub fn image_folders(&self) -> ImageFolders {
        ImageFolders { images: self.cache.join("images"), data: self.data.clone() }
    }

    /// Removes what is left of a project that is down: its logs, and its sockets. The lock's file stays while it is held.
    pub fn clear(&self) {
        let _ = std::fs::remove_dir_all(&self.state);
        let _ = std::fs::remove_dir_all(&self.runtime);
    }
}

/// Makes a folder for the user alone; one that another user made is refused (a shared `/tmp`).
fn private(path: &Path) -> Result<(), Failure> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| {
        Failure::new(
            format!("create folder `{}`: {error}", path.display()),
            ["set WCOMPOSE_RUNTIME_DIR and WCOMPOSE_STATE_DIR to folders that can be written".to_owned()],
        )
    })?;
    let metadata = std::fs::symlink_metadata(path).with_context(|| format!("look at `{}`", path.display()))?;
    if !metadata.is_dir() || metadata.uid() != rustix::process::getuid().as_raw() {
        return Err(Failure::new(
            format!("`{}` belongs to another user", path.display()),
            ["set WCOMPOSE_RUNTIME_DIR (and WCOMPOSE_STATE_DIR) to folders of your own".to_owned()],
        ));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
            .with_context(|| format!("make `{}` private", path.display()))?;
    }
    Ok(())
}
