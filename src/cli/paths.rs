//! Where wcompose keeps what: sockets, state, caches and data, each in the place the XDG base directory specification gives it.
//!
//! What is in the runtime folder gives power over the user's containers, so it is private and refused when it is not.
//! A path that would be too long for a socket address is replaced by a short one that depends on the long one alone.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::model::ProjectName;

/// Longest path of a Unix socket: `sun_path` without its end.
const SOCKET_PATH: usize = 107;
/// What follows a project's runtime folder at most: `/control.sock`, or an agent's `/<12 hex>/s`.
const SOCKET_NAME: usize = 16;

/// The user's folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Sockets and locks; gone after a reboot. Private.
    pub runtime: PathBuf,
    /// Logs and last snapshots.
    pub state: PathBuf,
    /// What can be made again: compiled modules.
    pub cache: PathBuf,
    /// What cannot: volumes and modules.
    pub data: PathBuf,
    user: u32,
}

/// One project's folders and files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectPaths {
    /// Its runtime folder, 0700; agents' folders go here, too.
    pub runtime: PathBuf,
    /// The supervisor's control socket.
    pub socket: PathBuf,
    /// The supervisor's lock.
    pub lock: PathBuf,
    /// Its state folder.
    pub state: PathBuf,
    /// Output of its Wasm instances.
    pub logs: PathBuf,
    /// What a detached supervisor itself prints.
    pub supervisor_log: PathBuf,
    /// Folders of its in-process volumes.
    pub volumes: PathBuf,
}

/// A folder that cannot be used.
#[derive(Debug, Error)]
pub enum PathError {
    /// It cannot be made or looked at.
    #[error("make folder `{path}`: {source}")]
    Failed {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could read or replace what is in it.
    #[error("folder `{path}` is not private: {why}")]
    NotPrivate {
        /// The folder.
        path: PathBuf,
        /// In which way.
        why: &'static str,
    },
}

impl Paths {
    /// The folders that these variables name, for a user. `WCOMPOSE_RUNTIME_DIR`, `_STATE_DIR`, `_CACHE_DIR` and `_DATA_DIR` are
    /// taken as they are; relative ones count as unset. Nothing is made yet.
    pub fn resolve(variable: impl Fn(&str) -> Option<OsString>, user: u32) -> Self {
        let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        // Each directly below the temporary folder, where anybody may make folders: so each can be checked to be the user's own.
        let fallback = |suffix: &str| std::env::temp_dir().join(format!("wcompose-{user}{suffix}"));
        let choose = |own: &str, xdg: &str, home: Option<&str>, last: &str| {
            let in_home = || home.and_then(|below| Some(absolute("HOME")?.join(below).join("wcompose")));
            absolute(own)
                .or_else(|| absolute(xdg).map(|path| path.join("wcompose")))
                .or_else(in_home)
                .unwrap_or_else(|| fallback(last))
        };
        Self {
            runtime: choose("WCOMPOSE_RUNTIME_DIR", "XDG_RUNTIME_DIR", None, ""),
            state: choose("WCOMPOSE_STATE_DIR", "XDG_STATE_HOME", Some(".local/state"), "-state"),
            cache: choose("WCOMPOSE_CACHE_DIR", "XDG_CACHE_HOME", Some(".cache"), "-cache"),
            data: choose("WCOMPOSE_DATA_DIR", "XDG_DATA_HOME", Some(".local/share"), "-data"),
            user,
        }
    }

    /// The folders of this process's user.
    pub fn of_process() -> Self {
        Self::resolve(|name| std::env::var_os(name), rustix::process::geteuid().as_raw())
    }

    /// Where a project's things are. Nothing is made yet.
    pub fn project(&self, name: &ProjectName) -> ProjectPaths {
        let runtime = self.short(self.runtime.join(name.as_str()));
        let state = self.state.join(name.as_str());
        ProjectPaths {
            socket: runtime.join("control.sock"),
            lock: runtime.join("lock"),
            logs: state.join("logs"),
            supervisor_log: state.join("supervisor.log"),
            volumes: self.data.join("volumes").join(name.as_str()),
            runtime,
            state,
        }
    }

