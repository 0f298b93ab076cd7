//! `wasi:sockets/udp` over a [`Stack`], in place of Wasmtime's own, which refuses it.
//!
//! As in [`super::sockets`], Wasmtime's bindings are kept and their resources are typed indices of what is ours. A socket
//! and the streams of its last `stream` call share one [`Datagram`]. WASI's IPv6 sockets speak IPv6 alone: what comes over
//! IPv4 to one is passed over.
//!
//! [`Stack`]: crate::net::stack::Stack

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::bindings::sockets as wasi;
use wasmtime_wasi::p2::{DynPollable, Network, Pollable, SocketError, SocketResult, subscribe};

use wasi::network::{ErrorCode, IpAddressFamily, IpSocketAddress};
use wasi::udp::{
    IncomingDatagram, IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream, UdpSocket as StockSocket,
};

use super::host::State;
use super::sockets::{Sockets, View, fits, noop, refusal};
use crate::net::stack::Datagram;

/// Datagrams of one call, either way.
const MOST: usize = 16;
/// Bytes of one `receive`, or one datagram more.
const MOST_BYTES: usize = 64 * 1024;
/// Datagrams passed over in one call before the guest gets its turn again.
const MOST_PASSED_OVER: usize = 256;

/// Puts our interfaces in the place of Wasmtime's; the linker allows it.
pub fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasi::udp::add_to_linker::<State, Sockets>(linker, State::network)?;
    wasi::udp_create_socket::add_to_linker::<State, Sockets>(linker, State::network)
}

/// A UDP socket as `wasi:sockets` describes it.
struct Socket {
    phase: Phase,
    family: IpAddressFamily,
    hop_limit: u8,
    receive_buffer: u64,
    send_buffer: u64,
}

enum Phase {
    Unbound,
    BindStarted(Shared),
    Bound(Shared, Option<SocketAddr>),
}

/// A datagram socket that a socket and its streams hold together.
#[derive(Clone)]
struct Shared(Arc<Mutex<Datagram>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Datagram> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receiving half.
struct Incoming {
    shared: Shared,
    family: IpAddressFamily,
    /// The only one whose datagrams are received.
    remote: Option<SocketAddr>,
    /// Received while waiting for one, not asked for yet.
    ahead: Option<io::Result<(Bytes, SocketAddr)>>,
}

/// The sending half.
struct Outgoing {
    shared: Shared,
    family: IpAddressFamily,
    /// The only one that is sent to.
    remote: Option<SocketAddr>,
    /// Datagrams that the next `send` may bring.
    permits: usize,
    /// Taken from the guest, while the kernel has no room for it.
    waiting: Option<(Vec<u8>, SocketAddr)>,
    /// How that one ended, if badly.
    failed: Option<SocketError>,
}

impl Incoming {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut passed_over = 0;
        while self.ahead.is_none() {
            let received = ready!(self.shared.lock().poll_receive(cx));
            let wanted = match &received {
                Ok((_, from)) => fits(self.family, *from) && self.remote.is_none_or(|remote| remote == *from),
                Err(_) => true,
            };
            if wanted {
                self.ahead = Some(received);
            } else if passed_over == MOST_PASSED_OVER {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            passed_over += 1;
        }
        Poll::Ready(())
    }
}

#[async_trait::async_trait]
impl Pollable for Incoming {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }
}

impl Outgoing {
    /// Ready when the next datagram can be taken.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some((bytes, to)) = &self.waiting {
            let sent = ready!(self.shared.lock().poll_send(cx, bytes, *to));
            self.failed = sent.err().map(refusal);
            self.waiting = None;
        }
        Poll::Ready(())
    }

    /// Where a datagram goes, if it may go there.
    fn destination(&self, asked: Option<IpSocketAddress>) -> Result<SocketAddr, ErrorCode> {
        let asked = asked.map(SocketAddr::from);
        match (asked, self.remote) {
            (Some(to), Some(remote)) if to != remote => Err(ErrorCode::InvalidArgument),
            (None, None) => Err(ErrorCode::InvalidArgument),
            (_, Some(remote)) => Ok(remote),
            (Some(to), None) => endpoint(self.family, to),
        }
    }

    /// Sends one, or takes it to be sent as soon as there is room.
    fn send(&mut self, datagram: OutgoingDatagram) -> SocketResult<()> {
        let to = self.destination(datagram.remote_address)?;
        let sent = self.shared.lock().poll_send(&mut noop(), &datagram.data, to);
        match sent {
            Poll::Ready(sent) => sent.map_err(refusal),
            Poll::Pending => {
                self.waiting = Some((datagram.data, to));
                Ok(())
            }
        }
    }
}

#[async_trait::async_trait]
impl Pollable for Outgoing {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }
}

