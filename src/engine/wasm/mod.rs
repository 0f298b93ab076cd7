//! The Wasm engine: guests under Wasmtime, in this process. The only folder that names wasmtime.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::docker::Docker;
use crate::net::stack::Fabric;

/// Folders the engine uses; each is made (0700) when it is first needed.
#[derive(Debug, Clone)]
pub struct Folders {
    /// Sockets, gone after a reboot.
    pub runtime: PathBuf,
    /// Compiled code.
    pub cache: PathBuf,
    /// Named volumes of projects that need no Docker engine: `<data>/volumes/<engine's name>`.
    pub data: PathBuf,
}

/// The Wasm engine of one supervisor.
pub struct Wasm {}

impl Wasm {
    /// An engine; `docker` is filled before the first instance that lives at an agent is created.
    pub fn new(folders: Folders, fabric: Arc<Fabric>, docker: Arc<OnceCell<Arc<Docker>>>) -> Arc<Self> {
        let _ = (folders, fabric, docker);
        todo!()
    }
}
