//! What the stacks of one supervisor share: who is a guest here, who listens where, which host ports are held.
//!
//! Knows nothing of what a guest may reach; a stack asks [`super::policy`] before it comes here. Its lock is held for
//! look-ups only, never across an await; what is taken out is dropped after it (a guest's service may hold a listener,
//! whose end asks for the lock).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use super::addresses::Addresses;
use super::carrier::{Conn, HttpService};
use super::directory::Directory;
use super::forward::Published;
use super::gap::Held;
use super::listener::{Inbox, Registration};
use super::mailbox::Mailbox;
use crate::model::InstanceName;

/// Connections inside this process that wait to be accepted, for each listener.
const BACKLOG: usize = 128;
/// Connections from published ports that wait to be accepted. Each host socket holds a place while it waits for its next
/// connection, so there is one for every host socket that may lead to a port; what is beyond waits in the kernel's backlog.
const PUBLISHED: usize = 64;
/// Ports given out where port 0 is asked for, as Linux does.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;
/// What binding port 0 fails with when all of them are taken.
pub(super) const NO_FREE_PORT: io::ErrorKind = io::ErrorKind::AddrInUse;

/// The listeners of this process and the addresses given out in it. One for each supervisor.
#[derive(Debug)]
pub struct Fabric {
    pub(super) directory: Arc<Directory>,
    state: Mutex<State>,
    /// Told whenever a listener came or went.
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) addresses: Addresses,
    /// Every instance that joined.
    pub(super) members: BTreeMap<InstanceName, Member>,
    pub(super) published: BTreeMap<InstanceName, Vec<Published>>,
    next_id: u64,
    next_port: u16,
}

/// What an instance has open.
#[derive(Debug, Default)]
pub(super) struct Member {
    pub(super) listeners: Vec<Arc<Binding>>,
    /// A program ends, and another one takes its place: what it listens with is held.
    pub(super) gap: Option<u64>,
    pub(super) held: Vec<Held>,
    /// Clients of published ports whose listener went before it accepted them, with the port.
    waiting: Vec<(u16, Conn)>,
    pub(super) mailboxes: Vec<Arc<Mailbox>>,
}

impl Drop for Member {
    /// Who reads a mailbox holds it as well: it has to be told.
    fn drop(&mut self) {
        for mailbox in &self.mailboxes {
            mailbox.close();
        }
    }
}

/// A port a guest listens on.
pub(super) struct Binding {
    pub(super) id: u64,
    /// As asked for; the port is never 0.
    pub(super) at: SocketAddr,
    /// Takes connections from guests of this process.
    pub(super) inside: mpsc::Sender<Conn>,
    /// Takes connections from published host ports.
    pub(super) published: mpsc::Sender<Conn>,
    /// Takes requests from guests of this process.
    pub(super) service: Option<Arc<dyn HttpService>>,
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding").field("at", &self.at).field("http", &self.service.is_some()).finish_non_exhaustive()
    }
}

impl Binding {
    /// Whether what comes for this address arrives here.
    fn takes(&self, address: IpAddr) -> bool {
        self.at.ip().is_unspecified() || self.at.ip() == address
    }

    fn conflicts(&self, at: SocketAddr) -> bool {
        self.at.port() == at.port() && (at.ip().is_unspecified() || self.takes(at.ip()))
    }
}

impl Fabric {
    /// An empty fabric over a directory.
    pub fn new(directory: Arc<Directory>) -> Arc<Self> {
        Arc::new(Self { directory, state: Mutex::default(), changes: watch::Sender::new(()) })
    }

