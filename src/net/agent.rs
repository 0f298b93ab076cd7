//! Our end of the agent protocol: sockets in a container's network namespace, directories of its volumes, its standard
//! output, its end. The agent's own source is `agent/agent`.
//!
//! There are two ways to an agent. Over a Unix socket that is mounted into its container it passes descriptors
//! (`passing`); where that cannot be, it does the socket work itself and carries what goes over them (`mux`). Nobody
//! else knows which way it is.
//!
//! An agent's connection belongs to one task; [`Agent`] is the way to talk to it. The end of the connection is the
//! only sign that a container is gone: sockets that were passed stay open and silent (they keep its namespace
//! alive), so whoever holds them drops them on [`AgentEvent::Gone`].

mod link;
mod mux;
mod passing;
mod rendezvous;
mod sockets;
mod wire;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::carrier::Conn;
use mux::Mux;
pub use mux::{Channel, Incoming, Outgoing};
use passing::{Introduction, Passing};
pub use rendezvous::{Rendezvous, token};
pub(super) use sockets::poll_kernel;
pub use sockets::{Acceptor, Datagrams, Printer};

/// The agent's program, a static executable. Empty where there is none for this platform.
pub const BINARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent"));
/// Where the folder is mounted in the agent's container; without one, a file system of its own that it can write to.
pub const MOUNT: &str = "/run/wcompose";
/// Environment variable that holds the token.
pub const TOKEN: &str = "WCOMPOSE_TOKEN";
/// Environment variable that holds the targets of the volumes to pass, joined by `:`.
pub const VOLUMES: &str = "WCOMPOSE_VOLUMES";
/// Most volumes one agent passes.
pub const MOST_VOLUMES: usize = wire::VOLUMES;
/// The argument with which the program waits for its streams to be lent, in place of connecting to the mounted socket.
pub const AWAIT: &str = "await";
/// The argument with which the program, run in the container, lends its streams to the agent.
pub const LEND: &str = "lend";
/// Exit code of an agent that found no supervisor of its own at the mounted socket; its `main.rs` holds the same.
pub const UNREACHED: i64 = 98;

/// How long an agent that was told to exit may take.
const EXIT: Duration = Duration::from_secs(5);

/// A connected agent. Cheap to clone; the connection ends with the last clone or with [`Agent::exit`].
#[derive(Debug, Clone)]
pub struct Agent {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    way: Way,
    ended: watch::Receiver<bool>,
    resolver: String,
    directories: Mutex<Vec<(PathBuf, OwnedFd)>>,
    output: Mutex<Option<(Printer, Printer)>>,
    events: Mutex<Option<mpsc::Receiver<AgentEvent>>>,
}

/// How an agent gives its sockets.
#[derive(Debug)]
enum Way {
    Passing(Passing),
    Carrying(Mux),
}

/// Where the task of a connection tells what happens.
struct Told {
    events: mpsc::Sender<AgentEvent>,
    ending: watch::Sender<bool>,
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
    /// An agent that came to a rendezvous.
    fn passing(introduction: Introduction, door: Arc<rendezvous::Shared>) -> Self {
        let (told, events, ended) = channels(introduction.stopping);
        let Introduction { link, resolver, output, directories, .. } = introduction;
        let output = output.map(|(stdout, stderr)| (Printer::Passed(stdout), Printer::Passed(stderr)));
        let way = Way::Passing(Passing::start(link, door, told));
        Self::new(way, ended, resolver, directories, output, events)
    }

