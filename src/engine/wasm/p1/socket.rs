//! A socket with POSIX's manners, as WasmEdge's extension of preview 1 gives them to guests: bind, listen, accept, connect,
//! send and receive, blocking or not, with its options. Knows nothing of a guest's memory.
//!
//! Everything waits by being polled: a blocking call polls until it is done, a non-blocking one polls once, and
//! `poll_oneoff` polls [`Socket::poll_readable`] and [`Socket::poll_writable`] of many.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;

use super::errno::Errno;
use super::options::Options;
use crate::engine::wasm::streams::{CHUNK, Reader, Shared, Writer};
use crate::engine::wasm::tcp::{Acceptor, Connecting};
use crate::net::stack::{Conn, Datagram, Stack};

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// An IPv6 socket takes both, as Linux's does.
    fn takes(self, address: SocketAddr) -> bool {
        self == Self::V6 || address.is_ipv4()
    }
}

/// Stream or datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Stream,
    Datagram,
}

/// A socket of a guest.
pub(super) struct Socket {
    pub(super) family: Family,
    pub(super) kind: Kind,
    /// `FDFLAGS_NONBLOCK`.
    pub(super) nonblocking: bool,
    pub(super) options: Options,
    state: State,
    /// What `SO_ERROR` tells next.
    error: Option<Errno>,
}

enum State {
    Unbound,
    /// Bound, and listening already: so a port that is taken is told to `bind`, and port 0 has its number.
    Bound(Acceptor),
    Listening(Acceptor),
    Connecting(Connecting),
    Connected(Connected),
    Datagram(Endpoint),
}

struct Connected {
    shared: Shared,
    reader: Reader,
    writer: Writer,
    local: SocketAddr,
    peer: SocketAddr,
    /// Both directions were shut down by the guest.
    over: bool,
}

impl Connected {
    fn new(conn: Conn) -> Self {
        let shared = Shared::new(conn.io);
        let (reader, writer) = shared.split();
        Self { shared, reader, writer, local: conn.local, peer: conn.peer, over: false }
    }
}

struct Endpoint {
    datagram: Datagram,
    /// Where `send` goes, and the only one that is heard.
    peer: Option<SocketAddr>,
    /// Received while waiting, not asked for yet.
    ahead: Option<(Bytes, SocketAddr)>,
}

impl Endpoint {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Errno>> {
        while self.ahead.is_none() {
            let (bytes, from) = ready!(self.datagram.poll_receive(cx)).map_err(|error| Errno::from(&error))?;
            if self.peer.is_none_or(|peer| peer == from) {
                self.ahead = Some((bytes, from));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Received bytes and who sent them.
pub(super) struct Received {
    pub(super) bytes: Bytes,
    pub(super) from: SocketAddr,
}

/// How bytes are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// They are gone afterwards.
    Away,
    /// They stay to be read again (`RIFLAGS_RECV_PEEK`).
    Peek,
}

/// Whether a direction is ready, for `poll_oneoff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    /// Ready, and nothing will ever pass again.
    HungUp,
}

impl Socket {
    pub(super) fn new(family: Family, kind: Kind) -> Self {
        Self { family, kind, nonblocking: false, options: Options::default(), state: State::Unbound, error: None }
    }

    fn connected(family: Family, conn: Conn) -> Self {
        Self { state: State::Connected(Connected::new(conn)), ..Self::new(family, Kind::Stream) }
    }

    pub(super) async fn bind(&mut self, stack: &Stack, to: SocketAddr) -> Result<(), Errno> {
        if !matches!(self.state, State::Unbound) {
            return Err(Errno::INVAL);
        }
        if !self.family.takes(to) {
            return Err(Errno::AFNOSUPPORT);
        }
        self.state = match self.kind {
            Kind::Stream => State::Bound(Acceptor::new(stack.listen(to).await.map_err(|error| Errno::from(&error))?)),
            Kind::Datagram => State::Datagram(endpoint(stack, to).await?),
        };
        Ok(())
    }

