//! What an agent gives: listeners, datagram sockets and its standard output, whichever way they come.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::net::{TcpListener, UdpSocket};

use super::mux;
use crate::net::carrier::{Conn, canonical};

/// A listener in a container.
#[derive(Debug)]
pub enum Acceptor {
    /// Its socket is ours.
    Passed(TcpListener),
    /// Its socket is the agent's.
    Carried(mux::Acceptor),
}

impl Acceptor {
    /// The address it listens at.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Passed(listener) => listener.local_addr(),
            Self::Carried(acceptor) => Ok(acceptor.local()),
        }
    }

    /// The next connection.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Conn>> {
        match self {
            Self::Passed(listener) => listener.poll_accept(cx).map(|accepted| Conn::over(accepted?.0)),
            Self::Carried(acceptor) => acceptor.poll_accept(cx),
        }
    }
}

/// A datagram socket in a container.
#[derive(Debug)]
pub enum Datagrams {
    /// The socket is ours.
    Passed(UdpSocket),
    /// The socket is the agent's.
    Carried(mux::Datagrams),
}

impl Datagrams {
    /// The address it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Passed(socket) => socket.local_addr(),
            Self::Carried(datagrams) => Ok(datagrams.local()),
        }
    }

    /// The next datagram, and who sent it. `scratch` is where the kernel puts what it has; it grows once it is needed.
    pub fn poll_receive(&self, scratch: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<io::Result<(Bytes, SocketAddr)>> {
        match self {
            Self::Passed(socket) => poll_kernel(socket, scratch, cx),
            Self::Carried(datagrams) => datagrams.poll_receive(cx).map_ok(|(bytes, from)| (bytes, canonical(from))),
        }
    }

    /// Sends a datagram.
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8], to: SocketAddr) -> Poll<io::Result<usize>> {
        let to = self.as_spoken(to);
        match self {
            Self::Passed(socket) => socket.poll_send_to(cx, bytes, to),
            Self::Carried(datagrams) => datagrams.poll_send(cx, bytes, to),
        }
    }

    /// An address in the form that a dual-stack socket speaks, where it is one.
    fn as_spoken(&self, to: SocketAddr) -> SocketAddr {
        match (self.local_addr(), to.ip()) {
            (Ok(SocketAddr::V6(_)), IpAddr::V4(ip)) => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            (Ok(_) | Err(_), _) => to,
        }
    }
}

/// The next datagram of a kernel socket.
pub(in crate::net) fn poll_kernel(
    socket: &UdpSocket,
    scratch: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<(Bytes, SocketAddr)>> {
    loop {
        ready!(socket.poll_recv_ready(cx))?;
        scratch.resize(usize::from(u16::MAX), 0);
        match socket.try_recv_from(scratch) {
            Ok((length, from)) => {
                return Poll::Ready(Ok((Bytes::copy_from_slice(&scratch[..length]), canonical(from))));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// A container's standard output or standard error.
#[derive(Debug)]
pub enum Printer {
    /// Its pipe, non-blocking.
    Passed(OwnedFd),
    /// The agent has it.
    Carried(mux::Channel),
}

impl Printer {
    /// Writes what fits now: an error where nothing does.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Passed(pipe) => Ok(rustix::io::retry_on_intr(|| rustix::io::write(pipe, bytes))?),
            Self::Carried(channel) => channel.try_write(bytes),
        }
    }
}
