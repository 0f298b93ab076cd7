//! Datagram sockets of a guest: one address, and behind it up to four sources: guests of this process and published ports
//! (the mailbox), the container's network (a kernel socket of the agent's), and, without an agent, the host's, once for
//! each address family and made when first needed.
//!
//! Every datagram is decided about by itself. What came from outside can be answered for a while, the way it came.
//! Queues are bounded, and what does not fit is lost, as UDP has it.

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::io::Errno;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::peers::{Path, Peers};
use super::resolver::Carrier;
use super::socket::{self, Family};
use super::ways::{Acquaintance, Allowed, own_end};
use super::{NetError, Stack};
use crate::net::agent::{Datagrams, poll_kernel};
use crate::net::carrier::canonical;
use crate::net::dns::{self, Server};
use crate::net::mailbox::{Arrival, Bound, Mailbox};
use crate::net::places::Place;

/// Longest datagram (RFC 768: a length of 16 bits, without the headers of UDP and IPv4).
const LONGEST: usize = 65_507;
/// Attempts at a port that is free in the container and in this process alike, where any will do.
const ATTEMPTS: usize = 8;
/// Questions to name servers that one socket waits for; more are lost.
const QUESTIONS: usize = 64;
/// Places a socket reads from.
const SOURCES: u8 = 4;

impl Stack {
    /// A datagram socket at an address of the instance. The addresses are those of [`Stack::listen`], and port 0 becomes a
    /// free one; ports of datagram sockets and of listeners are apart.
    pub async fn datagram(&self, at: SocketAddr) -> Result<Datagram, NetError> {
        let at = canonical(at);
        let mut left = if at.port() == 0 { ATTEMPTS } else { 1 };
        loop {
            left -= 1;
            match self.bind_datagram(at).await {
                Err(NetError::Io(error)) if error.kind() == io::ErrorKind::AddrInUse && left > 0 => {}
                bound => return bound,
            }
        }
    }

    async fn bind_datagram(&self, mut at: SocketAddr) -> Result<Datagram, NetError> {
        let agent = self.in_container(at.ip())?;
        let place = self.inner.places.take()?;
        let container = match agent {
            Some(agent) => {
                let socket = agent.datagrams(at).await?;
                at.set_port(socket.local_addr()?.port());
                Some(socket)
            }
            None => None,
        };
        let bound = self.inner.fabric.bind_datagram(&self.inner.instance, at)?;
        Ok(Datagram {
            stack: self.clone(),
            peers: Peers::new(bound.at()),
            bound,
            _place: place,
            container,
            host: [None, None],
            questions: JoinSet::new(),
            scratch: Vec::new(),
            turn: 0,
        })
    }
}

/// A datagram socket of a guest. Dropping it frees the port; published host ports stay bound.
#[derive(Debug)]
pub struct Datagram {
    stack: Stack,
    bound: Bound,
    _place: Place,
    /// In the container, where it has a part in its network.
    container: Option<Datagrams>,
    /// Of this process, for IPv4 and IPv6.
    host: [Option<UdpSocket>; 2],
    peers: Peers,
    /// To name servers, not answered yet.
    questions: JoinSet<()>,
    /// Where the kernel puts what it has; as long as the longest datagram once it was needed.
    scratch: Vec<u8>,
    /// Which source is asked first next time: a busy one starves no other.
    turn: u8,
}

impl Datagram {
    /// The address the guest sees itself bound to.
    pub fn local(&self) -> SocketAddr {
        self.bound.at()
    }

