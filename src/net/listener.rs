//! A listening port of a guest: connections from its container's network, from guests of this process, from published ports.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::mpsc;

use super::agent::Acceptor;
use super::carrier::Conn;
use super::fabric::{Fabric, taken_off};
use super::places::{Place, Places, Queue};
use crate::model::InstanceName;

/// A listening port of a guest. Dropping it frees the port, unless that is in a gap; published host ports
/// stay bound.
#[derive(Debug)]
pub struct Listener {
    local: SocketAddr,
    /// Let go of at the end.
    sources: Option<Sources>,
    /// Counts what is accepted among the open sockets of the guest.
    queue: Queue,
    _place: Place,
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(sources) = self.sources.take() {
            let fabric = sources.inbox.registration.fabric.clone();
            fabric.let_go(self.local, sources);
        }
    }
}

/// Where connections come from.
#[derive(Debug)]
pub(super) struct Sources {
    kernel: Option<Acceptor>,
    inbox: Inbox,
    /// Which one is asked first next time: a busy one starves no other.
    turn: u8,
}

/// What a fabric hands to a listener.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) inside: mpsc::Receiver<Conn>,
    pub(super) published: mpsc::Receiver<Conn>,
    pub(super) registration: Registration,
}

impl Drop for Inbox {
    /// A client of a published port that was not accepted yet waits for the next listener: a restart breaks nothing for it.
    fn drop(&mut self) {
        self.published.close();
        let waiting = std::iter::from_fn(|| self.published.try_recv().ok()).collect();
        let Registration { fabric, instance, port, .. } = &self.registration;
        fabric.put_back(instance, *port, waiting);
    }
}

/// The entry of a listener in its fabric, for as long as the listener lives.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) fabric: Arc<Fabric>,
    pub(super) instance: InstanceName,
    pub(super) port: u16,
    pub(super) id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.fabric.unbind(&self.instance, self.id);
    }
}

impl Listener {
    /// `place` is that of the listener itself.
    pub(super) fn new(local: SocketAddr, sources: Sources, place: Place, places: &Arc<Places>) -> Self {
        Self { local, sources: Some(sources), queue: places.queue(), _place: place }
    }

    /// The address the guest sees itself listening on.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The next connection, once the guest may have one more open.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Conn>> {
        ready!(self.queue.poll(cx))?;
        let sources = self.sources.as_mut().expect("they are let go of at the end");
        let conn = ready!(sources.poll(cx))?;
        let place = self.queue.take().expect("it was polled for one");
        Poll::Ready(Ok(conn.placed(place)))
    }
}

impl Sources {
    /// The container's network where there is a `kernel` listener for it, and whatever the fabric hands over.
    pub(super) fn new(kernel: Option<Acceptor>, inbox: Inbox) -> Self {
        Self { kernel, inbox, turn: 0 }
    }

    pub(super) fn instance(&self) -> &InstanceName {
        &self.inbox.registration.instance
    }

    /// The number of the listener's entry in the fabric.
    pub(super) fn id(&self) -> u64 {
        self.inbox.registration.id
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Conn>> {
        self.turn = (self.turn + 1) % 3;
        for step in 0..3 {
            let conn = match (self.turn + step) % 3 {
                0 => self.poll_kernel(cx),
                1 => match self.inbox.inside.poll_recv(cx) {
                    Poll::Ready(None) => Poll::Ready(Err(taken_off())),
                    Poll::Ready(Some(conn)) => Poll::Ready(Ok(conn)),
                    Poll::Pending => Poll::Pending,
                },
                _ => match self.inbox.published.poll_recv(cx) {
                    Poll::Ready(Some(conn)) => Poll::Ready(Ok(conn)),
                    // Closed as `inside` is, which tells it.
                    Poll::Ready(None) | Poll::Pending => Poll::Pending,
                },
            };
            if conn.is_ready() {
                return conn;
            }
        }
        Poll::Pending
    }

    fn poll_kernel(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Conn>> {
        let Some(kernel) = &mut self.kernel else { return Poll::Pending };
        loop {
            match ready!(kernel.poll_accept(cx)) {
                // The peer gave up while it waited: no concern of the guest's.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::NotConnected) => {}
                accepted => return Poll::Ready(accepted),
            }
        }
    }
}
