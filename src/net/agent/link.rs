//! One sequenced-packet connection, on tokio: frames and descriptors. Knows nothing of what frames mean.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType, UCred,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::wire;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// A frame with the descriptors that came along.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct Door(AsyncFd<OwnedFd>);

impl Door {
    /// Listens at a path where nothing is yet.
    pub(super) fn open(address: &SocketAddrUnix) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::bind(&socket, address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self(watched(socket)?))
    }

    /// The next connection, with who made it.
    pub(super) async fn accept(&self) -> io::Result<(Link, UCred)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = self.0.async_io(Interest::READABLE, |door| Ok(rustix::net::accept_with(door, flags)?)).await?;
        let peer = rustix::net::sockopt::socket_peercred(&socket)?;
        Ok((Link(watched(socket)?), peer))
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link(AsyncFd<OwnedFd>);

impl Link {
    /// Sends one frame.
    pub(super) async fn send(&self, frame: &[u8]) -> io::Result<()> {
        let send = |socket: &OwnedFd| {
            let mut nothing = SendAncillaryBuffer::default();
            Ok(rustix::net::sendmsg(socket, &[IoSlice::new(frame)], &mut nothing, SendFlags::NOSIGNAL)?)
        };
        self.0.async_io(Interest::WRITABLE, send).await.map(drop)
    }

    /// The next frame; `UnexpectedEof` once the other end is gone. Safe to drop while it waits.
    pub(super) async fn receive(&self) -> io::Result<Packet> {
        self.0.async_io(Interest::READABLE, receive).await
    }
}

#[expect(deprecated, reason = "its safe successor does not exist; an `OwnedFd` keeps what the new contract asks for")]
fn watched(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(socket)
}

fn receive(socket: &OwnedFd) -> io::Result<Packet> {
    let mut bytes = vec![0; wire::FRAME];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let message = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if message.flags.contains(ReturnFlags::TRUNC) {
        // Longer than any frame: an empty one, which every reader ignores.
        bytes.clear();
    } else {
        bytes.truncate(message.bytes);
    }
    Ok(Packet { bytes, descriptors })
}
