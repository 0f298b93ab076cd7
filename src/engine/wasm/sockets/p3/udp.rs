//! Datagram sockets of 0.3. The stack carries none yet, so none can be made: a guest learns it from `create`.

use wasmtime::component::{Accessor, Resource};
use wasmtime_wasi::p3::bindings::sockets::types::{
    ErrorCode, HostUdpSocket, HostUdpSocketWithStore, IpAddressFamily, IpSocketAddress, UdpSocket,
};
use wasmtime_wasi::p3::sockets::SocketResult;

use super::super::super::host::State;
use super::super::{Sockets, View};

/// No socket exists that could be asked.
fn none<T>() -> SocketResult<T> {
    Err(ErrorCode::InvalidState.into())
}

impl HostUdpSocketWithStore<State> for Sockets {
    async fn send(
        _: &Accessor<State, Self>,
        _: Resource<UdpSocket>,
        _: Vec<u8>,
        _: Option<IpSocketAddress>,
    ) -> SocketResult<()> {
        none()
    }

    async fn receive(_: &Accessor<State, Self>, _: Resource<UdpSocket>) -> SocketResult<(Vec<u8>, IpSocketAddress)> {
        none()
    }
}

impl HostUdpSocket for View<'_> {
    async fn create(&mut self, _: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        Err(ErrorCode::NotSupported.into())
    }

    async fn bind(&mut self, _: Resource<UdpSocket>, _: IpSocketAddress) -> SocketResult<()> {
        none()
    }

    async fn connect(&mut self, _: Resource<UdpSocket>, _: IpSocketAddress) -> SocketResult<()> {
        none()
    }

    fn disconnect(&mut self, _: Resource<UdpSocket>) -> SocketResult<()> {
        none()
    }

    fn get_local_address(&mut self, _: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        none()
    }

    fn get_remote_address(&mut self, _: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        none()
    }

    fn get_address_family(&mut self, _: Resource<UdpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Err(wasmtime::format_err!("there is no such socket"))
    }

    fn get_unicast_hop_limit(&mut self, _: Resource<UdpSocket>) -> SocketResult<u8> {
        none()
    }

    fn set_unicast_hop_limit(&mut self, _: Resource<UdpSocket>, _: u8) -> SocketResult<()> {
        none()
    }

    fn get_receive_buffer_size(&mut self, _: Resource<UdpSocket>) -> SocketResult<u64> {
        none()
    }

    fn set_receive_buffer_size(&mut self, _: Resource<UdpSocket>, _: u64) -> SocketResult<()> {
        none()
    }

    fn get_send_buffer_size(&mut self, _: Resource<UdpSocket>) -> SocketResult<u64> {
        none()
    }

    fn set_send_buffer_size(&mut self, _: Resource<UdpSocket>, _: u64) -> SocketResult<()> {
        none()
    }

    fn drop(&mut self, _: Resource<UdpSocket>) -> wasmtime::Result<()> {
        Err(wasmtime::format_err!("there is no such socket"))
    }
}