    /// An unbound socket gets a port, as POSIX has it.
    pub(super) async fn listen(&mut self, stack: &Stack) -> Result<(), Errno> {
        if self.kind == Kind::Datagram {
            return Err(Errno::NOTSUP);
        }
        if matches!(self.state, State::Unbound) {
            self.bind(stack, SocketAddr::new(self.family.unspecified(), 0)).await?;
        }
        match std::mem::replace(&mut self.state, State::Unbound) {
            State::Bound(acceptor) | State::Listening(acceptor) => {
                self.state = State::Listening(acceptor);
                Ok(())
            }
            other => {
                self.state = other;
                Err(Errno::INVAL)
            }
        }
    }

    pub(super) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self, Errno>> {
        let State::Listening(acceptor) = &mut self.state else { return Poll::Ready(Err(Errno::INVAL)) };
        let conn = ready!(acceptor.poll_accept(cx)).map_err(|error| Errno::from(&error))?;
        Poll::Ready(Ok(Self::connected(self.family, conn)))
    }

    /// Begins to connect; [`Socket::poll_connected`] tells how that ends. A datagram socket is connected at once.
    pub(super) async fn connect(&mut self, stack: &Stack, to: SocketAddr) -> Result<(), Errno> {
        if !self.family.takes(to) {
            return Err(Errno::AFNOSUPPORT);
        }
        if self.kind == Kind::Datagram {
            self.endpoint(stack).await?.peer = Some(to);
            return Ok(());
        }
        self.settle();
        match self.state {
            // A bound socket gives up its port: which one a connection comes from is the stack's choice.
            State::Unbound | State::Bound(_) => {
                self.error = None;
                self.state = State::Connecting(Connecting::begin(stack, to));
                Ok(())
            }
            State::Connecting(_) => Err(Errno::ALREADY),
            State::Connected(_) => Err(Errno::ISCONN),
            State::Listening(_) | State::Datagram(_) => Err(Errno::INVAL),
        }
    }

    /// Ready when no connection is being made any more; its failure is told here or by `SO_ERROR`, once.
    pub(super) fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Errno>> {
        ready!(self.poll_settled(cx));
        Poll::Ready(self.error.take().map_or(Ok(()), Err))
    }

    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Connecting(connecting) = &mut self.state else { return Poll::Ready(()) };
        match ready!(connecting.poll_take(cx)) {
            Some(Ok(conn)) => self.state = State::Connected(Connected::new(conn)),
            Some(Err(error)) => {
                self.error = Some(Errno::from(&error));
                self.state = State::Unbound;
            }
            None => self.state = State::Unbound,
        }
        Poll::Ready(())
    }

    /// Takes note of a connection that was made meanwhile.
    fn settle(&mut self) {
        let _ = self.poll_settled(&mut noop());
    }

    /// Up to `most` bytes; none is a stream's end.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        take: Take,
    ) -> Poll<Result<Received, Errno>> {
        ready!(self.poll_settled(cx));
        match &mut self.state {
            State::Connected(connected) => {
                let from = connected.peer;
                if take == Take::Peek {
                    ready!(connected.reader.poll_ready(cx));
                    let ahead = connected.reader.ahead();
                    if !ahead.is_empty() {
                        let bytes = Bytes::copy_from_slice(&ahead[..most.min(ahead.len())]);
                        return Poll::Ready(Ok(Received { bytes, from }));
                    }
                }
                let bytes = ready!(connected.reader.poll_take(cx, most)).map_err(|error| Errno::from(&error))?;
                Poll::Ready(Ok(Received { bytes, from }))
            }
            State::Datagram(endpoint) => {
                ready!(endpoint.poll_ready(cx))?;
                let received = match take {
                    Take::Away => endpoint.ahead.take(),
                    Take::Peek => endpoint.ahead.clone(),
                };
                let (bytes, from) = received.expect("it was ready");
                Poll::Ready(Ok(Received { bytes, from }))
            }
            State::Unbound | State::Bound(_) | State::Listening(_) | State::Connecting(_) => {
                Poll::Ready(Err(self.error.take().unwrap_or(Errno::NOTCONN)))
            }
        }
    }

