//! Where the datagrams for a guest's socket wait: those from guests of this process, from published ports, and answers
//! of the name server. Bounded by bytes, as a kernel's socket is: what does not fit is dropped, as UDP does.
//!
//! Datagrams out of a container's network do not pass here; their queue is the kernel's.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::net::UdpSocket;

use super::fabric::{Fabric, NO_FREE_PORT, taken_off};
use crate::model::InstanceName;

/// Bytes that wait in one mailbox, with what keeping each costs: Linux's own default for a socket's buffer.
const ROOM: usize = 212_992;
/// What keeping a datagram costs beside its bytes.
const OVERHEAD: usize = 128;

/// A datagram that came for a guest.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    /// What it says.
    pub(super) bytes: Bytes,
    /// Who sent it; where `through` is set, as the host sees it.
    pub(super) from: SocketAddr,
    /// The published host socket it came through.
    pub(super) through: Option<Weak<UdpSocket>>,
}

/// The queue of a datagram socket.
#[derive(Debug)]
pub(super) struct Mailbox {
    id: u64,
    /// As asked for; the port is never 0.
    at: SocketAddr,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Arrival>,
    /// Bytes of `waiting`, with their overhead.
    held: usize,
    reader: Option<Waker>,
    closed: bool,
}

impl Mailbox {
    fn new(id: u64, at: SocketAddr) -> Arc<Self> {
        Arc::new(Self { id, at, queue: Mutex::default() })
    }

    /// Puts a datagram in; drops it where there is no room.
    pub(super) fn put(&self, arrival: Arrival) {
        let mut queue = self.queue();
        let size = arrival.bytes.len() + OVERHEAD;
        if queue.closed || queue.held + size > ROOM {
            return;
        }
        queue.held += size;
        queue.waiting.push_back(arrival);
        wake(queue);
    }

    /// Lets the reader look again: there is another place to read from beside this one.
    pub(super) fn nudge(&self) {
        wake(self.queue());
    }

    /// The next datagram.
    pub(super) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<io::Result<Arrival>> {
        let mut queue = self.queue();
        if let Some(arrival) = queue.waiting.pop_front() {
            queue.held -= arrival.bytes.len() + OVERHEAD;
            return Poll::Ready(Ok(arrival));
        }
        if queue.closed {
            return Poll::Ready(Err(taken_off()));
        }
        match &mut queue.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            None => queue.reader = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Takes nothing any more; what waits can still be read.
    pub(super) fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        wake(queue);
    }

    /// Whether what comes for this address arrives here: the IPv6 wildcard takes IPv4 as well, as Linux does.
    fn takes(&self, address: SocketAddr) -> bool {
        let all = self.at.ip().is_unspecified() && (self.at.is_ipv6() || address.is_ipv4());
        all || self.at.ip() == address.ip()
    }

