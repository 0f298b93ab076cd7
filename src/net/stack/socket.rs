//! Sockets of this process, for what leaves by the host; and which address family is meant.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as UnwatchedSocket};

use tokio::net::UdpSocket;

/// A datagram socket of this process, for what leaves by the host.
pub(super) fn host_datagram(family: Family) -> io::Result<UdpSocket> {
    let any: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UnwatchedSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}
