//! What one guest sees of the network: listen, connect, look up names. Everything it does passes through here,
//! and nothing passes that [`super::policy`] does not allow.
//!
//! Datagram sockets and answers to the guest's own DNS queries belong here as well, beside [`Stack::connect`]; they are
//! not part of it yet.

mod memory;
mod socket;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::addresses::HOST;
use super::agent::Agent;
use super::carrier::canonical;
pub use super::carrier::{Body, BoxError, Conn, HttpService, Route, Stream};
use super::directory::Presence;
use super::fabric::Binding;
pub use super::fabric::Fabric;
pub use super::forward::{BoundPort, PublishError};
pub use super::listener::Listener;
use super::places::Places;
pub use super::policy::Refused;
use super::policy::{self, Decision, Destination, Owner, Pattern, Reach};
use crate::model::InstanceName;
use memory::Memory;

/// What a stack is made from.
#[derive(Debug)]
pub struct StackSpec {
    /// Whose network it is.
    pub instance: InstanceName,
    /// The networks it is on.
    pub networks: Vec<StackNetwork>,
    /// Makes sockets in the instance's container; absent when all its networks are in process.
    pub agent: Option<Agent>,
    /// `x-wasm.egress`, as written.
    pub egress: Vec<String>,
    /// `extra_hosts` as (name, address or `host-gateway`).
    pub extra_hosts: Vec<(String, String)>,
    /// Sockets it may have open at once.
    pub sockets: usize,
    /// Where refusals go, once for each target.
    pub refusals: mpsc::Sender<Refused>,
}

/// A network as a stack knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackNetwork {
    /// The engine's name.
    pub name: String,
    /// Of Wasm services alone: it lives in this process.
    pub in_process: bool,
    /// No way out (`internal: true`).
    pub internal: bool,
    /// Every name the instance has there.
    pub names: Vec<String>,
    /// Addresses the agent's container has there; empty when in process.
    pub addresses: Vec<IpAddr>,
}

/// Why the network said no.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The file does not grant it; the refusal was reported once for this target.
    #[error("{0}")]
    Refused(String),
    /// No such name.
    #[error("no such name")]
    UnknownName,
    /// The sockets' own error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<io::ErrorKind> for NetError {
    fn from(kind: io::ErrorKind) -> Self {
        Self::Io(kind.into())
    }
}

impl Fabric {
    /// Gives an instance its network: in-process addresses are allocated, and all its names and addresses entered in the
    /// directory. An `egress` entry that is none grants nothing and is reported as a refusal.
    pub fn join(self: &Arc<Self>, spec: StackSpec) -> Stack {
        let StackSpec { instance, mut networks, agent, egress, extra_hosts, sockets, refusals } = spec;
        let mut state = self.state();
        for network in networks.iter_mut().filter(|network| network.in_process) {
            network.addresses = state.addresses.of(&network.name, &instance).into_iter().collect();
        }
        let earlier = state.members.insert(instance.clone(), Vec::new());
        drop(state);
        drop(earlier);
        let presence = |network: &StackNetwork| Presence {
            network: network.name.clone(),
            names: network.names.clone(),
            addresses: network.addresses.clone(),
        };
        self.directory.enter(instance.clone(), networks.iter().map(presence).collect());

        let places = Places::new(sockets, refusals.clone());
        let memory = Memory::new(refusals);
        let granted = |entry: &String| match entry.parse::<Pattern>() {
            Ok(pattern) => Some(pattern),
            Err(bad) => {
                let what = format!("grant `{entry}` in `x-wasm.egress`");
                memory.tell(&Refused { what, why: bad.to_string(), grant: None });
                None
            }
        };
        let reach = Reach {
            internal: networks.iter().all(|network| network.internal),
            host: extra_hosts.iter().any(|(_, address)| address == HOST_GATEWAY),
            egress: egress.iter().filter_map(granted).collect(),
        };
        let hosts = extra_hosts.into_iter().filter_map(|(name, address)| {
            let address = if address == HOST_GATEWAY { Some(HOST) } else { address.parse().ok() };
            Some((name, address?))
        });
        let inner = Inner {
            fabric: self.clone(),
            instance,
            shared: networks.iter().map(|network| network.name.clone()).collect(),
            hosts: hosts.collect(),
            networks,
            agent,
            reach,
            memory,
            places,
        };
        Stack { inner: Arc::new(inner) }
    }
}