    /// The next datagram, and who sent it: an address that can be answered.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Bytes, SocketAddr)>> {
        self.turn = (self.turn + 1) % SOURCES;
        for step in 0..SOURCES {
            let received = match (self.turn + step) % SOURCES {
                0 => self.poll_mailbox(cx),
                1 => self.poll_container(cx),
                2 => self.poll_host(0, cx),
                _ => self.poll_host(1, cx),
            };
            if let Poll::Ready(received) = received {
                if let Ok((bytes, _)) = &received {
                    self.stack.traffic().count_received(bytes.len());
                }
                return Poll::Ready(received);
            }
        }
        Poll::Pending
    }

    fn poll_mailbox(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Bytes, SocketAddr)>> {
        let Arrival { bytes, from, through } = ready!(self.bound.mailbox.poll_take(cx))?;
        let from = match through {
            Some(published) => self.peers.heard(Path::Published(published), from),
            None => from,
        };
        Poll::Ready(Ok((bytes, from)))
    }

    fn poll_container(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Bytes, SocketAddr)>> {
        let Some(socket) = &self.container else { return Poll::Pending };
        let (bytes, from) = ready!(socket.poll_receive(&mut self.scratch, cx))?;
        Poll::Ready(Ok((bytes, self.peers.heard(Path::Container, from))))
    }

    fn poll_host(&mut self, which: usize, cx: &mut Context<'_>) -> Poll<io::Result<(Bytes, SocketAddr)>> {
        let Some(socket) = &self.host[which] else { return Poll::Pending };
        loop {
            let (bytes, from) = ready!(poll_kernel(socket, &mut self.scratch, cx))?;
            // The socket is open to the host's whole network: strangers are not let in.
            if let Some(from) = self.peers.expected(from) {
                return Poll::Ready(Ok((bytes, from)));
            }
        }
    }

    /// Sends a datagram. That it was sent does not say that it arrives.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8], to: SocketAddr) -> Poll<Result<(), NetError>> {
        let sent = self.poll_pass_on(cx, bytes, to);
        if let Poll::Ready(Ok(())) = &sent {
            self.stack.traffic().count_sent(bytes.len());
        }
        sent
    }

    fn poll_pass_on(&mut self, cx: &mut Context<'_>, bytes: &[u8], to: SocketAddr) -> Poll<Result<(), NetError>> {
        let to = canonical(to);
        if bytes.len() > LONGEST {
            return fail(Errno::MSGSIZE);
        }
        if to.port() == 0 {
            return fail(Errno::INVAL);
        }
        if self.local().is_ipv4() && to.is_ipv6() {
            return fail(Errno::AFNOSUPPORT);
        }
        if let Some(server) = dns::server(to) {
            self.ask(server, bytes, to);
            return Poll::Ready(Ok(()));
        }
        let way_back = self.peers.way_back(to);
        let acquaintance = if way_back.is_some() { Acquaintance::Caller } else { Acquaintance::None };
        let allowed = self.stack.decide(to, acquaintance)?;
        // A neighbour is answered the way it last came as well.
        if let (Some((path, real)), true) = (way_back, allowed != Allowed::Itself) {
            return self.poll_answer(&path, cx, bytes, real);
        }
        if allowed != Allowed::Itself && self.local().ip().is_loopback() {
            // As Linux has it: loopback leads nowhere else.
            return fail(Errno::INVAL);
        }
        let inner = &self.stack.inner;
        match allowed {
            Allowed::Itself => {
                let found = inner.fabric.mailbox(&inner.instance, to).flatten();
                self.put(found, bytes, own_end(to.ip()))
            }
            Allowed::Neighbour(owner) => match inner.fabric.mailbox(&owner, to) {
                Some(found) => self.put(found, bytes, self.stack.facing(to.ip())),
                None => self.poll_send_from_container(cx, bytes, to),
            },
            Allowed::Host(real) => self.poll_send_from_host(cx, bytes, real),
            Allowed::Answer | Allowed::Egress if inner.agent.is_some() => self.poll_send_from_container(cx, bytes, to),
            Allowed::Answer | Allowed::Egress => self.poll_send_from_host(cx, bytes, to),
        }
    }

    /// Asks a name server; its answer comes into the mailbox.
    fn ask(&mut self, server: Server, question: &[u8], at: SocketAddr) {
        while self.questions.try_join_next().is_some() {}
        if self.questions.len() < QUESTIONS {
            let (stack, mailbox) = (self.stack.clone(), self.bound.mailbox.clone());
            let question = Bytes::copy_from_slice(question);
            self.questions.spawn(async move {
                if let Some(answer) = stack.ask(server, &question, Carrier::Datagram).await {
                    mailbox.put(Arrival { bytes: answer.into(), from: at, through: None });
                }
            });
        }
    }

    /// To a mailbox of this process; where nobody listens it is lost.
    fn put(&self, mailbox: Option<Arc<Mailbox>>, bytes: &[u8], own: IpAddr) -> Poll<Result<(), NetError>> {
        if let Some(mailbox) = mailbox {
            let local = self.local();
            let ip = if local.ip().is_unspecified() { own } else { local.ip() };
            let from = SocketAddr::new(ip, local.port());
            mailbox.put(Arrival { bytes: Bytes::copy_from_slice(bytes), from, through: None });
        }
        Poll::Ready(Ok(()))
    }

    fn poll_answer(
        &self,
        path: &Path,
        cx: &mut Context<'_>,
        bytes: &[u8],
        real: SocketAddr,
    ) -> Poll<Result<(), NetError>> {
        match path {
            Path::Container => self.poll_send_from_container(cx, bytes, real),
            Path::Published(socket) => match socket.upgrade() {
                Some(socket) => match socket.try_send_to(bytes, real) {
                    // Others use the socket as well, so nobody waits for it: what it has no room for is lost.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Ready(Ok(())),
                    result => Poll::Ready(sent(result)),
                },
                // The port is published no more: there is nobody to hear it.
                None => Poll::Ready(Ok(())),
            },
        }
    }

    fn poll_send_from_container(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        to: SocketAddr,
    ) -> Poll<Result<(), NetError>> {
        match &self.container {
            Some(socket) => socket.poll_send(cx, bytes, to).map(sent),
            None => fail(Errno::HOSTUNREACH),
        }
    }

    fn poll_send_from_host(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        to: SocketAddr,
    ) -> Poll<Result<(), NetError>> {
        let family = Family::of(to);
        let place = &mut self.host[usize::from(family == Family::V6)];
        let socket = match place {
            Some(socket) => socket,
            None => {
                // Whoever waits for a datagram waits for one from there as well from now on.
                self.bound.mailbox.nudge();
                place.insert(socket::host_datagram(family)?)
            }
        };
        ready!(socket.poll_send_to(cx, bytes, to))?;
        self.peers.spoke(to);
        Poll::Ready(Ok(()))
    }
}

fn sent(result: io::Result<usize>) -> Result<(), NetError> {
    result.map(drop).map_err(NetError::Io)
}

fn fail(errno: Errno) -> Poll<Result<(), NetError>> {
    Poll::Ready(Err(NetError::Io(errno.into())))
}