    /// Sends what fits at once; answers how much that was.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        to: Option<SocketAddr>,
    ) -> Poll<Result<usize, Errno>> {
        ready!(self.poll_settled(cx));
        match &mut self.state {
            State::Connected(connected) => {
                ready!(connected.writer.poll_ready(cx));
                let fits = &bytes[..bytes.len().min(CHUNK)];
                let sent = connected.writer.send(Bytes::copy_from_slice(fits));
                Poll::Ready(sent.map(|()| fits.len()).map_err(|error| Errno::from(&error)))
            }
            State::Datagram(endpoint) => {
                let Some(to) = to.or(endpoint.peer) else { return Poll::Ready(Err(Errno::DESTADDRREQ)) };
                let sent = ready!(endpoint.datagram.poll_send(cx, bytes, to));
                Poll::Ready(sent.map(|()| bytes.len()).map_err(|error| Errno::from(&error)))
            }
            State::Unbound | State::Bound(_) | State::Listening(_) | State::Connecting(_) => {
                Poll::Ready(Err(self.error.take().unwrap_or(Errno::NOTCONN)))
            }
        }
    }

    /// A datagram socket gets a port before it first sends.
    pub(super) async fn prepare_to_send(&mut self, stack: &Stack) -> Result<(), Errno> {
        if self.kind == Kind::Datagram {
            self.endpoint(stack).await?;
        }
        Ok(())
    }

    async fn endpoint(&mut self, stack: &Stack) -> Result<&mut Endpoint, Errno> {
        if matches!(self.state, State::Unbound) {
            self.bind(stack, SocketAddr::new(self.family.unspecified(), 0)).await?;
        }
        match &mut self.state {
            State::Datagram(endpoint) => Ok(endpoint),
            _ => Err(Errno::INVAL),
        }
    }

    pub(super) fn shutdown(&mut self, how: Shutdown) -> Result<(), Errno> {
        self.settle();
        let State::Connected(connected) = &mut self.state else { return Err(Errno::NOTCONN) };
        connected.over |= how == Shutdown::Both;
        connected.shared.shutdown(how);
        Ok(())
    }

    /// Unbound, it is the wildcard of its family.
    pub(super) fn local(&mut self) -> SocketAddr {
        self.settle();
        match &self.state {
            State::Bound(acceptor) | State::Listening(acceptor) => acceptor.local(),
            State::Connected(connected) => connected.local,
            State::Datagram(endpoint) => endpoint.datagram.local(),
            State::Unbound | State::Connecting(_) => SocketAddr::new(self.family.unspecified(), 0),
        }
    }

    pub(super) fn peer(&mut self) -> Result<SocketAddr, Errno> {
        self.settle();
        match &self.state {
            State::Connected(connected) => Ok(connected.peer),
            State::Datagram(endpoint) => endpoint.peer.ok_or(Errno::NOTCONN),
            State::Unbound | State::Bound(_) | State::Listening(_) | State::Connecting(_) => Err(Errno::NOTCONN),
        }
    }

    pub(super) fn is_listening(&self) -> bool {
        matches!(self.state, State::Listening(_))
    }

    /// `SO_ERROR`: told once.
    pub(super) fn take_error(&mut self) -> Option<Errno> {
        self.settle();
        self.error.take()
    }

    /// Ready when a read, or an accept, would not wait.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<Readiness> {
        ready!(self.poll_settled(cx));
        match &mut self.state {
            State::Connected(connected) => {
                ready!(connected.reader.poll_ready(cx));
                Poll::Ready(if connected.over { Readiness::HungUp } else { Readiness::Ready })
            }
            State::Listening(acceptor) => acceptor.poll_ready(cx).map(|()| Readiness::Ready),
            State::Datagram(endpoint) => endpoint.poll_ready(cx).map(|_| Readiness::Ready),
            State::Unbound | State::Bound(_) | State::Connecting(_) => Poll::Ready(Readiness::HungUp),
        }
    }

    /// Ready when a write would not wait, or when connecting ended, well or not.
    pub(super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Readiness> {
        ready!(self.poll_settled(cx));
        match &mut self.state {
            State::Connected(connected) => {
                ready!(connected.writer.poll_ready(cx));
                Poll::Ready(if connected.over { Readiness::HungUp } else { Readiness::Ready })
            }
            State::Datagram(_) => Poll::Ready(Readiness::Ready),
            State::Listening(_) => Poll::Pending,
            State::Unbound | State::Bound(_) | State::Connecting(_) => Poll::Ready(Readiness::HungUp),
        }
    }
}

async fn endpoint(stack: &Stack, at: SocketAddr) -> Result<Endpoint, Errno> {
    let datagram = stack.datagram(at).await.map_err(|error| Errno::from(&error))?;
    Ok(Endpoint { datagram, peer: None, ahead: None })
}

fn noop() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
