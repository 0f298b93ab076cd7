//! Listeners and datagram sockets whose sockets the agent holds.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::channel::{Channel, wait};
use super::frame::Opening;
use super::state::Flow;
use crate::net::agent::gone;
use crate::net::carrier::{Conn, Stream, canonical};

/// Connections that the agent accepts before they are asked for; others wait in the kernel's backlog.
const PLACES: usize = 8;

/// A listener.
#[derive(Debug)]
pub struct Acceptor {
    listener: Channel,
    local: SocketAddr,
    /// For its next connections, in their order.
    places: VecDeque<Channel>,
}

impl Acceptor {
    pub(super) fn new(listener: Channel, local: SocketAddr) -> Self {
        Self { listener, local, places: VecDeque::new() }
    }

    /// The address it listens at.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The next connection.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Conn>> {
        while self.places.len() < PLACES {
            let next = Opening::Next(self.listener.number);
            match Channel::new(&self.listener.shared, next, Flow::stream()) {
                Ok(place) => self.places.push_back(place),
                // The places that there are will do.
                Err(_) if !self.places.is_empty() => break,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let Some(first) = self.places.front() else { return Poll::Pending };
        let Poll::Ready(opened) = first.poll_opened(cx) else { return Poll::Pending };
        let Some(place) = self.places.pop_front() else { return Poll::Pending };
        Poll::Ready(opened.map(|ends| conn(place, ends)))
    }
}

/// A connection over a channel that is open.
pub(super) fn conn(channel: Channel, (local, peer): (SocketAddr, SocketAddr)) -> Conn {
    Conn { io: Stream::Carried(channel), local: canonical(local), peer: canonical(peer) }
}

/// A datagram socket.
#[derive(Debug)]
pub struct Datagrams {
    channel: Channel,
    local: SocketAddr,
}

impl Datagrams {
    pub(super) fn new(channel: Channel, local: SocketAddr) -> Self {
        Self { channel, local }
    }

    /// The address it is bound to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The next datagram, and who sent it.
    pub fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Bytes, SocketAddr)>> {
        self.channel.shared.act(|state| {
            let is_gone = state.gone;
            let channel = state.channel(self.channel.number);
            let Flow::Datagrams(_, receiving) = &mut channel.flow else { return Poll::Ready(Err(gone())) };
            match receiving.read() {
                Some(datagram) => {
                    if receiving.is_due() {
                        state.queue(self.channel.number);
                    }
                    Poll::Ready(Ok(datagram))
                }
                None if is_gone => Poll::Ready(Err(gone())),
                None => wait(&mut channel.reader, cx),
            }
        })
    }

    /// Sends a datagram, or tells of an earlier one that was not sent.
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8], to: SocketAddr) -> Poll<io::Result<usize>> {
        self.channel.shared.act(|state| {
            if state.gone {
                return Poll::Ready(Err(gone()));
            }
            let channel = state.channel(self.channel.number);
            let Flow::Datagrams(sending, _) = &mut channel.flow else { return Poll::Ready(Err(gone())) };
            match sending.take(bytes, to) {
                Ok(true) => {
                    state.queue(self.channel.number);
                    Poll::Ready(Ok(bytes.len()))
                }
                Ok(false) => wait(&mut channel.writer, cx),
                Err(errno) => Poll::Ready(Err(io::Error::from_raw_os_error(errno))),
            }
        })
    }
}
