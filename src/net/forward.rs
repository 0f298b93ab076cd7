//! Published ports: sockets of the host that stay bound whatever the guest does, and hand connections to it while it listens.
//!
//! A connection is accepted only when the guest has room for it; until then it waits in the kernel's backlog, over a
//! restart as well. Nothing is copied: the guest gets the accepted socket itself.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::carrier::Conn;
use super::fabric::Fabric;
use super::holder;
use crate::model::{HostPort, InstanceName, Port, Protocol};

/// Connections that wait for a guest, as Linux bounds it.
const BACKLOG: u32 = 4096;
/// Attempts at a port that is free on IPv4 and IPv6 alike, where any will do.
const ATTEMPTS: usize = 16;

/// A published port that was bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundPort {
    /// Host address.
    pub host: SocketAddr,
    /// Port of the instance.
    pub target: u16,
}

/// A port that could not be published.
#[derive(Debug, thiserror::Error)]
pub struct PublishError {
    /// Host address and port asked for.
    pub address: SocketAddr,
    /// Who holds it, where that can be found out: `nginx (pid 812)`.
    pub holder: Option<String>,
    /// The socket's error.
    pub source: io::Error,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, holder, source } = self;
        match (source.kind(), holder) {
            (io::ErrorKind::AddrInUse, Some(holder)) => write!(f, "port {address} is taken by {holder}"),
            (io::ErrorKind::AddrInUse, None) => write!(f, "port {address} is taken"),
            (io::ErrorKind::PermissionDenied, _) if address.port() < 1024 => {
                write!(f, "port {address} is below 1024 and cannot be bound by an ordinary user")
            }
            _ => write!(f, "port {address} cannot be published: {source}"),
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
                    return Err(self.explain(instance, address, source).await);
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
        if port.protocol != Protocol::Tcp {
            let address = SocketAddr::new(port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port.target);
            let text = format!("{} ports of Wasm services are not supported", port.protocol);
            return Err((address, io::Error::new(io::ErrorKind::Unsupported, text)));
        }
        let mut bound = Vec::new();
        let mut forwarders = JoinSet::new();
        for listener in bind(port)? {
            let host = listener.local_addr().map_err(|error| (SocketAddr::from(([0; 4], 0)), error))?;
            bound.push(BoundPort { host, target: port.target });
            let forward = Forward { fabric: Arc::downgrade(self), instance: instance.clone(), target: port.target };
            forwarders.spawn(forward.run(listener, self.changes()));
        }
        Ok(Published { port: port.clone(), bound, _forwarders: forwarders })
    }

    /// An error with who holds the port: an instance of ours, else whom the system knows.
    async fn explain(&self, instance: &InstanceName, address: SocketAddr, source: io::Error) -> PublishError {
        let mut holder = None;
        if source.kind() == io::ErrorKind::AddrInUse {
            let ours = |held: &Published| held.bound.iter().any(|bound| bound.host.port() == address.port());
            let found =
                self.state().published.iter().find(|(_, held)| held.iter().any(ours)).map(|(name, _)| name.clone());
            holder = match found {
                Some(other) if other == *instance => Some(format!("another port of {other}")),
                Some(other) => Some(other.to_string()),
                // Reading every process's descriptors takes a moment.
                None => tokio::task::spawn_blocking(move || holder::of(address)).await.ok().flatten(),
            };
        }
        PublishError { address, holder, source }
    }
}

/// Binds a port on its host address, or on all of them; of a range, the first that is free.
fn bind(port: &Port) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    let Some(HostPort { start, end }) = port.published else {
        let any = (0..ATTEMPTS).map(|_| bind_all(port.host_ip, 0)).find(|bound| !is_taken(bound));
        return any.unwrap_or_else(|| bind_all(port.host_ip, 0));
    };
    let mut first = bind_all(port.host_ip, start);
    for number in start..end {
        if !is_taken(&first) {
            break;
        }
        let next = bind_all(port.host_ip, number + 1);
        first = if next.is_ok() { next } else { first };
    }
    first
}

fn is_taken(bound: &Result<Vec<TcpListener>, (SocketAddr, io::Error)>) -> bool {
    matches!(bound, Err((_, error)) if error.kind() == io::ErrorKind::AddrInUse)
}

/// Without an address: IPv4 and, where the machine has it, IPv6, on the same port.
fn bind_all(address: Option<IpAddr>, port: u16) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    let bind = |address: IpAddr, port| {
        let address = SocketAddr::new(address, port);
        bind_one(address).map_err(|error| (address, error))
    };
    if let Some(address) = address {
        return Ok(vec![bind(address, port)?]);
    }
    let v4 = bind(Ipv4Addr::UNSPECIFIED.into(), port)?;
    let port = v4.local_addr().map_or(port, |bound| bound.port());
    match bind(Ipv6Addr::UNSPECIFIED.into(), port) {
        Ok(v6) => Ok(vec![v4, v6]),
        Err((address, error)) if error.kind() == io::ErrorKind::AddrInUse => Err((address, error)),
        Err(_) => Ok(vec![v4]),
    }
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Hands what comes in on one host socket to a guest.
struct Forward {
    fabric: Weak<Fabric>,
    instance: InstanceName,
    target: u16,
}

impl Forward {
    /// Until the port is released or the fabric is gone.
    async fn run(self, listener: TcpListener, mut changes: watch::Receiver<()>) {
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
            tokio::select! {
                accepted = listener.accept() => match accepted.and_then(|(stream, _)| Conn::over(stream)) {
                    Ok(conn) => room.send(conn),
                    // The peer gave up, or there is no room for a descriptor: the next attempt shows.
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                },
                () = guest.closed() => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }
}
