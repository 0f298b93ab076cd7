//! Our end of the agent protocol: sockets made in a container's network namespace, directories of its volumes,
//! its standard output, its end. The agent's own source is `agent/agent.rs`.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};
use tokio::sync::mpsc;

/// The agent's program, a static executable.
pub const BINARY: &[u8] = &[];

/// Where an agent's container finds us: a folder to be mounted read-only at `/run/wcompose`, with a socket in it.
#[derive(Debug)]
pub struct Rendezvous {}

impl Rendezvous {
    /// Makes the folder `runtime/id` (0755 under a private parent) and the socket in it (0666).
    pub fn prepare(runtime: &Path, id: &str) -> io::Result<Self> {
        let _ = (runtime, id);
        todo!()
    }

    /// The folder to mount at [`MOUNT`].
    pub fn folder(&self) -> &Path {
        todo!()
    }

    /// What the agent must present, as the value of the environment variable [`TOKEN`].
    pub fn token(&self) -> &str {
        todo!()
    }

    /// Waits for the agent of a container that was started. `volumes` are the targets whose directory descriptors are wanted.
    pub async fn accept(&self, volumes: &[String], timeout: Duration) -> io::Result<Agent> {
        let _ = (volumes, timeout);
        todo!()
    }
}

/// Where the folder is mounted in the agent's container.
pub const MOUNT: &str = "/run/wcompose";
/// Environment variable that holds the token.
pub const TOKEN: &str = "WCOMPOSE_TOKEN";

/// A connected agent. Cheap to clone; the connection ends with the last clone or with [`Agent::exit`].
#[derive(Debug, Clone)]
pub struct Agent {}

impl Agent {
    /// A socket of the container's network namespace: unbound, non-blocking, close-on-exec.
    pub async fn socket(&self, family: AddressFamily, kind: SocketType) -> io::Result<OwnedFd> {
        let _ = (family, kind);
        todo!()
    }

    /// Directory descriptors of the volumes asked for, by target. Each can be taken once.
    pub fn directories(&self) -> Vec<(PathBuf, OwnedFd)> {
        todo!()
    }

    /// The container's standard output and standard error, non-blocking: what is written there is what `docker logs` shows.
    /// Can be taken once.
    pub fn output(&self) -> Option<(OwnedFd, OwnedFd)> {
        todo!()
    }

    /// What the agent tells by itself. Can be taken once.
    pub fn events(&self) -> Option<mpsc::Receiver<AgentEvent>> {
        todo!()
    }

    /// Lets the container end with this code. Every socket made here must be closed before, or peers hang.
    pub async fn exit(&self, code: u8) {
        let _ = code;
        todo!()
    }
}

/// What an agent tells by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentEvent {
    /// The container got SIGTERM (or the image's stop signal): someone stops it from outside.
    Terminate,
    /// The agent is gone: killed, removed, or the engine died.
    Gone,
}
