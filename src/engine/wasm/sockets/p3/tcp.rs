//! TCP sockets of 0.3: a listener is a stream of sockets, a connection two streams of bytes.
//!
//! `Resource<TcpSocket>` is a typed index into the store's table, as in 0.2; the table holds our [`Socket`] under it.

use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::oneshot;
use tokio::time::Sleep;
use wasmtime::StoreContextMut;
use wasmtime::component::{
    Access, Accessor, Destination, FutureReader, Resource, Source, StreamConsumer, StreamProducer, StreamReader,
    StreamResult,
};
use wasmtime_wasi::p3::bindings::sockets::types::{
    self, ErrorCode, HostTcpSocket, HostTcpSocketWithStore, IpAddressFamily, IpSocketAddress, TcpSocket,
};
use wasmtime_wasi::p3::sockets::{SocketError, SocketResult};

use super::super::super::host::State;
use super::super::super::streams::Shared;
use super::super::{Options, Sockets, View};
use super::{fits, refusal, spoken};
use crate::net::stack::{Conn, Listener};

/// What one read takes from a connection where the guest names no size.
const CHUNK: usize = 16 * 1024;
/// How long an accept waits after one that failed: out of descriptors, most likely.
const PAUSE: Duration = Duration::from_millis(50);

/// A TCP socket.
struct Socket {
    phase: Phase,
    family: IpAddressFamily,
    options: Options,
}

/// Its life, after the state diagram of `wasi:sockets/types`.
enum Phase {
    Unbound,
    /// Bound, and listening already: so a port that is taken is told to `bind`, and port 0 has its number.
    Bound(Listener),
    Listening(SocketAddr),
    Connecting,
    Connected(Connected),
    Closed,
}

struct Connected {
    shared: Shared,
    local: SocketAddr,
    peer: SocketAddr,
    /// `send` was called; it can be once.
    sends: bool,
    /// `receive` was called; it can be once.
    receives: bool,
}

impl Connected {
    fn new(conn: Conn) -> Self {
        Self { shared: Shared::new(conn.io), local: conn.local, peer: conn.peer, sends: false, receives: false }
    }
}

impl View<'_> {
    fn stream_socket(&mut self, resource: &Resource<TcpSocket>) -> SocketResult<&mut Socket> {
        let ours = Resource::<Socket>::new_borrow(resource.rep());
        self.table().get_mut(&ours).map_err(SocketError::trap)
    }
}

impl HostTcpSocketWithStore<State> for Sockets {
    async fn connect(
        accessor: &Accessor<State, Self>,
        this: Resource<TcpSocket>,
        remote: IpSocketAddress,
    ) -> SocketResult<()> {
        let to = SocketAddr::from(remote);
        let stack = accessor.with(|mut access| {
            let mut view = access.get();
            let socket = view.stream_socket(&this)?;
            // A bound socket gives up its port: which one a connection comes from is the stack's choice.
            if !matches!(socket.phase, Phase::Unbound | Phase::Bound(_)) {
                return Err(ErrorCode::InvalidState.into());
            }
            if !fits(socket.family, to) || to.port() == 0 || to.ip().is_unspecified() {
                return Err(ErrorCode::InvalidArgument.into());
            }
            socket.phase = Phase::Connecting;
            SocketResult::Ok(view.stack.clone())
        })?;
        let made = stack.connect(to).await;
        accessor.with(|mut access| {
            let mut view = access.get();
            let socket = view.stream_socket(&this)?;
            match made {
                Ok(conn) => {
                    socket.phase = Phase::Connected(Connected::new(conn));
                    Ok(())
                }
                Err(error) => {
                    socket.phase = Phase::Closed;
                    Err(refusal(error).into())
                }
            }
        })
    }

    async fn listen(
        mut access: Access<'_, State, Self>,
        this: Resource<TcpSocket>,
    ) -> SocketResult<StreamReader<Resource<TcpSocket>>> {
        let mut view = access.get();
        let stack = view.stack.clone();
        let socket = view.stream_socket(&this)?;
        let (family, options) = (socket.family, socket.options);
        let listener = match std::mem::replace(&mut socket.phase, Phase::Closed) {
            Phase::Bound(listener) => listener,
            Phase::Unbound => {
                let at = match family {
                    IpAddressFamily::Ipv4 => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                    IpAddressFamily::Ipv6 => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                };
                stack.listen(at).await.map_err(refusal)?
            }
            other => {
                socket.phase = other;
                return Err(ErrorCode::InvalidState.into());
            }
        };
        access.get().stream_socket(&this)?.phase = Phase::Listening(listener.local());
        let accepting = Accepting { listener, ahead: None, pause: None, family, options };
        StreamReader::new(&mut access, accepting).map_err(SocketError::trap)
    }