/// Nothing about the socket itself waits.
#[async_trait::async_trait]
impl Pollable for Socket {
    async fn ready(&mut self) {}
}

/// An endpoint that something can be sent to.
fn endpoint(family: IpAddressFamily, to: SocketAddr) -> Result<SocketAddr, ErrorCode> {
    let mapped = matches!(to, SocketAddr::V6(to) if to.ip().to_ipv4_mapped().is_some());
    if !fits(family, to) || mapped || to.port() == 0 || to.ip().is_unspecified() {
        return Err(ErrorCode::InvalidArgument);
    }
    Ok(to)
}

fn ours(socket: &Resource<StockSocket>) -> Resource<Socket> {
    Resource::new_borrow(socket.rep())
}

impl View<'_> {
    fn datagram_socket(&mut self, this: &Resource<StockSocket>) -> SocketResult<&mut Socket> {
        Ok(self.table().get_mut(&ours(this))?)
    }

    fn incoming(&mut self, this: &Resource<IncomingDatagramStream>) -> SocketResult<&mut Incoming> {
        Ok(self.table().get_mut(&Resource::new_borrow(this.rep()))?)
    }

    fn outgoing(&mut self, this: &Resource<OutgoingDatagramStream>) -> SocketResult<&mut Outgoing> {
        Ok(self.table().get_mut(&Resource::new_borrow(this.rep()))?)
    }
}

impl wasi::udp_create_socket::Host for View<'_> {
    async fn create_udp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<StockSocket>> {
        // Linux's own defaults. The options are kept and told back; the host tunes what is behind.
        let (hop_limit, receive_buffer, send_buffer) = (64, 212_992, 212_992);
        let socket = Socket { phase: Phase::Unbound, family, hop_limit, receive_buffer, send_buffer };
        let socket = self.table().push(socket)?;
        Ok(Resource::new_own(socket.rep()))
    }
}

impl wasi::udp::Host for View<'_> {}

/// A numeric option: kept, never 0.
macro_rules! option {
    ($field:ident, $get:ident, $set:ident, $type:ty) => {
        fn $get(&mut self, this: Resource<StockSocket>) -> SocketResult<$type> {
            Ok(self.datagram_socket(&this)?.$field)
        }

        fn $set(&mut self, this: Resource<StockSocket>, value: $type) -> SocketResult<()> {
            if value == 0 {
                return Err(ErrorCode::InvalidArgument.into());
            }
            self.datagram_socket(&this)?.$field = value;
            Ok(())
        }
    };
}

