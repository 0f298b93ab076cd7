//! `wasi:sockets` over a [`Stack`]: TCP and name lookup, in place of Wasmtime's own, which know the host's network only.
//!
//! Wasmtime's bindings are kept; its traits are implemented for a view of ours. `Resource<TcpSocket>` is a typed index
//! into the store's table: the table holds our [`Socket`] under it, and every method here converts the index first.
//! UDP is in [`super::udp`].

pub mod p3;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::sockets as wasi;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, IoError, Pollable, SocketError, SocketResult};
use wasmtime_wasi::p2::{Network, subscribe};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};
use wasmtime_wasi::sockets::WasiSocketsCtxView;

use wasi::ip_name_lookup::ResolveAddressStream;
use wasi::network::{ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress};
use wasi::tcp::{ShutdownType, TcpSocket};

use super::host::State;
use super::streams::Shared;
use super::tcp::{Acceptor, Connecting};
use super::udp;
use crate::net::stack::{NetError, Stack};

/// Puts our interfaces in the place of Wasmtime's in a linker.
pub fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    wasi::tcp::add_to_linker::<State, Sockets>(linker, State::network)?;
    wasi::tcp_create_socket::add_to_linker::<State, Sockets>(linker, State::network)?;
    wasi::ip_name_lookup::add_to_linker::<State, Sockets>(linker, State::network)?;
    udp::add_to_linker(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Names [`View`] for the linker.
pub(super) struct Sockets;

impl HasData for Sockets {
    type Data<'a> = View<'a>;
}

/// What the methods work on.
pub struct View<'a> {
    /// Wasmtime's own view, for what is not ours, and the table.
    pub stock: WasiSocketsCtxView<'a>,
    /// The guest's network.
    pub stack: &'a Stack,
}

impl View<'_> {
    pub(super) fn table(&mut self) -> &mut ResourceTable {
        self.stock.table
    }

    fn socket(&mut self, resource: &Resource<TcpSocket>) -> SocketResult<&mut Socket> {
        Ok(self.stock.table.get_mut(&ours(resource))?)
    }

    /// The network resource is the capability to use the network.
    pub(super) fn check(&self, network: &Resource<Network>) -> SocketResult<()> {
        self.stock.table.get(network)?;
        Ok(())
    }

    fn streams(
        &mut self,
        socket: &Resource<Socket>,
        shared: &Shared,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let (reader, writer) = shared.split();
        let input: DynInputStream = Box::new(reader);
        let output: DynOutputStream = Box::new(writer);
        Ok((self.table().push_child(input, socket)?, self.table().push_child(output, socket)?))
    }
}

fn ours(resource: &Resource<TcpSocket>) -> Resource<Socket> {
    Resource::new_borrow(resource.rep())
}

/// A TCP socket as `wasi:sockets` describes it.
pub struct Socket {
    phase: Phase,
    family: IpAddressFamily,
    options: Options,
}

/// The socket's life, after the state diagram of `wasi:sockets/tcp`.
enum Phase {
    Unbound,
    /// Bound, and listening already: so a port that is taken is told to `bind`, and port 0 has its number.
    Bound(Acceptor),
    BindStarted(Acceptor),
    ListenStarted(Acceptor),
    Listening(Acceptor),
    Connecting(Connecting),
    Connected {
        shared: Shared,
        local: SocketAddr,
        peer: SocketAddr,
    },
    Closed,
}

/// Options that are kept and told back; the connections behind are tuned by the host.
#[derive(Clone, Copy)]
struct Options {
    keep_alive: bool,
    keep_alive_idle: u64,
    keep_alive_interval: u64,
    keep_alive_count: u32,
    hop_limit: u8,
    receive_buffer: u64,
    send_buffer: u64,
}

impl Default for Options {
    /// Linux's own defaults.
    fn default() -> Self {
        Self {
            keep_alive: false,
            keep_alive_idle: 7_200_000_000_000,
            keep_alive_interval: 75_000_000_000,
            keep_alive_count: 9,
            hop_limit: 64,
            receive_buffer: 64 * 1024,
            send_buffer: 64 * 1024,
        }
    }
}

