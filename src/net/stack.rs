//! What one guest sees of the network: listen, connect, look up names. Everything it does passes through here,
//! and nothing passes that [`super::policy`] does not allow.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::agent::Agent;
use super::directory::Directory;
use crate::model::{InstanceName, Port};

/// The listeners of this process and the addresses given out in it. One for each supervisor.
#[derive(Debug)]
pub struct Fabric {}

/// What a stack is made from.
#[derive(Debug)]
pub struct StackSpec {
    /// Whose network it is.
    pub instance: InstanceName,
    /// The networks it is on, by the engine's name, `true` where the network is in process (of Wasm services alone).
    pub networks: Vec<StackNetwork>,
    /// Makes sockets in the instance's container; absent when all its networks are in process.
    pub agent: Option<Agent>,
    /// `x-wasm.egress`, as written.
    pub egress: Vec<String>,
    /// `extra_hosts` as (name, address or `host-gateway`).
    pub extra_hosts: Vec<(String, String)>,
    /// Where refusals go, once for each target.
    pub refusals: mpsc::Sender<Refused>,
}

/// A network as a stack knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackNetwork {
    /// The engine's name.
    pub name: String,
    /// Of Wasm services alone: it lives in this process.
    pub in_process: bool,
    /// No way out (`internal: true`).
    pub internal: bool,
    /// Every name the instance has there.
    pub names: Vec<String>,
    /// Addresses the agent's container has there; empty when in process.
    pub addresses: Vec<IpAddr>,
}

/// Something the policy refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What was asked for, e.g. `connect to 169.254.169.254:80`.
    pub what: String,
    /// Why it was refused.
    pub why: String,
    /// The line to add to the file, where there is one.
    pub grant: Option<String>,
}

impl Fabric {
    /// An empty fabric over a directory.
    pub fn new(directory: Arc<Directory>) -> Arc<Self> {
        let _ = directory;
        todo!()
    }

    /// Gives an instance its network: in-process addresses are allocated, and all its names and addresses entered in the directory.
    pub fn join(self: &Arc<Self>, spec: StackSpec) -> Stack {
        let _ = spec;
        todo!()
    }

    /// Binds the published ports of an instance on the host. They stay bound, over restarts and reloads, until
    /// [`Fabric::unpublish`]; connections wait until the guest listens. A taken port is an error that names port and holder.
    pub async fn publish(
        self: &Arc<Self>,
        instance: &InstanceName,
        ports: &[Port],
    ) -> Result<Vec<BoundPort>, PublishError> {
        let _ = (instance, ports);
        todo!()
    }

    /// Releases the published ports of an instance.
    pub fn unpublish(&self, instance: &InstanceName) {
        let _ = instance;
        todo!()
    }

    /// Takes an instance off the network: listeners close, connections in process end, its directory entry goes.
    pub fn leave(&self, instance: &InstanceName) {
        let _ = instance;
        todo!()
    }
}

/// A published port that was bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundPort {
    /// Host address.
    pub host: SocketAddr,
    /// Port of the instance.
    pub target: u16,
}

/// A port that could not be published.
#[derive(Debug, thiserror::Error)]
#[error("port {address} is not free: {source}{}", holder.as_deref().map(|who| format!(" (held by {who})")).unwrap_or_default())]
pub struct PublishError {
    /// Host address and port asked for.
    pub address: SocketAddr,
    /// Who holds it, where that can be found out: `nginx (pid 812)`.
    pub holder: Option<String>,
    /// The socket's error.
    pub source: io::Error,
}

/// One instance's network. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stack {}

impl Stack {
    /// Listens on a port of the instance: its container addresses, its in-process addresses, and the host ports published for it.
    /// An address other than the wildcard or one of the instance's own is refused with `AddrNotAvailable`; a port in use with `AddrInUse`.
    pub async fn listen(&self, at: SocketAddr) -> Result<Listener, NetError> {
        let _ = at;
        todo!()
    }

    /// Connects to an address, in process where the other end lives here, else through the agent, else (egress) from the host.
    pub async fn connect(&self, to: SocketAddr) -> Result<Conn, NetError> {
        let _ = to;
        todo!()
    }

    /// Addresses of a name: services, aliases and container names on shared networks, `localhost`, IP literals, granted outside names.
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, NetError> {
        let _ = name;
        todo!()
    }

    /// Serves HTTP on a port: in-process requests go straight to `service`, all others come out of the returned listener.
    pub async fn listen_http(&self, at: SocketAddr, service: Arc<dyn HttpService>) -> Result<Listener, NetError> {
        let _ = (at, service);
        todo!()
    }

    /// Where an outgoing request to `host:port` goes.
    pub async fn route(&self, host: &str, port: u16) -> Result<Route, NetError> {
        let _ = (host, port);
        todo!()
    }
}

/// Where an outgoing HTTP request goes.
pub enum Route {
    /// A component of this process: no socket.
    Inside(Arc<dyn HttpService>),
    /// A connection to speak HTTP over.
    Conn(Conn),
}

/// Error of a body or of a service behind it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A body as it travels between components.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Something in this process that answers HTTP requests.
#[async_trait::async_trait]
pub trait HttpService: Send + Sync {
    /// Answers one request.
    async fn call(&self, request: http::Request<Body>) -> Result<http::Response<Body>, BoxError>;
}

/// A listening port of a guest. Dropping it frees the port; published host ports stay bound.
#[derive(Debug)]
pub struct Listener {}

impl Listener {
    /// The address the guest sees itself listening on.
    pub fn local(&self) -> SocketAddr {
        todo!()
    }

    /// The next connection.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Conn>> {
        let _ = cx;
        todo!()
    }
}

/// A connection, whatever carries it.
#[derive(Debug)]
pub struct Conn {
    /// The bytes.
    pub io: Stream,
    /// Our end, as the guest sees it.
    pub local: SocketAddr,
    /// The other end, as the guest sees it.
    pub peer: SocketAddr,
}

/// The carrier of a connection.
#[derive(Debug)]
pub enum Stream {
    /// A kernel socket, of whatever namespace.
    Tcp(TcpStream),
    /// A pipe inside this process.
    Inside(DuplexStream),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Inside(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Inside(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Inside(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Inside(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Why the network said no.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The file does not grant it; the refusal was reported once for this target.
    #[error("{0}")]
    Refused(String),
    /// No such name.
    #[error("no such name")]
    UnknownName,
    /// The sockets' own error.
    #[error(transparent)]
    Io(#[from] io::Error),
}
