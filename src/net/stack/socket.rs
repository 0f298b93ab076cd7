//! Kernel sockets of a container's network namespace: asked of the agent, then bound, listened on and connected here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as UnconnectedStream, UdpSocket as UnwatchedSocket};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketType};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use crate::net::agent::Agent;

/// Connections that wait to be accepted, as Linux bounds it.
const BACKLOG: u32 = 4096;

/// Listens in the container. The IPv6 wildcard takes IPv4 as well, and becomes the IPv4 one where there is no IPv6.
pub(super) async fn listen(agent: &Agent, at: SocketAddr) -> io::Result<TcpListener> {
    let (socket, at) = make_for(agent, at, SocketType::STREAM).await?;
    let socket = stream(socket);
    // A guest that was restarted can listen again at once.
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

/// Connects out of the container.
pub(super) async fn connect(agent: &Agent, to: SocketAddr) -> io::Result<TcpStream> {
    stream(make(agent, to, SocketType::STREAM).await?).connect(to).await
}

/// A datagram socket in the container, with the wildcards of [`listen`].
pub(super) async fn datagram(agent: &Agent, at: SocketAddr) -> io::Result<UdpSocket> {
    let (socket, at) = make_for(agent, at, SocketType::DGRAM).await?;
    rustix::net::bind(&socket, &at)?;
    UdpSocket::from_std(UnwatchedSocket::from(socket))
}

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

/// A socket that is to be bound to an address, and the address it can have.
async fn make_for(agent: &Agent, at: SocketAddr, kind: SocketType) -> io::Result<(OwnedFd, SocketAddr)> {
    let none = |error: &io::Error| error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    let (socket, at) = match make(agent, at, kind).await {
        Err(error) if at.is_ipv6() && at.ip().is_unspecified() && none(&error) => {
            let at = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), at.port());
            (make(agent, at, kind).await?, at)
        }
        made => (made?, at),
    };
    if at.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, !at.ip().is_unspecified())?;
    }
    Ok((socket, at))
}

async fn make(agent: &Agent, for_address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = match Family::of(for_address) {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    agent.socket(family, kind).await
}

fn stream(socket: OwnedFd) -> TcpSocket {
    TcpSocket::from_std_stream(UnconnectedStream::from(socket))
}