    fn conflicts(&self, at: SocketAddr) -> bool {
        let over = at.ip().is_unspecified() && (at.is_ipv6() || self.at.is_ipv4());
        self.at.port() == at.port() && (over || self.takes(at))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the reader once the lock is given back.
fn wake(mut queue: MutexGuard<'_, Queue>) {
    let reader = queue.reader.take();
    drop(queue);
    if let Some(reader) = reader {
        reader.wake();
    }
}

/// The place of a datagram socket in its fabric, for as long as the socket lives.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) mailbox: Arc<Mailbox>,
    fabric: Arc<Fabric>,
    instance: InstanceName,
}

impl Bound {
    /// The address it was bound to.
    pub(super) fn at(&self) -> SocketAddr {
        self.mailbox.at
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(member) = self.fabric.state().members.get_mut(&self.instance) {
            member.mailboxes.retain(|mailbox| mailbox.id != self.mailbox.id);
        }
    }
}

impl Fabric {
    /// Enters a datagram socket. Port 0 becomes a free one.
    pub(super) fn bind_datagram(self: &Arc<Self>, instance: &InstanceName, mut at: SocketAddr) -> io::Result<Bound> {
        let mut state = self.state();
        let Some(member) = state.members.get(instance) else { return Err(taken_off()) };
        let ports: Vec<u16> = member.mailboxes.iter().map(|mailbox| mailbox.at.port()).collect();
        if at.port() == 0 {
            at.set_port(state.free_port(|port| !ports.contains(&port)).ok_or(NO_FREE_PORT)?);
        } else if member.mailboxes.iter().any(|mailbox| mailbox.conflicts(at)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let mailbox = Mailbox::new(state.next_id(), at);
        if let Some(member) = state.members.get_mut(instance) {
            member.mailboxes.push(mailbox.clone());
        }
        drop(state);
        Ok(Bound { mailbox, fabric: self.clone(), instance: instance.clone() })
    }

    /// What takes datagrams for an address of an instance, the most exact first. `None` where the instance is no guest of
    /// this process.
    pub(super) fn mailbox(&self, instance: &InstanceName, to: SocketAddr) -> Option<Option<Arc<Mailbox>>> {
        let state = self.state();
        let takers = state.members.get(instance)?.mailboxes.iter();
        let takers = takers.filter(|mailbox| mailbox.at.port() == to.port() && mailbox.takes(to));
        Some(takers.min_by_key(|mailbox| mailbox.at.ip().is_unspecified()).cloned())
    }

    /// What takes datagrams on a port of an instance from the world outside it; of several, one of the sender's family.
    pub(super) fn public_mailbox(&self, instance: &InstanceName, port: u16, from: SocketAddr) -> Option<Arc<Mailbox>> {
        let state = self.state();
        let takers = state.members.get(instance)?.mailboxes.iter();
        let takers = takers.filter(|mailbox| mailbox.at.port() == port && !mailbox.at.ip().is_loopback());
        takers.min_by_key(|mailbox| mailbox.at.is_ipv4() != from.is_ipv4()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an endpoint")
    }

    fn arrival(length: usize) -> Arrival {
        Arrival { bytes: Bytes::from(vec![7; length]), from: at("198.18.0.9:9"), through: None }
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_room_comes_back() {
        let mailbox = Mailbox::new(0, at("0.0.0.0:53"));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..10_000 {
            mailbox.put(arrival(1000));
        }
        let mut taken = 0;
        while mailbox.poll_take(&mut cx).is_ready() {
            taken += 1;
        }
        assert_eq!(taken, ROOM / (1000 + OVERHEAD));
        // Empty ones cost something as well.
        for _ in 0..10_000 {
            mailbox.put(arrival(0));
        }
        assert_eq!(mailbox.queue().waiting.len(), ROOM / OVERHEAD);
    }

    #[test]
    fn a_wildcard_takes_its_family_and_the_ipv6_one_both() {
        for (bound, takes, leaves) in [
            ("0.0.0.0:53", "10.0.0.1:53", "[fd00::1]:53"),
            ("[::]:53", "10.0.0.1:53", ""),
            ("[::]:53", "[fd00::1]:53", ""),
            ("10.0.0.1:53", "10.0.0.1:53", "10.0.0.2:53"),
        ] {
            let mailbox = Mailbox::new(0, at(bound));
            assert!(mailbox.takes(at(takes)), "{bound} {takes}");
            assert!(leaves.is_empty() || !mailbox.takes(at(leaves)), "{bound} {leaves}");
        }
        let (v4, one) = (Mailbox::new(0, at("0.0.0.0:53")), Mailbox::new(0, at("10.0.0.1:53")));
        assert!(v4.conflicts(at("[::]:53")) && v4.conflicts(at("10.0.0.1:53")) && one.conflicts(at("0.0.0.0:53")));
        assert!(
            !v4.conflicts(at("[fd00::1]:53")) && !one.conflicts(at("10.0.0.2:53")) && !v4.conflicts(at("0.0.0.0:54"))
        );
    }
}
