//! Our end of the agent protocol: sockets made in a container's network namespace, directories of its volumes,
//! its standard output, its end. The agent's own source is `agent/agent.rs`.
//!
//! An agent's connection belongs to one task; [`Agent`] is the way to talk to it. The end of the connection is the
//! only sign that a container is gone: sockets that were made in it stay open and silent (they keep its namespace
//! alive), so whoever holds them drops them on [`AgentEvent::Gone`].

mod link;
mod rendezvous;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use link::{Link, Packet};
pub use rendezvous::Rendezvous;
use wire::Said;

/// The agent's program, a static executable. Empty where there is none for this platform.
pub const BINARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent"));
/// Where the folder is mounted in the agent's container.
pub const MOUNT: &str = "/run/wcompose";
/// Environment variable that holds the token.
pub const TOKEN: &str = "WCOMPOSE_TOKEN";
/// Environment variable that holds the targets of the volumes to pass, joined by `:`.
pub const VOLUMES: &str = "WCOMPOSE_VOLUMES";
/// Most volumes one agent passes.
pub const MOST_VOLUMES: usize = wire::VOLUMES;

/// Sockets asked for and not yet answered: both ends' buffers hold as many frames, so neither waits for the other.
const IN_FLIGHT: usize = 64;
/// How long an agent that was told to exit may take.
const EXIT: Duration = Duration::from_secs(5);

/// A connected agent. Cheap to clone; the connection ends with the last clone or with [`Agent::exit`].
#[derive(Debug, Clone)]
pub struct Agent {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    requests: mpsc::Sender<Request>,
    ended: watch::Receiver<bool>,
    resolver: String,
    directories: Mutex<Vec<(PathBuf, OwnedFd)>>,
    output: Mutex<Option<(OwnedFd, OwnedFd)>>,
    events: Mutex<Option<mpsc::Receiver<AgentEvent>>>,
    door: Arc<rendezvous::Shared>,
    _talk: JoinSet<()>,
}

/// What came with an agent's hello.
struct Introduction {
    link: Link,
    resolver: String,
    output: Option<(OwnedFd, OwnedFd)>,
    directories: Vec<(PathBuf, OwnedFd)>,
    /// The container was asked to end meanwhile.
    stopping: bool,
}

/// What is asked of an agent.
enum Request {
    Socket { family: AddressFamily, kind: SocketType, answer: oneshot::Sender<io::Result<OwnedFd>> },
    Exit(u8),
}

/// What an agent tells by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentEvent {
    /// The container got SIGTERM (or the image's stop signal): someone stops it from outside.
    Terminate,
    /// The agent is gone: killed, removed, or the engine died.
    Gone,
}

impl Agent {
    fn new(introduction: Introduction, door: Arc<rendezvous::Shared>) -> Self {
        let Introduction { link, resolver, output, directories, stopping } = introduction;
        let (requests, asked) = mpsc::channel(IN_FLIGHT);
        let (events, told) = mpsc::channel(8);
        if stopping {
            // The channel is new: there is room.
            let _ = events.try_send(AgentEvent::Terminate);
        }
        let (ending, ended) = watch::channel(false);
        let mut talk = JoinSet::new();
        talk.spawn(Talk { link, events, pending: HashMap::new(), next: 0 }.run(asked, ending));
        let inner = Inner {
            requests,
            ended,
            resolver,
            directories: Mutex::new(directories),
            output: Mutex::new(output),
            events: Mutex::new(Some(told)),
            door,
            _talk: talk,
        };
        Self { inner: Arc::new(inner) }
    }

    /// A socket of the container's network namespace: unbound, non-blocking, close-on-exec.
    pub async fn socket(&self, family: AddressFamily, kind: SocketType) -> io::Result<OwnedFd> {
        let (answer, answered) = oneshot::channel();
        self.inner.requests.send(Request::Socket { family, kind, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Directory descriptors of the volumes asked for, by target. Each can be taken once.
    pub fn directories(&self) -> Vec<(PathBuf, OwnedFd)> {
        std::mem::take(&mut self.inner.directories.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The container's standard output and standard error, non-blocking: what is written there is what `docker logs` shows.
    /// Can be taken once.
    pub fn output(&self) -> Option<(OwnedFd, OwnedFd)> {
        self.inner.output.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What the agent tells by itself. Can be taken once.
    pub fn events(&self) -> Option<mpsc::Receiver<AgentEvent>> {
        self.inner.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Content of the container's `/etc/resolv.conf`: which name server the engine gave it.
    pub fn resolver(&self) -> &str {
        &self.inner.resolver
    }

    /// What the container's health check is told from now on; not healthy at first.
    pub fn set_health(&self, healthy: bool) {
        self.inner.door.set_health(healthy);
    }

    /// Lets the container end with this code. Every socket made here must be closed before, or peers hang.
    /// Returns when it has ended, or after a few seconds.
    pub async fn exit(&self, code: u8) {
        // Where this fails it has ended already.
        let _ = self.inner.requests.send(Request::Exit(code)).await;
        let _ = timeout(EXIT, self.inner.ended.clone().wait_for(|ended| *ended)).await;
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the service's container is gone")
}

/// The task that owns a connection.
struct Talk {
    link: Link,
    events: mpsc::Sender<AgentEvent>,
    pending: HashMap<u32, oneshot::Sender<io::Result<OwnedFd>>>,
    next: u32,
}

impl Talk {
    /// Until the connection ends. Whoever still waits for a socket then learns it by the closed channel.
    async fn run(mut self, mut asked: mpsc::Receiver<Request>, ending: watch::Sender<bool>) {
        loop {
            let carried_on = tokio::select! {
                packet = self.link.receive() => match packet {
                    Ok(packet) => { self.hear(packet); Ok(()) }
                    Err(error) => Err(error),
                },
                Some(request) = asked.recv(), if self.pending.len() < IN_FLIGHT => self.ask(request).await,
            };
            if carried_on.is_err() {
                break;
            }
        }
        drop(asked);
        self.pending.clear();
        ending.send_replace(true);
        // Bounded: a reader that is behind by eight events still learns the last one.
        let _ = self.events.send(AgentEvent::Gone).await;
    }

    async fn ask(&mut self, request: Request) -> io::Result<()> {
        match request {
            Request::Socket { family, kind, answer } => {
                let Some(frame) = wire::socket(self.next, family, kind) else {
                    let _ = answer.send(Err(io::ErrorKind::Unsupported.into()));
                    return Ok(());
                };
                self.pending.insert(self.next, answer);
                self.next = self.next.wrapping_add(1);
                self.link.send(&frame).await
            }
            Request::Exit(code) => self.link.send(&wire::exit(code)).await,
        }
    }

    fn hear(&mut self, packet: Packet) {
        let Packet { bytes, mut descriptors } = packet;
        match wire::read(&bytes) {
            Some(Said::Socket { number, errno }) => {
                let Some(answer) = self.pending.remove(&number) else { return };
                let made = match (errno, descriptors.pop()) {
                    (0, Some(socket)) => Ok(socket),
                    // Sent, but this process has no room for another descriptor.
                    (0, None) => Err(rustix::io::Errno::MFILE.into()),
                    (errno, _) => Err(io::Error::from_raw_os_error(errno)),
                };
                // Who asked may have given up.
                let _ = answer.send(made);
            }
            // Said again by whoever wants the container to end, should nobody have read the last eight.
            Some(Said::Signal) => drop(self.events.try_send(AgentEvent::Terminate)),
            Some(Said::Hello { .. } | Said::Question { .. } | Said::Volume { .. } | Said::Ready) | None => {}
        }
    }
}
