//! What one guest sees of the network: listen, connect, look up names. Everything it does passes through here,
//! and nothing passes that [`super::policy`] does not allow.
//!
//! `datagram` and `names` are its parts for datagrams and names, `resolver` for guests that ask a name server; where
//! everything goes is decided in `ways`.

mod datagram;
mod memory;
mod names;
mod peers;
mod resolver;
mod socket;
#[cfg(test)]
mod tests;
mod ways;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use super::addresses::Families;
use super::addresses::HOST;
use super::agent::Agent;
use super::carrier::canonical;
pub use super::carrier::{Body, BoxError, Conn, HttpService, Route, Stream};
use super::directory::Presence;
pub use super::fabric::Fabric;
use super::fabric::Member;
pub use super::forward::{BoundPort, PublishError};
pub use super::gap::Gap;
pub use super::listener::Listener;
use super::listener::Sources;
use super::places::Places;
use super::policy::{self, Pattern, Reach};
pub use super::policy::{Bounds, Refused};
use super::traffic::Traffic;
use crate::model::InstanceName;
pub use datagram::Datagram;
use memory::Memory;
use ways::Way;

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
    /// What the addresses given out in process are of; elsewhere the engine gives them.
    pub families: Families,
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
            network.addresses = state.addresses.of(&network.name, &instance, network.families);
        }
        let earlier = state.members.insert(instance.clone(), Member::default());
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
            bounds: None,
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
            memory,
            places,
            resolvers: Mutex::default(),
        };
        Stack { inner: Arc::new(inner), reach: Arc::new(reach) }
    }
}

/// What `extra_hosts` says for the host's address.
const HOST_GATEWAY: &str = "host-gateway";

/// One instance's network. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stack {
    inner: Arc<Inner>,
    reach: Arc<Reach>,
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
    memory: Memory,
    places: Arc<Places>,
    /// Connections of the guest to name servers.
    resolvers: Mutex<JoinSet<()>>,
}

impl Stack {
    /// The same network for a part of the instance that reaches less of it.
    pub fn bounded(&self, bounds: Bounds) -> Self {
        let reach = Reach { bounds: Some(bounds), ..(*self.reach).clone() };
        Self { inner: self.inner.clone(), reach: Arc::new(reach) }
    }

    /// The addresses of the instance, without its loopback.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.inner.networks.iter().flat_map(|network| network.addresses.iter().copied())
    }

    /// The networks it is on, with the addresses it has there.
    pub fn networks(&self) -> &[StackNetwork] {
        &self.inner.networks
    }

    /// What went over it so far.
    pub fn traffic(&self) -> &Traffic {
        self.inner.places.traffic()
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
        let container = self.in_container(at.ip())?;
        let place = self.inner.places.take()?;
        if let Some(sources) = self.inner.fabric.take_back(&self.inner.instance, at, service.as_ref()) {
            return Ok(Listener::new(at, sources, place, &self.inner.places));
        }
        let kernel = match container {
            Some(agent) => {
                let listener = agent.listen(at).await?;
                at.set_port(listener.local_addr()?.port());
                Some(listener)
            }
            None => None,
        };
        let (local, inbox) = self.inner.fabric.bind(&self.inner.instance, at, service)?;
        Ok(Listener::new(local, Sources::new(kernel, inbox), place, &self.inner.places))
    }

    /// Begins a gap: until it is dropped, ports that the instance lets go of wait for the next one to listen there.
    pub fn gap(&self) -> Gap {
        self.inner.fabric.gap(&self.inner.instance)
    }

    /// Who makes the socket that is to be bound here: the agent, where the address is one of its container's; else nobody,
    /// and the socket lives in this process alone. An error where it is no address of the instance.
    fn in_container(&self, address: IpAddr) -> Result<Option<&Agent>, NetError> {
        let own: Vec<IpAddr> = self.addresses().collect();
        if !policy::may_listen(&own, address) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let on = |network: &StackNetwork| !network.in_process && network.addresses.contains(&address);
        let in_container = address.is_unspecified() || self.inner.networks.iter().any(on);
        Ok(self.inner.agent.as_ref().filter(|_| in_container))
    }

    /// Connects to an address, in process where the other end lives here, else through the agent, else (egress) from the host.
    pub async fn connect(&self, to: SocketAddr) -> Result<Conn, NetError> {
        let to = canonical(to);
        let way = self.way(to)?;
        self.go(way, to).await
    }

    /// Where an outgoing request to `host:port` goes: to the first of its addresses that answers.
    pub async fn route(&self, host: &str, port: u16) -> Result<Route, NetError> {
        let mut last = NetError::UnknownName;
        for address in self.lookup_for(host, Some(port)).await? {
            let to = SocketAddr::new(address.to_canonical(), port);
            let conn = match self.way(to) {
                Ok(Way::Inside(binding, from)) => match &binding.service {
                    Some(service) => return Ok(Route::Inside(service.clone(), from)),
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
}
