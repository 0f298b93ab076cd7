//! Datagram sockets of 0.3: sending and receiving are calls that return when they are done.
//!
//! `Resource<UdpSocket>` is a typed index into the store's table, as in 0.2; the table holds our [`Socket`] under it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::component::{Accessor, Resource};
use wasmtime_wasi::p3::bindings::sockets::types::{
    ErrorCode, HostUdpSocket, HostUdpSocketWithStore, IpAddressFamily, IpSocketAddress, UdpSocket,
};
use wasmtime_wasi::p3::sockets::{SocketError, SocketResult};

use super::super::super::host::State;
use super::super::{Sockets, View};
use super::{fits, refusal};
use crate::net::stack::Datagram;

/// A UDP socket.
struct Socket {
    family: IpAddressFamily,
    bound: Option<Arc<Bound>>,
    /// The only one that is sent to and received from.
    remote: Option<SocketAddr>,
    hop_limit: u8,
    receive_buffer: u64,
    send_buffer: u64,
}

/// A socket with an address. Calls that wait hold it beside the table.
struct Bound {
    datagram: Mutex<Datagram>,
    /// Whose turn it is to receive: of several that wait, one at a time is woken.
    receiving: tokio::sync::Mutex<()>,
}

impl Bound {
    fn lock(&self) -> MutexGuard<'_, Datagram> {
        self.datagram.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn any(family: IpAddressFamily) -> SocketAddr {
    match family {
        IpAddressFamily::Ipv4 => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddressFamily::Ipv6 => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

impl View<'_> {
    fn socket_of_datagrams(&mut self, resource: &Resource<UdpSocket>) -> SocketResult<&mut Socket> {
        let ours = Resource::<Socket>::new_borrow(resource.rep());
        self.table().get_mut(&ours).map_err(SocketError::trap)
    }

    async fn bind_datagrams(&mut self, this: &Resource<UdpSocket>, at: SocketAddr) -> SocketResult<()> {
        let stack = self.stack.clone();
        let socket = self.socket_of_datagrams(this)?;
        let datagram = Mutex::new(stack.datagram(at).await.map_err(refusal)?);
        socket.bound = Some(Arc::new(Bound { datagram, receiving: tokio::sync::Mutex::default() }));
        Ok(())
    }
}

impl HostUdpSocketWithStore<State> for Sockets {
    async fn send(
        accessor: &Accessor<State, Self>,
        this: Resource<UdpSocket>,
        data: Vec<u8>,
        remote: Option<IpSocketAddress>,
    ) -> SocketResult<()> {
        let (stack, family, bound, to) = accessor.with(|mut access| {
            let mut view = access.get();
            let socket = view.socket_of_datagrams(&this)?;
            let to = match (remote.map(SocketAddr::from), socket.remote) {
                (Some(to), Some(connected)) if to != connected => return Err(ErrorCode::InvalidArgument.into()),
                (None, None) => return Err(ErrorCode::InvalidArgument.into()),
                (Some(to), _) | (None, Some(to)) => to,
            };
            if !fits(socket.family, to) || to.port() == 0 || to.ip().is_unspecified() {
                return Err(ErrorCode::InvalidArgument.into());
            }
            let (family, bound) = (socket.family, socket.bound.clone());
            SocketResult::Ok((view.stack.clone(), family, bound, to))
        })?;
        let bound = match bound {
            Some(bound) => bound,
            None => {
                // A socket that was never bound gets an address with its first datagram; of two that send at once, one.
                let datagram = Mutex::new(stack.datagram(any(family)).await.map_err(refusal)?);
                let new = Arc::new(Bound { datagram, receiving: tokio::sync::Mutex::default() });
                accessor.with(|mut access| {
                    let mut view = access.get();
                    SocketResult::Ok(view.socket_of_datagrams(&this)?.bound.get_or_insert(new).clone())
                })?
            }
        };
        let sent = std::future::poll_fn(|cx| bound.lock().poll_send(cx, &data, to)).await;
        sent.map_err(|error| refusal(error).into())
    }

    async fn receive(
        accessor: &Accessor<State, Self>,
        this: Resource<UdpSocket>,
    ) -> SocketResult<(Vec<u8>, IpSocketAddress)> {
        let (family, bound, remote) = accessor.with(|mut access| {
            let mut view = access.get();
            let socket = view.socket_of_datagrams(&this)?;
            SocketResult::Ok((socket.family, socket.bound.clone(), socket.remote))
        })?;
        let Some(bound) = bound else { return Err(ErrorCode::InvalidState.into()) };
        let _turn = bound.receiving.lock().await;
        loop {
            let received = std::future::poll_fn(|cx| bound.lock().poll_receive(cx)).await;
            let (bytes, from) = received.map_err(ErrorCode::from)?;
            if fits(family, from) && remote.is_none_or(|remote| remote == from) {
                return Ok((bytes.into(), from.into()));
            }
            // A flood of what is not wanted does not keep the thread.
            tokio::task::yield_now().await;
        }
    }
}

/// A numeric option: kept, never 0.
macro_rules! option {
    ($field:ident, $get:ident, $set:ident, $type:ty) => {
        fn $get(&mut self, this: Resource<UdpSocket>) -> SocketResult<$type> {
            Ok(self.socket_of_datagrams(&this)?.$field)
        }

        fn $set(&mut self, this: Resource<UdpSocket>, value: $type) -> SocketResult<()> {
            if value == 0 {
                return Err(ErrorCode::InvalidArgument.into());
            }
            self.socket_of_datagrams(&this)?.$field = value;
            Ok(())
        }
    };
}

impl HostUdpSocket for View<'_> {
    async fn create(&mut self, family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        let buffer = 64 * 1024;
        let socket =
            Socket { family, bound: None, remote: None, hop_limit: 64, receive_buffer: buffer, send_buffer: buffer };
        let socket = self.table().push(socket).map_err(SocketError::trap)?;
        Ok(Resource::new_own(socket.rep()))
    }

    async fn bind(&mut self, this: Resource<UdpSocket>, local: IpSocketAddress) -> SocketResult<()> {
        let at = SocketAddr::from(local);
        let socket = self.socket_of_datagrams(&this)?;
        if socket.bound.is_some() {
            return Err(ErrorCode::InvalidState.into());
        }
        if !fits(socket.family, at) {
            return Err(ErrorCode::InvalidArgument.into());
        }
        self.bind_datagrams(&this, at).await
    }

    async fn connect(&mut self, this: Resource<UdpSocket>, remote: IpSocketAddress) -> SocketResult<()> {
        let to = SocketAddr::from(remote);
        let socket = self.socket_of_datagrams(&this)?;
        let (family, unbound) = (socket.family, socket.bound.is_none());
        if !fits(family, to) || to.port() == 0 || to.ip().is_unspecified() {
            return Err(ErrorCode::InvalidArgument.into());
        }
        if unbound {
            self.bind_datagrams(&this, any(family)).await?;
        }
        self.socket_of_datagrams(&this)?.remote = Some(to);
        Ok(())
    }

    fn disconnect(&mut self, this: Resource<UdpSocket>) -> SocketResult<()> {
        match self.socket_of_datagrams(&this)?.remote.take() {
            Some(_) => Ok(()),
            None => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn get_local_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        match &self.socket_of_datagrams(&this)?.bound {
            Some(bound) => Ok(bound.lock().local().into()),
            None => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn get_remote_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        self.socket_of_datagrams(&this)?.remote.map(Into::into).ok_or_else(|| ErrorCode::InvalidState.into())
    }

    fn get_address_family(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.socket_of_datagrams(&this)?.family)
    }

    option!(hop_limit, get_unicast_hop_limit, set_unicast_hop_limit, u8);
    option!(receive_buffer, get_receive_buffer_size, set_receive_buffer_size, u64);
    option!(send_buffer, get_send_buffer_size, set_send_buffer_size, u64);

    fn drop(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<()> {
        self.table().delete(Resource::<Socket>::new_own(this.rep()))?;
        Ok(())
    }
}