/// What `extra_hosts` says for the host's address.
const HOST_GATEWAY: &str = "host-gateway";

/// One instance's network. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stack {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fabric: Arc<Fabric>,
    instance: InstanceName,
    networks: Vec<StackNetwork>,
    /// The names of `networks`.
    shared: Vec<String>,
    hosts: Vec<(String, IpAddr)>,
    agent: Option<Agent>,
    reach: Reach,
    memory: Memory,
    places: Arc<Places>,
}

/// Where a connection goes, once it is allowed.
enum Way {
    /// To a listener in this process; the connecting end has this address.
    Inside(Arc<Binding>, IpAddr),
    /// Out of the instance's container.
    Container(Agent),
    /// Out of this process, to this address.
    Host(SocketAddr),
}

impl Stack {
    /// The addresses of the instance, without its loopback.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.inner.networks.iter().flat_map(|network| network.addresses.iter().copied())
    }

    /// The networks it is on, with the addresses it has there.
    pub fn networks(&self) -> &[StackNetwork] {
        &self.inner.networks
    }

    /// Listens on a port of the instance: its container addresses, its in-process addresses, and the host ports published for it.
    /// An address other than the wildcard or one of the instance's own is refused with `AddrNotAvailable`; a port in use with `AddrInUse`.
    /// The IPv6 wildcard takes IPv4 as well, as Linux does.
    pub async fn listen(&self, at: SocketAddr) -> Result<Listener, NetError> {
        self.listen_as(at, None).await
    }

    /// Serves HTTP on a port: in-process requests go straight to `service`, all others come out of the returned listener.
    pub async fn listen_http(&self, at: SocketAddr, service: Arc<dyn HttpService>) -> Result<Listener, NetError> {
        self.listen_as(at, Some(service)).await
    }

    async fn listen_as(&self, at: SocketAddr, service: Option<Arc<dyn HttpService>>) -> Result<Listener, NetError> {
        let mut at = canonical(at);
        let own: Vec<IpAddr> = self.addresses().collect();
        if !policy::may_listen(&own, at.ip()) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let place = self.inner.places.take()?;
        let on = |network: &StackNetwork| !network.in_process && network.addresses.contains(&at.ip());
        let in_container = at.ip().is_unspecified() || self.inner.networks.iter().any(on);
        let kernel = match &self.inner.agent {
            Some(agent) if in_container => {
                let listener = socket::listen(agent, at).await?;
                at.set_port(listener.local_addr()?.port());
                Some(listener)
            }
            Some(_) | None => None,
        };
        let (local, inbox) = self.inner.fabric.bind(&self.inner.instance, at, service)?;
        Ok(Listener::new(local, kernel, inbox, place, &self.inner.places))
    }

    /// Connects to an address, in process where the other end lives here, else through the agent, else (egress) from the host.
    pub async fn connect(&self, to: SocketAddr) -> Result<Conn, NetError> {
        let to = canonical(to);
        let way = self.way(to)?;
        self.go(way, to).await
    }

    /// Addresses of a name: services, aliases and container names on shared networks, `localhost`, IP literals, granted outside names.
    /// Where there are several, each lookup begins with another: replicas share the load.
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, NetError> {
        self.lookup_for(name, None).await
    }

    async fn lookup_for(&self, name: &str, port: Option<u16>) -> Result<Vec<IpAddr>, NetError> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&name);
        if let Ok(address) = literal.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let mut known: Vec<IpAddr> = self.extra_hosts(&name).collect();
        if known.is_empty() {
            known = self.inner.fabric.directory.lookup(&self.inner.shared, &name);
        }
        if known.is_empty() {
            known = self.lookup_outside(&name, port).await?;
        }
        let turn = self.inner.memory.turn() % known.len().max(1);
        known.rotate_left(turn);
        Ok(known)
    }

    fn extra_hosts<'a>(&'a self, name: &'a str) -> impl Iterator<Item = IpAddr> + 'a {
        self.inner.hosts.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, address)| *address)
    }

    /// A name of the world outside, where the policy lets it be looked up. What it resolved to is remembered:
    /// the policy decides about the connection by it.
    async fn lookup_outside(&self, name: &str, port: Option<u16>) -> Result<Vec<IpAddr>, NetError> {
        if !name.contains('.') {
            // A service that is not there, or is on none of the instance's networks.
            return Err(NetError::UnknownName);
        }
        policy::decide_lookup(&self.inner.reach, name, port).map_err(|refused| self.refuse(&refused))?;
        let mut found: Vec<IpAddr> = Vec::new();
        let resolved = tokio::net::lookup_host((name, 0)).await.map_err(|_| NetError::UnknownName)?;
        for endpoint in resolved {
            let address = endpoint.ip().to_canonical();
            if !found.contains(&address) {
                found.push(address);
            }
        }
        if found.is_empty() {
            return Err(NetError::UnknownName);
        }
        self.inner.memory.resolved(name, &found);
        Ok(found)
    }

    /// Where an outgoing request to `host:port` goes: to the first of its addresses that answers.
    pub async fn route(&self, host: &str, port: u16) -> Result<Route, NetError> {
        let mut last = NetError::UnknownName;
        for address in self.lookup_for(host, Some(port)).await? {
            let to = SocketAddr::new(address.to_canonical(), port);
            let conn = match self.way(to) {
                Ok(Way::Inside(binding, from)) => match &binding.service {
                    Some(service) => return Ok(Route::Inside(service.clone())),
                    None => self.go(Way::Inside(binding.clone(), from), to).await,
                },
                Ok(way) => self.go(way, to).await,
                Err(error) => Err(error),
            };
            match conn {
                Ok(conn) => return Ok(Route::Conn(conn)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Asks the policy, and finds what carries a connection to there.
    fn way(&self, to: SocketAddr) -> Result<Way, NetError> {
        let inner = &*self.inner;
        let directory = &inner.fabric.directory;
        let owner = directory.owner(&inner.shared, to.ip());
        let kind = match &owner {
            Some(owner) if *owner == inner.instance => Owner::Itself,
            Some(_) => Owner::Neighbour,
            None if to.ip() == HOST => Owner::Host,
            None => Owner::Outside,
        };
        let destination = Destination { address: to, names: inner.memory.names(to.ip()), owner: kind };
        match policy::decide(&inner.reach, &destination) {
            Decision::Itself => {
                let found = inner.fabric.binding(&inner.instance, to).unwrap_or(Err(io::ErrorKind::NetworkDown.into()));
                let from = if to.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { to.ip() };
                Ok(Way::Inside(found?, from))
            }
            Decision::Neighbour => {
                let inside = owner.and_then(|owner| inner.fabric.binding(&owner, to));
                match (inside, &inner.agent) {
                    (Some(found), _) => Ok(Way::Inside(found?, self.facing(to.ip()))),
                    (None, Some(agent)) => Ok(Way::Container(agent.clone())),
                    (None, None) => Err(io::ErrorKind::HostUnreachable.into()),
                }
            }
            Decision::Host => Ok(Way::Host(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), to.port()))),
            Decision::Egress => Ok(inner.agent.clone().map_or(Way::Host(to), Way::Container)),
            Decision::Refused(refused) => Err(self.refuse(&refused)),
        }
    }

    async fn go(&self, way: Way, to: SocketAddr) -> Result<Conn, NetError> {
        let place = self.inner.places.take()?;
        Ok(self.reach(way, to).await?.placed(place))
    }

    async fn reach(&self, way: Way, to: SocketAddr) -> Result<Conn, NetError> {
        match way {
            Way::Inside(binding, from) => {
                let port = self.inner.fabric.ephemeral_port();
                let ip = if to.ip().is_unspecified() { from } else { to.ip() };
                let (near, far) = Conn::pair(SocketAddr::new(from, port), SocketAddr::new(ip, to.port()));
                binding.inside.send(far).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
                Ok(near)
            }
            Way::Container(agent) => Ok(Conn::over(socket::connect(&agent, to).await?)?),
            Way::Host(address) => Ok(Conn { peer: to, ..Conn::over(TcpStream::connect(address).await?)? }),
        }
    }

    /// The own address on the network where a neighbour has this one.
    fn facing(&self, neighbour: IpAddr) -> IpAddr {
        let directory = &self.inner.fabric.directory;
        let shared = |network: &&StackNetwork| {
            let name = std::slice::from_ref(&network.name);
            network.addresses.contains(&neighbour) || directory.owner(name, neighbour).is_some()
        };
        let network = self.inner.networks.iter().find(shared);
        network.and_then(|network| network.addresses.first().copied()).unwrap_or(Ipv4Addr::UNSPECIFIED.into())
    }

    fn refuse(&self, refused: &Refused) -> NetError {
        self.inner.memory.tell(refused);
        NetError::Refused(format!("{}: refused, {}", refused.what, refused.why))
    }
}
