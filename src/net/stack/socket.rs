//! Kernel sockets of a container's network namespace: asked of the agent, then bound, listened on and connected here.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream as UnconnectedStream};

use rustix::net::{AddressFamily, SocketType};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::net::agent::Agent;

/// Connections that wait to be accepted, as Linux bounds it.
const BACKLOG: u32 = 4096;

/// Listens in the container. The IPv6 wildcard takes IPv4 as well, and becomes the IPv4 one where there is no IPv6.
pub(super) async fn listen(agent: &Agent, at: SocketAddr) -> io::Result<TcpListener> {
    let none = |error: &io::Error| error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    let (socket, at) = match make(agent, at).await {
        Err(error) if at.is_ipv6() && at.ip().is_unspecified() && none(&error) => {
            let at = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), at.port());
            (make(agent, at).await?, at)
        }
        made => (made?, at),
    };
    if at.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, !at.ip().is_unspecified())?;
    }
    // A guest that was restarted can listen again at once.
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

/// Connects out of the container.
pub(super) async fn connect(agent: &Agent, to: SocketAddr) -> io::Result<TcpStream> {
    make(agent, to).await?.connect(to).await
}

async fn make(agent: &Agent, for_address: SocketAddr) -> io::Result<TcpSocket> {
    let family = if for_address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = agent.socket(family, SocketType::STREAM).await?;
    Ok(TcpSocket::from_std_stream(UnconnectedStream::from(socket)))
}
