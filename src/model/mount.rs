//! What a service sees of files outside its image: volumes, binds, tmpfs, configs, secrets.

use std::path::PathBuf;

use super::name::VolumeKey;
use super::quantity::Bytes;

/// One entry of `volumes` (or `tmpfs`), in long form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// Where, as written in the file: an absolute path in the container.
    pub target: String,
    /// Writes are refused.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A volume declared under top-level `volumes`.
    Volume {
        /// Its key.
        key: VolumeKey,
        /// Do not copy the image's content into an empty volume.
        no_copy: bool,
        /// A folder inside the volume.
        subpath: Option<String>,
    },
    /// A volume without a name, living as long as its container.
    Anonymous {
        /// Do not copy the image's content.
        no_copy: bool,
    },
    /// A path of the host.
    Bind {
        /// Absolute path.
        path: PathBuf,
        /// Create the folder when it is missing (the short form's rule).
        create: bool,
        /// `rprivate`, `rshared`, …; absent means the engine's default.
        propagation: Option<String>,
        /// `z` or `Z`.
        selinux: Option<String>,
    },
    /// Memory.
    Tmpfs {
        /// Size limit.
        size: Option<Bytes>,
        /// Permission bits.
        mode: Option<u32>,
    },
    /// Anything else (`npipe`, `cluster`, `image`): its type and source, handed to the engine as written.
    Other {
        /// The `type`.
        kind: String,
        /// The `source`.
        source: Option<String>,
    },
}

/// A use of a top-level config or secret by a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileGrant {
    /// Key under top-level `configs` or `secrets`.
    pub source: String,
    /// Where its content comes from: the top-level element, so that engines need not ask the project.
    pub content: FileContent,
    /// Absolute path inside the container.
    pub target: String,
    /// Owner, as written.
    pub uid: Option<String>,
    /// Group, as written.
    pub gid: Option<String>,
    /// Permission bits.
    pub mode: Option<u32>,
}

/// Where the content of a top-level config or secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContent {
    /// A file of the host, absolute path.
    File(PathBuf),
    /// The value of a variable of the project's environment, already looked up; absent when unset.
    Environment {
        /// The variable.
        name: String,
        /// Its value.
        value: Option<String>,
    },
    /// Text in the compose file.
    Inline(String),
    /// Managed elsewhere.
    External {
        /// The name it has there.
        name: String,
    },
}