    fn send(
        mut access: Access<'_, State, Self>,
        this: Resource<TcpSocket>,
        mut data: StreamReader<u8>,
    ) -> wasmtime::Result<FutureReader<Result<(), ErrorCode>>> {
        let taken = match &mut access.get().stream_socket(&this)?.phase {
            Phase::Connected(connected) if !connected.sends => {
                connected.sends = true;
                Some(connected.shared.clone())
            }
            _ => None,
        };
        let (ends, ended) = oneshot::channel();
        match taken {
            Some(shared) => data.pipe(&mut access, Sending { shared, ends: Some(ends) })?,
            None => {
                data.close(&mut access)?;
                let _ = ends.send(Err(ErrorCode::InvalidState));
            }
        }
        FutureReader::new(&mut access, ended)
    }

    fn receive(
        mut access: Access<'_, State, Self>,
        this: Resource<TcpSocket>,
    ) -> wasmtime::Result<(StreamReader<u8>, FutureReader<Result<(), ErrorCode>>)> {
        let taken = match &mut access.get().stream_socket(&this)?.phase {
            Phase::Connected(connected) if !connected.receives => {
                connected.receives = true;
                Some(connected.shared.clone())
            }
            _ => None,
        };
        let (ends, ended) = oneshot::channel();
        let data = match taken {
            Some(shared) => {
                StreamReader::new(&mut access, Receiving { shared, ahead: BytesMut::new(), ends: Some(ends) })?
            }
            None => {
                let _ = ends.send(Err(ErrorCode::InvalidState));
                StreamReader::new(&mut access, std::iter::empty())?
            }
        };
        Ok((data, FutureReader::new(&mut access, ended)?))
    }
}

/// A numeric option: kept, never 0.
macro_rules! option {
    ($field:ident, $get:ident, $set:ident, $type:ty) => {
        fn $get(&mut self, this: Resource<TcpSocket>) -> SocketResult<$type> {
            Ok(self.stream_socket(&this)?.options.$field)
        }

        fn $set(&mut self, this: Resource<TcpSocket>, value: $type) -> SocketResult<()> {
            if value == 0 {
                return Err(ErrorCode::InvalidArgument.into());
            }
            self.stream_socket(&this)?.options.$field = value;
            Ok(())
        }
    };
}

impl HostTcpSocket for View<'_> {
    fn create(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        let socket = Socket { phase: Phase::Unbound, family, options: Options::default() };
        let socket = self.table().push(socket).map_err(SocketError::trap)?;
        Ok(Resource::new_own(socket.rep()))
    }

    async fn bind(&mut self, this: Resource<TcpSocket>, local: IpSocketAddress) -> SocketResult<()> {
        let at = SocketAddr::from(local);
        let stack = self.stack.clone();
        let socket = self.stream_socket(&this)?;
        if !matches!(socket.phase, Phase::Unbound) {
            return Err(ErrorCode::InvalidState.into());
        }
        if !fits(socket.family, at) {
            return Err(ErrorCode::InvalidArgument.into());
        }
        socket.phase = Phase::Bound(stack.listen(at).await.map_err(refusal)?);
        Ok(())
    }

    fn get_local_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let socket = self.stream_socket(&this)?;
        match &socket.phase {
            Phase::Bound(listener) => Ok(spoken(socket.family, listener.local())),
            Phase::Listening(local) => Ok(spoken(socket.family, *local)),
            Phase::Connected(connected) => Ok(spoken(socket.family, connected.local)),
            Phase::Unbound | Phase::Connecting | Phase::Closed => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn get_remote_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let socket = self.stream_socket(&this)?;
        match &socket.phase {
            Phase::Connected(connected) => Ok(spoken(socket.family, connected.peer)),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn get_is_listening(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        Ok(matches!(self.stream_socket(&this)?.phase, Phase::Listening(_)))
    }

    fn get_address_family(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.stream_socket(&this)?.family)
    }

    /// A hint; the stack has a backlog of its own.
    fn set_listen_backlog_size(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.stream_socket(&this)?;
        if value == 0 { Err(ErrorCode::InvalidArgument.into()) } else { Ok(()) }
    }

    fn get_keep_alive_enabled(&mut self, this: Resource<TcpSocket>) -> SocketResult<bool> {
        Ok(self.stream_socket(&this)?.options.keep_alive)
    }

    fn set_keep_alive_enabled(&mut self, this: Resource<TcpSocket>, value: bool) -> SocketResult<()> {
        self.stream_socket(&this)?.options.keep_alive = value;
        Ok(())
    }

    option!(keep_alive_idle, get_keep_alive_idle_time, set_keep_alive_idle_time, types::Duration);
    option!(keep_alive_interval, get_keep_alive_interval, set_keep_alive_interval, types::Duration);
    option!(keep_alive_count, get_keep_alive_count, set_keep_alive_count, u32);
    option!(hop_limit, get_hop_limit, set_hop_limit, u8);
    option!(receive_buffer, get_receive_buffer_size, set_receive_buffer_size, u64);
    option!(send_buffer, get_send_buffer_size, set_send_buffer_size, u64);

    fn drop(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.table().delete(Resource::<Socket>::new_own(this.rep()))?;
        Ok(())
    }
}

