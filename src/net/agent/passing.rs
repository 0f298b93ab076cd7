//! An agent that passes descriptors: sockets made in the container, then bound, listened on and connected here.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream as UnconnectedStream, UdpSocket as UnwatchedSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketType};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::link::{Link, Packet};
use super::wire::{self, Said};
use super::{AgentEvent, Told, gone, rendezvous};

/// Sockets asked for and not yet answered: both ends' buffers hold as many frames, so neither waits for the other.
const IN_FLIGHT: usize = 64;
/// Connections that wait to be accepted, as Linux bounds it.
const BACKLOG: u32 = 4096;

/// What came with an agent's hello.
pub(super) struct Introduction {
    pub(super) link: Link,
    pub(super) resolver: String,
    pub(super) output: Option<(OwnedFd, OwnedFd)>,
    pub(super) directories: Vec<(PathBuf, OwnedFd)>,
    /// The container was asked to end meanwhile.
    pub(super) stopping: bool,
}

/// The connection to an agent; it ends with this.
#[derive(Debug)]
pub(super) struct Passing {
    requests: mpsc::Sender<Request>,
    door: Arc<rendezvous::Shared>,
    _talk: JoinSet<()>,
}

/// What is asked of an agent.
enum Request {
    Socket { family: AddressFamily, kind: SocketType, answer: oneshot::Sender<io::Result<OwnedFd>> },
    Exit(u8),
}

impl Passing {
    pub(super) fn start(link: Link, door: Arc<rendezvous::Shared>, told: Told) -> Self {
        let (requests, asked) = mpsc::channel(IN_FLIGHT);
        let mut talk = JoinSet::new();
        talk.spawn(Talk { link, told, pending: HashMap::new(), next: 0 }.run(asked));
        Self { requests, door, _talk: talk }
    }

    /// Listens in the container.
    pub(super) async fn listen(&self, at: SocketAddr) -> io::Result<TcpListener> {
        let socket = stream(self.bindable(at, SocketType::STREAM).await?);
        // A guest that was restarted can listen again at once.
        socket.set_reuseaddr(true)?;
        socket.bind(at)?;
        socket.listen(BACKLOG)
    }

    /// Connects out of the container.
    pub(super) async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        stream(self.socket_for(to, SocketType::STREAM).await?).connect(to).await
    }

    /// A datagram socket in the container.
    pub(super) async fn datagrams(&self, at: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.bindable(at, SocketType::DGRAM).await?;
        rustix::net::bind(&socket, &at)?;
        UdpSocket::from_std(UnwatchedSocket::from(socket))
    }

    pub(super) fn set_health(&self, healthy: bool) {
        self.door.set_health(healthy);
    }

    pub(super) async fn exit(&self, code: u8) {
        // Where this fails it has ended already.
        let _ = self.requests.send(Request::Exit(code)).await;
    }

    /// A socket that is to be bound to an address: the IPv6 wildcard takes IPv4 as well.
    async fn bindable(&self, at: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
        let socket = self.socket_for(at, kind).await?;
        if at.is_ipv6() {
            rustix::net::sockopt::set_ipv6_v6only(&socket, !at.ip().is_unspecified())?;
        }
        Ok(socket)
    }

    async fn socket_for(&self, address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
        self.socket(if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }, kind).await
    }

    /// A socket of the container's network namespace: unbound, non-blocking, close-on-exec.
    pub(super) async fn socket(&self, family: AddressFamily, kind: SocketType) -> io::Result<OwnedFd> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Socket { family, kind, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

fn stream(socket: OwnedFd) -> TcpSocket {
    TcpSocket::from_std_stream(UnconnectedStream::from(socket))
}

/// The task that owns a connection.
struct Talk {
    link: Link,
    told: Told,
    pending: HashMap<u32, oneshot::Sender<io::Result<OwnedFd>>>,
    next: u32,
}

impl Talk {
    /// Until the connection ends. Whoever still waits for a socket then learns it by the closed channel.
    async fn run(mut self, mut asked: mpsc::Receiver<Request>) {
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
        self.told.ending.send_replace(true);
        // Bounded: a reader that is behind by eight events still learns the last one.
        let _ = self.told.events.send(AgentEvent::Gone).await;
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
            Some(Said::Signal) => drop(self.told.events.try_send(AgentEvent::Terminate)),
            Some(Said::Hello { .. } | Said::Question { .. } | Said::Volume { .. } | Said::Ready) | None => {}
        }
    }
}
