//! What each `sock_…` function does: a guest's numbers in, calls of [`Socket`], numbers out. Out pointers are written on
//! success only, and are looked at before anything is done that could not be undone.

use std::net::{Shutdown, SocketAddr};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::errno::Errno;
use super::memory::{INET4, INET6, Memory, Pointer, STORAGE};
use super::options;
use super::socket::{Family, Kind, Received, Socket, Take};
use super::table::Sockets;

/// `RIFLAGS_RECV_PEEK`.
const PEEK: u32 = 1;
/// `RIFLAGS_RECV_WAITALL`.
const WAITALL: u32 = 2;
/// `ROFLAGS_RECV_DATA_TRUNCATED`.
const TRUNCATED: u16 = 1;
/// `FDFLAGS_NONBLOCK`.
pub(super) const NONBLOCK: u32 = 4;
/// Most bytes of one datagram (RFC 768: a length of 16 bits, less the headers of UDP and IPv4).
const DATAGRAM: u32 = 65_507;

/// One call of a guest: its memory, and its sockets.
pub(super) struct Call<'a> {
    pub(super) memory: Memory<'a>,
    pub(super) sockets: &'a mut Sockets,
}

/// Where received bytes go.
#[derive(Clone, Copy)]
pub(super) struct Incoming {
    pub(super) data: Pointer,
    pub(super) count: u32,
    pub(super) flags: u32,
    pub(super) length: Pointer,
    pub(super) out_flags: Pointer,
}

/// Where sent bytes come from.
#[derive(Clone, Copy)]
pub(super) struct Outgoing {
    pub(super) data: Pointer,
    pub(super) count: u32,
    pub(super) flags: u32,
    pub(super) length: Pointer,
}

