//! What travels: connections, whatever carries them, and HTTP requests that need no connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;

use super::agent::Channel;
use super::places::Place;

/// Bytes that one direction of a connection inside this process holds before its writer waits.
const WINDOW: usize = 64 * 1024;

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

impl Conn {
    /// A kernel socket. Small writes go out at once; IPv4 ends of a dual-stack socket show as IPv4.
    pub(super) fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (local, peer) = (canonical(stream.local_addr()?), canonical(stream.peer_addr()?));
        Ok(Self { io: Stream::Tcp(stream), local, peer })
    }

    /// The same, looked after by the runtime this is called on: whoever reads it there is woken by a thread of that runtime.
    pub fn here(self) -> io::Result<Self> {
        Ok(Self { io: self.io.here()?, ..self })
    }

    /// The same, counted among the open sockets of its guest for as long as its bytes are held.
    pub(super) fn placed(self, place: Place) -> Self {
        Self { io: Stream::Placed(Box::new(self.io), place), ..self }
    }

    /// Both ends of a connection inside this process: of who connects, and of who listens.
    pub(super) fn pair(connector: SocketAddr, listener: SocketAddr) -> (Self, Self) {
        let (near, far) = tokio::io::duplex(WINDOW);
        (
            Self { io: Stream::Inside(near), local: connector, peer: listener },
            Self { io: Stream::Inside(far), local: listener, peer: connector },
        )
    }
}

/// The same address, as IPv4 where it is IPv4 written as IPv6.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The carrier of a connection.
#[derive(Debug)]
pub enum Stream {
    /// A kernel socket, of whatever namespace.
    Tcp(TcpStream),
    /// A socket of an agent's, whose bytes it carries.
    Carried(Channel),
    /// A pipe inside this process.
    Inside(DuplexStream),
    /// Any of them, with the place it takes among the open sockets of its guest.
    Placed(Box<Stream>, Place),
}

impl Stream {
    fn here(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream.into_std()?)?),
            stream @ (Self::Carried(_) | Self::Inside(_)) => stream,
            Self::Placed(stream, place) => Self::Placed(Box::new(stream.here()?), place),
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Carried(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Inside(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Placed(stream, place) => {
                let before = buf.filled().len();
                let outcome = Pin::new(&mut **stream).poll_read(cx, buf);
                place.traffic().count_received(buf.filled().len() - before);
                outcome
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Carried(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Inside(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Placed(stream, place) => {
                let outcome = Pin::new(&mut **stream).poll_write(cx, buf);
                if let Poll::Ready(Ok(bytes)) = &outcome {
                    place.traffic().count_sent(*bytes);
                }
                outcome
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Carried(stream) => Pin::new(stream).poll_flush(cx),
            Self::Inside(stream) => Pin::new(stream).poll_flush(cx),
            Self::Placed(stream, _) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Carried(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Inside(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Placed(stream, _) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}

/// Where an outgoing HTTP request goes.
pub enum Route {
    /// A component of this process: no socket; the request comes from this address.
    Inside(Arc<dyn HttpService>, IpAddr),
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
    /// Answers one request, that comes from this address.
    async fn call(&self, request: http::Request<Body>, from: IpAddr) -> Result<http::Response<Body>, BoxError>;
}