    /// The folder itself where sockets in it have short enough names, else one named by its digest.
    fn short(&self, folder: PathBuf) -> PathBuf {
        let fits = |path: &Path| path.as_os_str().len() + SOCKET_NAME <= SOCKET_PATH;
        if fits(&folder) {
            return folder;
        }
        let digest = Sha256::digest(folder.as_os_str().as_bytes());
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let beside = self.runtime.join(&name);
        if fits(&beside) { beside } else { PathBuf::from(format!("/tmp/wcompose-{}", self.user)).join(name) }
    }
}

impl ProjectPaths {
    /// Makes the folders a supervisor needs.
    pub fn prepare(&self) -> Result<(), PathError> {
        for folder in [&self.runtime, &self.state] {
            if let Some(parent) = folder.parent() {
                private_folder(parent)?;
            }
            private_folder(folder)?;
        }
        Ok(())
    }
}

/// Makes a folder only its user can look into, or makes sure that it is one.
pub fn private_folder(path: &Path) -> Result<(), PathError> {
    let failed = |source: io::Error| PathError::Failed { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    let not_private = |why| Err(PathError::NotPrivate { path: path.to_owned(), why });
    if !metadata.is_dir() {
        return not_private("it is no folder");
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return not_private("it belongs to somebody else");
    }
    if metadata.mode() & 0o077 != 0 {
        return not_private("others can look into it; `chmod 700` makes it private");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn resolve(variables: &[(&str, &str)]) -> Paths {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
        Paths::resolve(find, 1000)
    }

    #[test]
    fn each_folder_is_where_the_nearest_variable_says() {
        let paths = resolve(&[
            ("HOME", "/home/u"),
            ("XDG_RUNTIME_DIR", "/run/user/1000"),
            ("XDG_CACHE_HOME", "relative"),
            ("WCOMPOSE_DATA_DIR", "/data"),
        ]);
        assert_eq!(paths.runtime, Path::new("/run/user/1000/wcompose"));
        assert_eq!(paths.state, Path::new("/home/u/.local/state/wcompose"));
        assert_eq!(paths.cache, Path::new("/home/u/.cache/wcompose"));
        assert_eq!(paths.data, Path::new("/data"));
    }

    #[test]
    fn without_any_variable_everything_is_in_the_users_own_temporary_folders() {
        let (paths, temporary) = (resolve(&[]), std::env::temp_dir());
        assert_eq!(paths.runtime, temporary.join("wcompose-1000"));
        assert_eq!(paths.state, temporary.join("wcompose-1000-state"));
        assert_eq!(paths.data, temporary.join("wcompose-1000-data"));
    }

    #[test]
    fn sockets_of_long_names_stay_below_the_limit_and_apart() {
        let deep = format!("/{}", "d".repeat(150));
        for runtime in ["/run/user/1000/wcompose", deep.as_str()] {
            let paths = resolve(&[("WCOMPOSE_RUNTIME_DIR", runtime)]);
            let of = |name: &str| paths.project(&name.into());
            let long = [of(&"a".repeat(120)), of(&"b".repeat(120)), of("short")];
            for (index, project) in long.iter().enumerate() {
                assert!(project.socket.as_os_str().len() <= SOCKET_PATH, "{}", project.socket.display());
                assert!(long[..index].iter().all(|other| other.runtime != project.runtime));
            }
        }
        assert_eq!(
            resolve(&[("WCOMPOSE_RUNTIME_DIR", "/run/w")]).project(&"p".into()).socket,
            Path::new("/run/w/p/control.sock")
        );
    }

    #[test]
    fn a_folder_others_can_touch_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        private_folder(&at("a/b")).unwrap();
        private_folder(&at("a/b")).unwrap();
        assert_eq!(fs::metadata(at("a/b")).unwrap().permissions().mode() & 0o777, 0o700);

        fs::create_dir(at("open")).unwrap();
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink(at("a"), at("link")).unwrap();
        for name in ["open", "link"] {
            assert!(matches!(private_folder(&at(name)), Err(PathError::NotPrivate { .. })), "{name}");
        }
    }
}