impl Call<'_> {
    pub(super) fn open(&mut self, family: u32, kind: u32, out: Pointer) -> Result<(), Errno> {
        let family = match u16::try_from(family) {
            Ok(INET4) => Family::V4,
            Ok(INET6) => Family::V6,
            // Unix sockets: a guest has no place for them.
            Ok(3) => return Err(Errno::NOSYS),
            _ => return Err(Errno::INVAL),
        };
        let kind = match kind {
            1 => Kind::Datagram,
            2 => Kind::Stream,
            _ => return Err(Errno::INVAL),
        };
        self.memory.bytes(out, 4)?;
        let descriptor = self.sockets.insert(Socket::new(family, kind))?;
        self.memory.put_u32(out, descriptor)
    }

    pub(super) async fn bind(&mut self, fd: u32, address: Pointer, port: u32) -> Result<(), Errno> {
        let at = self.endpoint(address, port)?;
        let (socket, stack) = self.sockets.with_stack(fd)?;
        socket.bind(stack, at).await
    }

    pub(super) async fn listen(&mut self, fd: u32) -> Result<(), Errno> {
        let (socket, stack) = self.sockets.with_stack(fd)?;
        socket.listen(stack).await
    }

    pub(super) async fn accept(&mut self, fd: u32, flags: u32, out: Pointer) -> Result<(), Errno> {
        self.memory.bytes(out, 4)?;
        let socket = self.sockets.get(fd)?;
        let (nonblocking, patience) = (socket.nonblocking, socket.options.receive_timeout);
        let mut accepted = wait(nonblocking, patience, |cx| socket.poll_accept(cx)).await?;
        accepted.nonblocking = flags & NONBLOCK != 0;
        let descriptor = self.sockets.insert(accepted)?;
        self.memory.put_u32(out, descriptor)
    }

    pub(super) async fn connect(&mut self, fd: u32, address: Pointer, port: u32) -> Result<(), Errno> {
        let to = self.endpoint(address, port)?;
        let (socket, stack) = self.sockets.with_stack(fd)?;
        socket.connect(stack, to).await?;
        let (nonblocking, patience) = (socket.nonblocking, socket.options.send_timeout);
        match wait(nonblocking, patience, |cx| socket.poll_connected(cx)).await {
            Err(Errno::AGAIN) => Err(Errno::INPROGRESS),
            connected => connected,
        }
    }

    /// Receives into a guest's buffers; answers who sent it.
    pub(super) async fn receive(&mut self, fd: u32, into: Incoming) -> Result<SocketAddr, Errno> {
        if into.flags & !(PEEK | WAITALL) != 0 {
            return Err(Errno::INVAL);
        }
        self.memory.bytes(into.length, 4)?;
        self.memory.bytes(into.out_flags, 2)?;
        let vectors = self.memory.vectors(into.data, into.count)?;
        let socket = self.sockets.get(fd)?;
        let filled = fill(&mut self.memory, socket, &vectors, into.flags).await?;
        self.memory.put_u32(into.length, filled.length)?;
        self.memory.put_u16(into.out_flags, if filled.truncated { TRUNCATED } else { 0 })?;
        Ok(filled.from)
    }

    /// The sender's port is told by the second version alone.
    pub(super) async fn receive_from(
        &mut self,
        fd: u32,
        into: Incoming,
        address: Pointer,
        port: Option<Pointer>,
    ) -> Result<(), Errno> {
        let (buffer, length) = self.memory.address(address)?;
        self.memory.bytes(buffer, length)?;
        if let Some(port) = port {
            self.memory.bytes(port, 2)?;
        }
        let from = self.receive(fd, into).await?;
        self.memory.put_ip(address, from.ip())?;
        // In host order, unlike WasmEdge, which swaps it: only so does an answer reach the sender.
        port.map_or(Ok(()), |port| self.memory.put_u16(port, from.port()))
    }

    /// Sends to where the socket is connected, or to an address and port.
    pub(super) async fn send(&mut self, fd: u32, from: Outgoing, to: Option<(Pointer, u32)>) -> Result<(), Errno> {
        if from.flags != 0 {
            return Err(Errno::INVAL);
        }
        let to = to.map(|(address, port)| self.endpoint(address, port)).transpose()?;
        self.memory.bytes(from.length, 4)?;
        let vectors = self.memory.vectors(from.data, from.count)?;
        let (socket, stack) = self.sockets.with_stack(fd)?;
        socket.prepare_to_send(stack).await?;
        let sent = drain(&self.memory, socket, &vectors, to).await?;
        self.memory.put_u32(from.length, sent)
    }

    pub(super) fn shutdown(&mut self, fd: u32, how: u32) -> Result<(), Errno> {
        let how = match how {
            1 => Shutdown::Read,
            2 => Shutdown::Write,
            3 => Shutdown::Both,
            _ => return Err(Errno::INVAL),
        };
        self.sockets.get(fd)?.shutdown(how)
    }

    /// An option's value to `flag`, its length to `size`.
    pub(super) fn option(&mut self, fd: u32, level: u32, name: u32, flag: Pointer, size: Pointer) -> Result<(), Errno> {
        options::get(self.sockets.get(fd)?, &mut self.memory, level, name, flag, size)
    }

    pub(super) fn set_option(&mut self, fd: u32, level: u32, name: u32, flag: Pointer, size: u32) -> Result<(), Errno> {
        options::set(self.sockets.get(fd)?, &self.memory, level, name, flag, size)
    }

    /// `kind` is where the first version wants the sort of address told.
    pub(super) fn local(
        &mut self,
        fd: u32,
        address: Pointer,
        kind: Option<Pointer>,
        port: Pointer,
    ) -> Result<(), Errno> {
        let local = self.sockets.get(fd)?.local();
        self.tell(local, address, kind, port)
    }

    /// As [`Call::local`], of the other end.
    pub(super) fn peer(
        &mut self,
        fd: u32,
        address: Pointer,
        kind: Option<Pointer>,
        port: Pointer,
    ) -> Result<(), Errno> {
        let peer = self.sockets.get(fd)?.peer()?;
        self.tell(peer, address, kind, port)
    }

    fn endpoint(&self, address: Pointer, port: u32) -> Result<SocketAddr, Errno> {
        let port = u16::try_from(port).map_err(|_| Errno::INVAL)?;
        Ok(SocketAddr::new(self.memory.ip(address)?, port))
    }

    fn tell(&mut self, told: SocketAddr, address: Pointer, kind: Option<Pointer>, port: Pointer) -> Result<(), Errno> {
        let memory = &mut self.memory;
        memory.bytes(port, 4)?;
        match kind {
            Some(kind) => {
                memory.bytes(kind, 4)?;
                memory.put_ip(address, told.ip())?;
                // Historically the digit of the IP version, not that of the family.
                memory.put_u32(kind, if told.is_ipv4() { 4 } else { 6 })?;
            }
            None if memory.address(address)?.1 != STORAGE => return Err(Errno::INVAL),
            None => memory.put_ip(address, told.ip())?,
        }
        memory.put_u32(port, u32::from(told.port()))
    }
}

