//! Published ports: sockets of the host that stay bound whatever the guest does, and hand connections and datagrams to it
//! while it listens.
//!
//! A connection is accepted only when the guest has room for it; until then it waits in the kernel's backlog, over a
//! restart as well. Nothing is copied: the guest gets the accepted socket itself. A datagram is put into the guest's
//! mailbox, or lost where it has none; whom it is answered to, the guest's socket remembers.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::carrier::Conn;
use super::fabric::Fabric;
use super::holder;
use super::mailbox::Arrival;
use crate::model::{HostPort, InstanceName, Port, Protocol};

/// Connections that wait for a guest, as Linux bounds it.
const BACKLOG: u32 = 4096;
/// Attempts at a port that is free on IPv4 and IPv6 alike, where any will do.
const ATTEMPTS: usize = 16;
/// Between attempts after a failed one.
const PAUSE: Duration = Duration::from_millis(10);

/// A published port that was bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundPort {
    /// Host address.
    pub host: SocketAddr,
    /// Port of the instance.
    pub target: u16,
    /// Of both.
    pub protocol: Protocol,
}

/// A port that could not be published.
#[derive(Debug, thiserror::Error)]
pub struct PublishError {
    /// Host address and port asked for.
    pub address: SocketAddr,
    /// Of which kind.
    pub protocol: Protocol,
    /// Who holds it, where that can be found out: `nginx (pid 812)`.
    pub holder: Option<String>,
    /// The socket's error.
    pub source: io::Error,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, protocol, holder, source } = self;
        let port: &dyn fmt::Display = match protocol {
            Protocol::Tcp => address,
            Protocol::Udp | Protocol::Sctp => &format_args!("{address}/{protocol}"),
        };
        match (source.kind(), holder) {
            (io::ErrorKind::AddrInUse, Some(holder)) => write!(f, "port {port} is taken by {holder}"),
            (io::ErrorKind::AddrInUse, None) => write!(f, "port {port} is taken"),
            (io::ErrorKind::PermissionDenied, _) if address.port() < 1024 => {
                write!(f, "port {port} is below 1024 and cannot be bound by an ordinary user")
            }
            _ => write!(f, "port {port} cannot be published: {source}"),
        }
    }
}

/// A port that is held on the host. Dropping it releases the port.
#[derive(Debug)]
pub(super) struct Published {
    /// As the file has it: what is the same again is kept.
    port: Port,
    bound: Vec<BoundPort>,
    _forwarders: JoinSet<()>,
}

impl Fabric {
    /// Binds the published ports of an instance on the host. They stay bound, over restarts and reloads, until
    /// [`Fabric::unpublish`]; connections wait until the guest listens. Ports it published before and that are not asked
    /// for any more are released. A taken port is an error that names port and holder, and changes nothing.
    pub async fn publish(
        self: &Arc<Self>,
        instance: &InstanceName,
        ports: &[Port],
    ) -> Result<Vec<BoundPort>, PublishError> {
        let held = self.state().published.remove(instance).unwrap_or_default();
        let (mut kept, dropped): (Vec<_>, Vec<_>) = held.into_iter().partition(|held| ports.contains(&held.port));
        let mut added = Vec::new();
        for port in ports {
            if kept.iter().chain(&added).any(|held: &Published| held.port == *port) {
                continue;
            }
            match self.bind_on_host(instance, port) {
                Ok(published) => added.push(published),
                Err((address, source)) => {
                    kept.extend(dropped);
                    self.state().published.insert(instance.clone(), kept);
                    drop(added);
                    return Err(self.explain(instance, port.protocol, address, source).await);
                }
            }
        }
        kept.extend(added);
        let bound = kept.iter().flat_map(|held| held.bound.iter().copied()).collect();
        self.state().published.insert(instance.clone(), kept);
        Ok(bound)
    }

    /// Releases the published ports of an instance.
    pub fn unpublish(&self, instance: &InstanceName) {
        self.state().published.remove(instance);
    }

    fn bind_on_host(
        self: &Arc<Self>,
        instance: &InstanceName,
        port: &Port,
    ) -> Result<Published, (SocketAddr, io::Error)> {
        let forward = Forward { fabric: Arc::downgrade(self), instance: instance.clone(), target: port.target };
        let (mut bound, mut forwarders) = (Vec::new(), JoinSet::new());
        let mut add = |host| bound.push(BoundPort { host, target: port.target, protocol: port.protocol });
        match port.protocol {
            Protocol::Tcp => {
                for (host, listener) in bind(port, listen)? {
                    add(host);
                    forwarders.spawn(forward.clone().connections(listener, self.changes()));
                }
            }
            Protocol::Udp => {
                for (host, socket) in bind(port, datagrams)? {
                    add(host);
                    forwarders.spawn(forward.clone().datagrams(socket));
                }
            }
            Protocol::Sctp => {
                let address = SocketAddr::new(port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port.target);
                let text = "sctp ports of Wasm services are not supported";
                return Err((address, io::Error::new(io::ErrorKind::Unsupported, text)));
            }
        }
        Ok(Published { port: port.clone(), bound, _forwarders: forwarders })
    }