/// A listener as a stream: it ends when the instance is taken off its network.
struct Accepting {
    listener: Listener,
    /// Accepted while the guest only asked whether there is one.
    ahead: Option<Conn>,
    pause: Option<Pin<Box<Sleep>>>,
    family: IpAddressFamily,
    options: Options,
}

impl Accepting {
    /// Waits for a connection; `None` is the end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Conn>> {
        loop {
            if let Some(conn) = self.ahead.take() {
                return Poll::Ready(Some(conn));
            }
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(cx)) {
                Ok(conn) => return Poll::Ready(Some(conn)),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => return Poll::Ready(None),
                Err(_) => self.pause = Some(Box::pin(tokio::time::sleep(PAUSE))),
            }
        }
    }
}

impl StreamProducer<State> for Accepting {
    type Item = Resource<TcpSocket>;
    type Buffer = Option<Self::Item>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, State>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let conn = match self.poll(cx) {
            Poll::Ready(Some(conn)) => conn,
            Poll::Ready(None) => return Poll::Ready(Ok(StreamResult::Dropped)),
            Poll::Pending => return unready(finish),
        };
        if destination.remaining(&mut store) == Some(0) {
            // Only asked whether there is one.
            self.ahead = Some(conn);
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let phase = Phase::Connected(Connected::new(conn));
        let socket = Socket { phase, family: self.family, options: self.options };
        let socket = store.data_mut().network().table().push(socket)?;
        destination.set_buffer(Some(Resource::new_own(socket.rep())));
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

type Ends = Option<oneshot::Sender<Result<(), ErrorCode>>>;

fn end(ends: &mut Ends, how: Result<(), ErrorCode>) {
    if let Some(ends) = ends.take() {
        // A guest that let go of the future does not want to know.
        let _ = ends.send(how);
    }
}

fn unready(finish: bool) -> Poll<wasmtime::Result<StreamResult>> {
    if finish { Poll::Ready(Ok(StreamResult::Cancelled)) } else { Poll::Pending }
}

/// The incoming half of a connection.
struct Receiving {
    shared: Shared,
    /// Read while the guest only asked whether there is something.
    ahead: BytesMut,
    ends: Ends,
}

impl StreamProducer<State> for Receiving {
    type Item = u8;
    type Buffer = BytesMut;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, State>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let room = destination.remaining(&mut store);
        if self.ahead.is_empty() {
            let most = room.filter(|room| *room > 0).unwrap_or(CHUNK).min(CHUNK);
            match self.shared.poll_read(cx, most) {
                Poll::Ready(Ok(bytes)) => self.ahead = bytes,
                Poll::Ready(Err(error)) => {
                    end(&mut self.ends, Err(error.into()));
                    return Poll::Ready(Ok(StreamResult::Dropped));
                }
                Poll::Pending => return unready(finish),
            }
            if self.ahead.is_empty() {
                end(&mut self.ends, Ok(()));
                return Poll::Ready(Ok(StreamResult::Dropped));
            }
        }
        if room != Some(0) {
            destination.set_buffer(std::mem::take(&mut self.ahead));
        }
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        end(&mut self.ends, Ok(()));
        self.shared.shutdown(Shutdown::Read);
    }
}

/// The outgoing half of a connection.
struct Sending {
    shared: Shared,
    ends: Ends,
}

impl StreamConsumer<State> for Sending {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, State>,
        source: Source<'_, Self::Item>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let mut source = source.as_direct(store);
        if source.remaining().is_empty() {
            // Only asked whether there is room: a write finds out.
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        match self.shared.poll_write_some(cx, source.remaining()) {
            Poll::Ready(Ok(written)) => {
                source.mark_read(written);
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Ready(Err(error)) => {
                end(&mut self.ends, Err(error.into()));
                Poll::Ready(Ok(StreamResult::Dropped))
            }
            Poll::Pending => unready(finish),
        }
    }
}

/// The end of the stream is the end of the connection's direction.
impl Drop for Sending {
    fn drop(&mut self) {
        self.shared.shutdown(Shutdown::Write);
        end(&mut self.ends, Ok(()));
    }
}