/// What was received into buffers.
pub(super) struct Filled {
    pub(super) length: u32,
    /// The rest of a datagram did not fit, and is lost.
    pub(super) truncated: bool,
    pub(super) from: SocketAddr,
}

/// Fills buffers from a socket. No room is no read.
pub(super) async fn fill(
    memory: &mut Memory<'_>,
    socket: &mut Socket,
    vectors: &[(Pointer, u32)],
    flags: u32,
) -> Result<Filled, Errno> {
    let (nonblocking, patience) = (socket.nonblocking, socket.options.receive_timeout);
    let take = if flags & PEEK != 0 { Take::Peek } else { Take::Away };
    let whole = flags & WAITALL != 0 && take == Take::Away && socket.kind == Kind::Stream && !nonblocking;
    // The memory has at most as many bytes, but buffers may overlap.
    let room = vectors.iter().map(|(_, length)| *length).fold(0_u32, u32::saturating_add);
    let mut length: u32 = 0;
    if room == 0 && socket.kind == Kind::Stream {
        return Ok(Filled { length, truncated: false, from: socket.peer()? });
    }
    loop {
        let most = (room - length) as usize;
        let received = match wait(nonblocking, patience, |cx| socket.poll_receive(cx, most, take)).await {
            // What was read before a time-out is not lost.
            Err(_) if length > 0 => return Ok(Filled { length, truncated: false, from: socket.peer()? }),
            received => received?,
        };
        let Received { bytes, from } = received;
        let fits = bytes.len().min(most);
        scatter(memory, vectors, length, &bytes[..fits])?;
        length += fits as u32;
        if !whole || bytes.is_empty() || length == room {
            return Ok(Filled { length, truncated: fits < bytes.len(), from });
        }
    }
}

/// Copies bytes into buffers, behind the first `skip` bytes of them.
fn scatter(memory: &mut Memory<'_>, vectors: &[(Pointer, u32)], mut skip: u32, mut bytes: &[u8]) -> Result<(), Errno> {
    for (start, length) in vectors {
        if skip >= *length {
            skip -= length;
            continue;
        }
        let (now, later) = bytes.split_at(bytes.len().min((length - skip) as usize));
        memory.put(start + skip, now)?;
        (skip, bytes) = (0, later);
    }
    Ok(())
}

/// Sends buffers, and answers how many bytes of them; a blocking stream sends all.
pub(super) async fn drain(
    memory: &Memory<'_>,
    socket: &mut Socket,
    vectors: &[(Pointer, u32)],
    to: Option<SocketAddr>,
) -> Result<u32, Errno> {
    let (nonblocking, patience) = (socket.nonblocking, socket.options.send_timeout);
    if socket.kind == Kind::Datagram {
        let length = vectors.iter().map(|(_, length)| *length).fold(0_u32, u32::saturating_add);
        if length > DATAGRAM {
            return Err(Errno::MSGSIZE);
        }
        let parts: Result<Vec<_>, Errno> =
            vectors.iter().map(|(start, length)| memory.bytes(*start, *length)).collect();
        let bytes = parts?.concat();
        let sent = wait(nonblocking, patience, |cx| socket.poll_send(cx, &bytes, to)).await?;
        return Ok(sent as u32);
    }
    let mut total: u32 = 0;
    for (start, length) in vectors {
        let mut bytes = memory.bytes(*start, *length)?;
        while !bytes.is_empty() {
            match wait(nonblocking, patience, |cx| socket.poll_send(cx, bytes, to)).await {
                Ok(sent) => {
                    bytes = &bytes[sent..];
                    total = total.saturating_add(sent as u32);
                }
                // Told at the next call, if it lasts.
                Err(_) if total > 0 => return Ok(total),
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(total)
}

/// Waits for what is polled, at most so long; a non-blocking socket does not wait at all.
async fn wait<T>(
    nonblocking: bool,
    patience: Option<Duration>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<T, Errno>>,
) -> Result<T, Errno> {
    if nonblocking {
        return match poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(Errno::AGAIN),
        };
    }
    let waited = std::future::poll_fn(poll);
    match patience {
        Some(patience) => tokio::time::timeout(patience, waited).await.unwrap_or(Err(Errno::AGAIN)),
        None => waited.await,
    }
}