impl Socket {
    fn new(family: IpAddressFamily, phase: Phase) -> Self {
        Self { phase, family, options: Options::default() }
    }

    /// Goes on to the phase that `next` makes of the one it is in.
    fn go_on(&mut self, next: impl FnOnce(Phase) -> (Phase, Result<(), ErrorCode>)) -> SocketResult<()> {
        let (phase, result) = next(std::mem::replace(&mut self.phase, Phase::Closed));
        self.phase = phase;
        Ok(result?)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.phase {
            Phase::Connecting(connecting) => connecting.poll_ready(cx),
            Phase::Listening(bound) => bound.poll_ready(cx),
            Phase::Unbound
            | Phase::Bound(_)
            | Phase::BindStarted(_)
            | Phase::ListenStarted(_)
            | Phase::Connected { .. }
            | Phase::Closed => Poll::Ready(()),
        }
    }
}

#[async_trait::async_trait]
impl Pollable for Socket {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }
}

impl wasi::tcp_create_socket::Host for View<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        let socket = self.table().push(Socket::new(family, Phase::Unbound))?;
        Ok(Resource::new_own(socket.rep()))
    }
}

impl wasi::tcp::Host for View<'_> {}

/// A numeric option: kept, never 0.
macro_rules! option {
    ($field:ident, $get:ident, $set:ident, $type:ty) => {
        fn $get(&mut self, this: Resource<TcpSocket>) -> SocketResult<$type> {
            Ok(self.socket(&this)?.options.$field)
        }

        fn $set(&mut self, this: Resource<TcpSocket>, value: $type) -> SocketResult<()> {
            if value == 0 {
                return Err(ErrorCode::InvalidArgument.into());
            }
            self.socket(&this)?.options.$field = value;
            Ok(())
        }
    };
}