    /// Takes an instance off the network: its listeners close, its directory entry goes. Connections end as guests drop them.
    pub fn leave(&self, instance: &InstanceName) {
        self.directory.leave(instance);
        let gone = self.state().members.remove(instance);
        drop(gone);
        self.changes.send_replace(());
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A receiver that is told of every listener that comes or goes from now on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// What listens for an address of an instance. `None` where the instance is no guest of this process.
    pub(super) fn binding(&self, instance: &InstanceName, to: SocketAddr) -> Option<io::Result<Arc<Binding>>> {
        let state = self.state();
        let listeners = &state.members.get(instance)?.listeners;
        let found = listeners.iter().find(|binding| binding.at.port() == to.port() && binding.takes(to.ip()));
        Some(found.cloned().ok_or_else(|| io::ErrorKind::ConnectionRefused.into()))
    }

    /// What listens on a port of an instance for the world outside it, whatever the address.
    pub(super) fn public_binding(&self, instance: &InstanceName, port: u16) -> Option<Arc<Binding>> {
        let state = self.state();
        let mut listeners = state.members.get(instance)?.listeners.iter();
        listeners.find(|binding| binding.at.port() == port && !binding.at.ip().is_loopback()).cloned()
    }

    /// A port for the connecting end of a connection inside this process.
    pub(super) fn ephemeral_port(&self) -> u16 {
        self.state().ephemeral_port()
    }

    /// Enters a listener. Port 0 becomes a free one.
    pub(super) fn bind(
        self: &Arc<Self>,
        instance: &InstanceName,
        mut at: SocketAddr,
        service: Option<Arc<dyn HttpService>>,
    ) -> io::Result<(SocketAddr, Inbox)> {
        let mut state = self.state();
        let Some(member) = state.members.get(instance) else {
            return Err(io::Error::new(io::ErrorKind::NetworkDown, format!("{instance} left the network")));
        };
        let ports: Vec<u16> = member.listeners.iter().map(|binding| binding.at.port()).collect();
        if at.port() == 0 {
            at.set_port(state.free_port(|port| !ports.contains(&port)).ok_or(NO_FREE_PORT)?);
        } else if member.listeners.iter().any(|binding| binding.conflicts(at)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let id = state.next_id();
        let (inside, inside_queue) = mpsc::channel(BACKLOG);
        let (published, published_queue) = mpsc::channel(PUBLISHED);
        let binding = Arc::new(Binding { id, at, inside, published, service });
        if let Some(member) = state.members.get_mut(instance) {
            if !at.ip().is_loopback() {
                for (_, conn) in member.waiting.extract_if(.., |(port, _)| *port == at.port()) {
                    // There is room: no more of them are kept than fit.
                    let _ = binding.published.try_send(conn);
                }
            }
            member.listeners.push(binding);
        }
        drop(state);
        self.changes.send_replace(());
        let registration = Registration { fabric: self.clone(), instance: instance.clone(), port: at.port(), id };
        Ok((at, Inbox { inside: inside_queue, published: published_queue, registration }))
    }

    /// Keeps clients of published ports for the next listener on their port, as long as the instance is on the network.
    pub(super) fn put_back(&self, instance: &InstanceName, port: u16, mut clients: Vec<Conn>) {
        let mut state = self.state();
        if let Some(member) = state.members.get_mut(instance) {
            clients.truncate(PUBLISHED.saturating_sub(member.waiting.len()));
            member.waiting.extend(clients.drain(..).map(|conn| (port, conn)));
        }
    }

    /// Removes a listener.
    pub(super) fn unbind(&self, instance: &InstanceName, id: u64) {
        let mut state = self.state();
        let gone = state.members.get_mut(instance).and_then(|member| {
            let place = member.listeners.iter().position(|binding| binding.id == id)?;
            Some(member.listeners.swap_remove(place))
        });
        drop(state);
        drop(gone);
        self.changes.send_replace(());
    }
}

impl State {
    /// A number that no other listener or mailbox has.
    pub(super) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The next port that is free.
    pub(super) fn free_port(&mut self, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        (0..EPHEMERAL.len()).map(|_| self.ephemeral_port()).find(|port| is_free(*port))
    }

    fn ephemeral_port(&mut self) -> u16 {
        let port = if EPHEMERAL.contains(&self.next_port) { self.next_port } else { *EPHEMERAL.start() };
        self.next_port = port + 1;
        port
    }
}

/// Told to whom still has something open on a network that its instance left.
pub(super) fn taken_off() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the instance was taken off the network")
}