    /// An agent that waits for streams ([`AWAIT`]), over those of the program that lends them ([`LEND`]): waits for its
    /// hello, which has to show this token.
    pub async fn carrying(incoming: Incoming, outgoing: Outgoing, token: &str, limit: Duration) -> io::Result<Self> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the agent did not answer");
        let mut greeting = timeout(limit, mux::greet(incoming, outgoing, token)).await.map_err(late)??;
        let (told, events, ended) = channels(greeting.stopping);
        let resolver = std::mem::take(&mut greeting.resolver);
        let (mux, [stdout, stderr]) = Mux::start(greeting, told);
        let output = Some((Printer::Carried(stdout), Printer::Carried(stderr)));
        Ok(Self::new(Way::Carrying(mux), ended, resolver, Vec::new(), output, events))
    }

    fn new(
        way: Way,
        ended: watch::Receiver<bool>,
        resolver: String,
        directories: Vec<(PathBuf, OwnedFd)>,
        output: Option<(Printer, Printer)>,
        events: mpsc::Receiver<AgentEvent>,
    ) -> Self {
        let inner = Inner {
            way,
            ended,
            resolver,
            directories: Mutex::new(directories),
            output: Mutex::new(output),
            events: Mutex::new(Some(events)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Listens in the container. The IPv6 wildcard takes IPv4 as well, and becomes the IPv4 one where there is no IPv6.
    pub async fn listen(&self, at: SocketAddr) -> io::Result<Acceptor> {
        let listen = |at| async move {
            match &self.inner.way {
                Way::Passing(passing) => passing.listen(at).await.map(Acceptor::Passed),
                Way::Carrying(mux) => mux.listen(at).await.map(Acceptor::Carried),
            }
        };
        with_or_without_v6(at, listen).await
    }

    /// Connects out of the container.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<Conn> {
        match &self.inner.way {
            Way::Passing(passing) => Conn::over(passing.connect(to).await?),
            Way::Carrying(mux) => mux.connect(to).await,
        }
    }

    /// A datagram socket in the container, with the wildcards of [`Agent::listen`].
    pub async fn datagrams(&self, at: SocketAddr) -> io::Result<Datagrams> {
        let bind = |at| async move {
            match &self.inner.way {
                Way::Passing(passing) => passing.datagrams(at).await.map(Datagrams::Passed),
                Way::Carrying(mux) => mux.datagrams(at).await.map(Datagrams::Carried),
            }
        };
        with_or_without_v6(at, bind).await
    }

    /// Directory descriptors of the volumes asked for, by target. Each can be taken once.
    pub fn directories(&self) -> Vec<(PathBuf, OwnedFd)> {
        std::mem::take(&mut self.inner.directories.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The container's standard output and standard error: what is written there is what `docker logs` shows.
    /// Can be taken once.
    pub fn output(&self) -> Option<(Printer, Printer)> {
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
        match &self.inner.way {
            Way::Passing(passing) => passing.set_health(healthy),
            Way::Carrying(mux) => mux.set_health(healthy),
        }
    }

    /// Lets the container end with this code. Every socket made here must be closed before, or peers hang.
    /// Returns when it has ended, or after a few seconds.
    pub async fn exit(&self, code: u8) {
        match &self.inner.way {
            Way::Passing(passing) => passing.exit(code).await,
            Way::Carrying(mux) => mux.exit(code),
        }
        let _ = timeout(EXIT, self.inner.ended.clone().wait_for(|ended| *ended)).await;
    }
}

fn channels(stopping: bool) -> (Told, mpsc::Receiver<AgentEvent>, watch::Receiver<bool>) {
    let (events, told) = mpsc::channel(8);
    if stopping {
        // The channel is new: there is room.
        let _ = events.try_send(AgentEvent::Terminate);
    }
    let (ending, ended) = watch::channel(false);
    (Told { events, ending }, told, ended)
}

/// Binds at an address: the IPv6 wildcard becomes the IPv4 one where there is no IPv6.
async fn with_or_without_v6<T, F: Future<Output = io::Result<T>>>(
    at: SocketAddr,
    bind: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    match bind(at).await {
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
                && at.is_ipv6()
                && at.ip().is_unspecified() =>
        {
            bind((Ipv4Addr::UNSPECIFIED, at.port()).into()).await
        }
        bound => bound,
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the service's container is gone")
}