impl wasi::tcp::HostTcpSocket for View<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        self.check(&network)?;
        let address = SocketAddr::from(address);
        let stack = self.stack.clone();
        let socket = self.socket(&this)?;
        if !matches!(socket.phase, Phase::Unbound) {
            return Err(ErrorCode::InvalidState.into());
        }
        if !fits(socket.family, address) {
            return Err(ErrorCode::InvalidArgument.into());
        }
        let listener = stack.listen(address).await.map_err(refusal)?;
        socket.phase = Phase::BindStarted(Acceptor::new(listener));
        Ok(())
    }

    fn finish_bind(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        self.socket(&this)?.go_on(|phase| match phase {
            Phase::BindStarted(bound) => (Phase::Bound(bound), Ok(())),
            other => (other, Err(ErrorCode::NotInProgress)),
        })
    }

    fn start_connect(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        self.check(&network)?;
        let address = SocketAddr::from(address);
        let stack = self.stack.clone();
        let socket = self.socket(&this)?;
        // A bound socket gives up its port: which one a connection comes from is the stack's choice.
        if !matches!(socket.phase, Phase::Unbound | Phase::Bound(_)) {
            return Err(ErrorCode::InvalidState.into());
        }
        if !fits(socket.family, address) || address.port() == 0 || address.ip().is_unspecified() {
            return Err(ErrorCode::InvalidArgument.into());
        }
        socket.phase = Phase::Connecting(Connecting::begin(&stack, address));
        Ok(())
    }

    fn finish_connect(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let socket = self.socket(&this)?;
        let Phase::Connecting(connecting) = &mut socket.phase else {
            return Err(ErrorCode::NotInProgress.into());
        };
        let peer = connecting.to;
        let result = match connecting.poll_take(&mut noop()) {
            Poll::Pending => return Err(ErrorCode::WouldBlock.into()),
            Poll::Ready(None) => return Err(ErrorCode::NotInProgress.into()),
            Poll::Ready(Some(result)) => result,
        };
        let conn = match result {
            Ok(conn) => conn,
            Err(error) => {
                socket.phase = Phase::Closed;
                return Err(refusal(error));
            }
        };
        let shared = Shared::new(conn.io);
        socket.phase = Phase::Connected { shared: shared.clone(), local: conn.local, peer };
        self.streams(&ours(&this), &shared)
    }

    async fn start_listen(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        self.socket(&this)?.go_on(|phase| match phase {
            Phase::Bound(bound) => (Phase::ListenStarted(bound), Ok(())),
            other => (other, Err(ErrorCode::InvalidState)),
        })
    }

    fn finish_listen(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        self.socket(&this)?.go_on(|phase| match phase {
            Phase::ListenStarted(bound) => (Phase::Listening(bound), Ok(())),
            other => (other, Err(ErrorCode::NotInProgress)),
        })
    }

    fn accept(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let socket = self.socket(&this)?;
        let (family, options) = (socket.family, socket.options);
        let Phase::Listening(bound) = &mut socket.phase else {
            return Err(ErrorCode::InvalidState.into());
        };
        let Poll::Ready(accepted) = bound.poll_accept(&mut noop()) else {
            return Err(ErrorCode::WouldBlock.into());
        };
        let conn = accepted?;
        let shared = Shared::new(conn.io);
        let phase = Phase::Connected { shared: shared.clone(), local: conn.local, peer: conn.peer };
        let accepted = self.table().push(Socket { phase, family, options })?;
        let (input, output) = self.streams(&accepted, &shared)?;
        Ok((Resource::new_own(accepted.rep()), input, output))
    }

    fn local_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let socket = self.socket(&this)?;
        match &socket.phase {
            Phase::Bound(bound) | Phase::ListenStarted(bound) | Phase::Listening(bound) => {
                Ok(spoken(socket.family, bound.local()).into())
            }
            Phase::Connected { local, .. } => Ok(spoken(socket.family, *local).into()),
            Phase::Unbound | Phase::BindStarted(_) | Phase::Connecting(_) | Phase::Closed => {
                Err(ErrorCode::InvalidState.into())
            }
        }
    }

    fn remote_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let socket = self.socket(&this)?;
        match &socket.phase {
            Phase::Connected { peer, .. } => Ok(spoken(socket.family, *peer).into()),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn is_listening(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        Ok(matches!(self.table().get(&ours(&this))?.phase, Phase::Listening(_)))
    }

    fn address_family(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table().get(&ours(&this))?.family)
    }

    /// A hint; the stack has a backlog of its own.
    fn set_listen_backlog_size(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.socket(&this)?;
        if value == 0 { Err(ErrorCode::InvalidArgument.into()) } else { Ok(()) }
    }

    fn keep_alive_enabled(&mut self, this: Resource<TcpSocket>) -> SocketResult<bool> {
        Ok(self.socket(&this)?.options.keep_alive)
    }

    fn set_keep_alive_enabled(&mut self, this: Resource<TcpSocket>, value: bool) -> SocketResult<()> {
        self.socket(&this)?.options.keep_alive = value;
        Ok(())
    }

    option!(keep_alive_idle, keep_alive_idle_time, set_keep_alive_idle_time, u64);
    option!(keep_alive_interval, keep_alive_interval, set_keep_alive_interval, u64);
    option!(keep_alive_count, keep_alive_count, set_keep_alive_count, u32);
    option!(hop_limit, hop_limit, set_hop_limit, u8);
    option!(receive_buffer, receive_buffer_size, set_receive_buffer_size, u64);
    option!(send_buffer, send_buffer_size, set_send_buffer_size, u64);

    fn subscribe(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table(), ours(&this))
    }

    fn shutdown(&mut self, this: Resource<TcpSocket>, how: ShutdownType) -> SocketResult<()> {
        match &self.socket(&this)?.phase {
            Phase::Connected { shared, .. } => {
                shared.shutdown(how.into());
                Ok(())
            }
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn drop(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.table().delete(Resource::<Socket>::new_own(this.rep()))?;
        Ok(())
    }
}

/// A name lookup under way. Stands in the table under a `Resource<ResolveAddressStream>`.
struct Lookup {
    task: Option<AbortOnDropJoinHandle<Result<Vec<IpAddr>, NetError>>>,
    found: std::vec::IntoIter<IpAddr>,
    failed: Option<NetError>,
}

impl Lookup {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(task) = &mut self.task else { return Poll::Ready(()) };
        match Pin::new(task).poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(found)) => self.found = found.into_iter(),
            Poll::Ready(Err(error)) => self.failed = Some(error),
        }
        self.task = None;
        Poll::Ready(())
    }
}