    /// An error with who holds the port: an instance of ours, else whom the system knows.
    async fn explain(
        &self,
        instance: &InstanceName,
        protocol: Protocol,
        address: SocketAddr,
        source: io::Error,
    ) -> PublishError {
        let mut holder = None;
        if source.kind() == io::ErrorKind::AddrInUse {
            let same = |bound: &BoundPort| bound.host.port() == address.port() && bound.protocol == protocol;
            let ours = |held: &Published| held.bound.iter().any(same);
            let found =
                self.state().published.iter().find(|(_, held)| held.iter().any(ours)).map(|(name, _)| name.clone());
            holder = match found {
                Some(other) if other == *instance => Some(format!("another port of {other}")),
                Some(other) => Some(other.to_string()),
                // Reading every process's descriptors takes a moment.
                None => tokio::task::spawn_blocking(move || holder::of(address, protocol)).await.ok().flatten(),
            };
        }
        PublishError { address, protocol, holder, source }
    }
}

/// Sockets of the host, with their addresses; or the address that could not be bound.
type Sockets<T> = Result<Vec<(SocketAddr, T)>, (SocketAddr, io::Error)>;
/// Makes one of them.
type Make<T> = fn(SocketAddr) -> io::Result<(SocketAddr, T)>;

/// Binds a port on its host address, or on all of them; of a range, the first that is free.
fn bind<T>(port: &Port, make: Make<T>) -> Sockets<T> {
    let Some(HostPort { start, end }) = port.published else {
        let any = (0..ATTEMPTS).map(|_| bind_all(port.host_ip, 0, make)).find(|bound| !is_taken(bound));
        return any.unwrap_or_else(|| bind_all(port.host_ip, 0, make));
    };
    let mut first = bind_all(port.host_ip, start, make);
    for number in start..end {
        if !is_taken(&first) {
            break;
        }
        let next = bind_all(port.host_ip, number + 1, make);
        first = if next.is_ok() { next } else { first };
    }
    first
}

fn is_taken<T>(bound: &Sockets<T>) -> bool {
    matches!(bound, Err((_, error)) if error.kind() == io::ErrorKind::AddrInUse)
}

/// Without an address: IPv4 and, where the machine has it, IPv6, on the same port.
fn bind_all<T>(address: Option<IpAddr>, port: u16, make: Make<T>) -> Sockets<T> {
    let bind = |address: IpAddr, port| {
        let address = SocketAddr::new(address, port);
        make(address).map_err(|error| (address, error))
    };
    if let Some(address) = address {
        return Ok(vec![bind(address, port)?]);
    }
    let v4 = bind(Ipv4Addr::UNSPECIFIED.into(), port)?;
    match bind(Ipv6Addr::UNSPECIFIED.into(), v4.0.port()) {
        Ok(v6) => Ok(vec![v4, v6]),
        Err((address, error)) if error.kind() == io::ErrorKind::AddrInUse => Err((address, error)),
        Err(_) => Ok(vec![v4]),
    }
}

fn listen(address: SocketAddr) -> io::Result<(SocketAddr, TcpListener)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    Ok((listener.local_addr()?, listener))
}

fn datagrams(address: SocketAddr) -> io::Result<(SocketAddr, UdpSocket)> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    if address.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    // No reuse of the address: for datagrams it would let two processes share one port.
    rustix::net::bind(&socket, &address)?;
    let socket = UdpSocket::from_std(std::net::UdpSocket::from(socket))?;
    Ok((socket.local_addr()?, socket))
}

/// Hands what comes in on one host socket to a guest.
#[derive(Debug, Clone)]
struct Forward {
    fabric: Weak<Fabric>,
    instance: InstanceName,
    target: u16,
}

impl Forward {
    /// Until the port is released or the fabric is gone.
    async fn datagrams(self, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let (length, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                // An answer that its receiver refused, or no memory for a moment: the next attempt shows.
                Err(_) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Some(fabric) = self.fabric.upgrade() else { return };
            let Some(mailbox) = fabric.public_mailbox(&self.instance, self.target, from) else { continue };
            let bytes = Bytes::copy_from_slice(&buffer[..length]);
            mailbox.put(Arrival { bytes, from, through: Some(Arc::downgrade(&socket)) });
        }
    }

    /// Until the port is released or the fabric is gone.
    async fn connections(self, listener: TcpListener, mut changes: watch::Receiver<()>) {
        // Accepted for a listener that went in that moment.
        let mut waiting = None;
        loop {
            let Some(fabric) = self.fabric.upgrade() else { return };
            let binding = fabric.public_binding(&self.instance, self.target);
            drop(fabric);
            // Only the sender is kept: the rest of a binding ends with its listener.
            let Some(guest) = binding.map(|binding| binding.published.clone()) else {
                if changes.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let room = tokio::select! {
                room = guest.reserve() => room,
                changed = changes.changed() => if changed.is_ok() { continue } else { return },
            };
            let Ok(room) = room else {
                // The listener is gone; a change tells of the next.
                if changes.changed().await.is_err() {
                    return;
                }
                continue;
            };
            if let Some(conn) = waiting.take() {
                room.send(conn);
                continue;
            }
            tokio::select! {
                accepted = listener.accept() => match accepted.and_then(|(stream, _)| Conn::over(stream)) {
                    Ok(conn) if guest.is_closed() => waiting = Some(conn),
                    Ok(conn) => room.send(conn),
                    // The peer gave up, or there is no room for a descriptor: the next attempt shows.
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
                () = guest.closed() => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }
}