impl wasi::udp::HostUdpSocket for View<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<StockSocket>,
        network: Resource<Network>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        self.check(&network)?;
        let address = SocketAddr::from(address);
        let stack = self.stack.clone();
        let socket = self.datagram_socket(&this)?;
        match socket.phase {
            Phase::Unbound => {}
            Phase::BindStarted(_) => return Err(ErrorCode::ConcurrencyConflict.into()),
            Phase::Bound(..) => return Err(ErrorCode::InvalidState.into()),
        }
        if !fits(socket.family, address) {
            return Err(ErrorCode::InvalidArgument.into());
        }
        let datagram = stack.datagram(address).await.map_err(refusal)?;
        socket.phase = Phase::BindStarted(Shared(Arc::new(Mutex::new(datagram))));
        Ok(())
    }

    fn finish_bind(&mut self, this: Resource<StockSocket>) -> SocketResult<()> {
        let socket = self.datagram_socket(&this)?;
        match std::mem::replace(&mut socket.phase, Phase::Unbound) {
            Phase::BindStarted(shared) => {
                socket.phase = Phase::Bound(shared, None);
                Ok(())
            }
            other => {
                socket.phase = other;
                Err(ErrorCode::NotInProgress.into())
            }
        }
    }

    async fn stream(
        &mut self,
        this: Resource<StockSocket>,
        remote: Option<IpSocketAddress>,
    ) -> SocketResult<(Resource<IncomingDatagramStream>, Resource<OutgoingDatagramStream>)> {
        let mut children = self.table().iter_children(&ours(&this))?;
        if children.any(|child| child.is::<Incoming>() || child.is::<Outgoing>()) {
            return Err(SocketError::trap(wasmtime::format_err!("the socket's earlier streams were not dropped yet")));
        }
        drop(children);
        let socket = self.datagram_socket(&this)?;
        let family = socket.family;
        let Phase::Bound(shared, known) = &mut socket.phase else {
            return Err(ErrorCode::InvalidState.into());
        };
        let remote = remote.map(|remote| endpoint(family, remote.into())).transpose()?;
        *known = remote;
        let shared = shared.clone();
        let incoming = Incoming { shared: shared.clone(), family, remote, ahead: None };
        let outgoing = Outgoing { shared, family, remote, permits: 0, waiting: None, failed: None };
        let incoming = self.table().push_child(incoming, &ours(&this))?;
        let outgoing = self.table().push_child(outgoing, &ours(&this))?;
        Ok((Resource::new_own(incoming.rep()), Resource::new_own(outgoing.rep())))
    }

    fn local_address(&mut self, this: Resource<StockSocket>) -> SocketResult<IpSocketAddress> {
        match &self.datagram_socket(&this)?.phase {
            Phase::Bound(shared, _) => Ok(shared.lock().local().into()),
            Phase::Unbound | Phase::BindStarted(_) => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn remote_address(&mut self, this: Resource<StockSocket>) -> SocketResult<IpSocketAddress> {
        match &self.datagram_socket(&this)?.phase {
            Phase::Bound(_, Some(remote)) => Ok((*remote).into()),
            Phase::Unbound | Phase::BindStarted(_) | Phase::Bound(_, None) => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn address_family(&mut self, this: Resource<StockSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table().get(&ours(&this))?.family)
    }

    option!(hop_limit, unicast_hop_limit, set_unicast_hop_limit, u8);
    option!(receive_buffer, receive_buffer_size, set_receive_buffer_size, u64);
    option!(send_buffer, send_buffer_size, set_send_buffer_size, u64);

    fn subscribe(&mut self, this: Resource<StockSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table(), ours(&this))
    }

    fn drop(&mut self, this: Resource<StockSocket>) -> wasmtime::Result<()> {
        self.table().delete(Resource::<Socket>::new_own(this.rep()))?;
        Ok(())
    }
}

impl wasi::udp::HostIncomingDatagramStream for View<'_> {
    fn receive(&mut self, this: Resource<IncomingDatagramStream>, most: u64) -> SocketResult<Vec<IncomingDatagram>> {
        let incoming = self.incoming(&this)?;
        let most = usize::try_from(most).unwrap_or(MOST).min(MOST);
        let (mut datagrams, mut bytes) = (Vec::new(), 0);
        while datagrams.len() < most && bytes < MOST_BYTES && incoming.poll(&mut noop()).is_ready() {
            match incoming.ahead.take().expect("it was ready") {
                Ok((data, from)) => {
                    bytes += data.len();
                    datagrams.push(IncomingDatagram { data: data.into(), remote_address: from.into() });
                }
                Err(error) if datagrams.is_empty() => return Err(error.into()),
                Err(error) => {
                    // Told by the next call.
                    incoming.ahead = Some(Err(error));
                    break;
                }
            }
        }
        Ok(datagrams)
    }

    fn subscribe(&mut self, this: Resource<IncomingDatagramStream>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table(), Resource::<Incoming>::new_borrow(this.rep()))
    }

    fn drop(&mut self, this: Resource<IncomingDatagramStream>) -> wasmtime::Result<()> {
        self.table().delete(Resource::<Incoming>::new_own(this.rep()))?;
        Ok(())
    }
}

impl wasi::udp::HostOutgoingDatagramStream for View<'_> {
    fn check_send(&mut self, this: Resource<OutgoingDatagramStream>) -> SocketResult<u64> {
        let outgoing = self.outgoing(&this)?;
        let ready = outgoing.poll(&mut noop()).is_ready();
        if let Some(error) = outgoing.failed.take() {
            return Err(error);
        }
        outgoing.permits = if ready { MOST } else { 0 };
        Ok(outgoing.permits as u64)
    }

    fn send(&mut self, this: Resource<OutgoingDatagramStream>, datagrams: Vec<OutgoingDatagram>) -> SocketResult<u64> {
        let outgoing = self.outgoing(&this)?;
        if datagrams.is_empty() {
            return Ok(0);
        }
        if datagrams.len() > outgoing.permits {
            let text = "`send` with more datagrams than `check-send` permitted";
            return Err(SocketError::trap(wasmtime::Error::msg(text)));
        }
        outgoing.permits = 0;
        let mut sent = 0;
        for datagram in datagrams {
            if outgoing.waiting.is_some() {
                break;
            }
            match outgoing.send(datagram) {
                Ok(()) => sent += 1,
                Err(error) if sent == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    fn subscribe(&mut self, this: Resource<OutgoingDatagramStream>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table(), Resource::<Outgoing>::new_borrow(this.rep()))
    }

    async fn drop(&mut self, this: Resource<OutgoingDatagramStream>) -> wasmtime::Result<()> {
        let mut outgoing = self.table().delete(Resource::<Outgoing>::new_own(this.rep()))?;
        // What was taken from the guest is not lost for want of a moment's room.
        std::future::poll_fn(|cx| outgoing.poll(cx)).await;
        Ok(())
    }
}