#[async_trait::async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }
}

impl wasi::ip_name_lookup::Host for View<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        self.check(&network)?;
        if name.is_empty() {
            return Err(ErrorCode::InvalidArgument.into());
        }
        let stack = self.stack.clone();
        let task = spawn(async move { stack.lookup(&name).await });
        let lookup = Lookup { task: Some(task), found: Vec::new().into_iter(), failed: None };
        let lookup = self.table().push(lookup)?;
        Ok(Resource::new_own(lookup.rep()))
    }
}

impl wasi::ip_name_lookup::HostResolveAddressStream for View<'_> {
    fn resolve_next_address(&mut self, this: Resource<ResolveAddressStream>) -> SocketResult<Option<IpAddress>> {
        let lookup = self.stock.table.get_mut(&Resource::<Lookup>::new_borrow(this.rep()))?;
        if lookup.poll(&mut noop()).is_pending() {
            return Err(ErrorCode::WouldBlock.into());
        }
        if let Some(error) = lookup.failed.take() {
            return Err(refusal(error));
        }
        Ok(lookup.found.next().map(Into::into))
    }

    fn subscribe(&mut self, this: Resource<ResolveAddressStream>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table(), Resource::<Lookup>::new_borrow(this.rep()))
    }

    fn drop(&mut self, this: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.table().delete(Resource::<Lookup>::new_own(this.rep()))?;
        Ok(())
    }
}

/// Wasmtime's own, which the other interfaces stand on.
impl wasi::network::Host for View<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(&mut self, error: Resource<IoError>) -> wasmtime::Result<Option<ErrorCode>> {
        wasi::network::Host::network_error_code(&mut self.stock, error)
    }
}

impl wasi::network::HostNetwork for View<'_> {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        wasi::network::HostNetwork::drop(&mut self.stock, network)
    }
}

pub(super) fn refusal(error: NetError) -> SocketError {
    match error {
        NetError::Refused(_) => ErrorCode::AccessDenied.into(),
        NetError::UnknownName => ErrorCode::NameUnresolvable.into(),
        NetError::Io(error) => error.into(),
    }
}

pub(super) fn fits(family: IpAddressFamily, address: SocketAddr) -> bool {
    match family {
        IpAddressFamily::Ipv4 => address.is_ipv4(),
        IpAddressFamily::Ipv6 => address.is_ipv6(),
    }
}

/// An address as a socket of this family speaks it. A listener hears both families (the wildcard of IPv6, a published
/// port); a guest's libc has no room for the wrong one and aborts. What IPv4 cannot say is left unsaid, but for loopback.
pub(super) fn spoken(family: IpAddressFamily, address: SocketAddr) -> SocketAddr {
    let ip = match (family, address.ip()) {
        (IpAddressFamily::Ipv6, IpAddr::V4(ip)) => ip.to_ipv6_mapped().into(),
        (IpAddressFamily::Ipv4, IpAddr::V6(ip)) if ip.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        (IpAddressFamily::Ipv4, IpAddr::V6(_)) => Ipv4Addr::UNSPECIFIED.into(),
        (IpAddressFamily::Ipv4, ip @ IpAddr::V4(_)) | (IpAddressFamily::Ipv6, ip @ IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

pub(super) fn noop() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
