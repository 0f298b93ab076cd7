//! Where what a guest sends goes: one question to [`policy`], for connections and datagrams alike, and what carries them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpStream;

use super::{Conn, NetError, Refused, Stack, StackNetwork, policy};
use crate::model::InstanceName;
use crate::net::addresses::host_loopback;
use crate::net::agent::Agent;
use crate::net::dns::{self, Server};
use crate::net::fabric::Binding;
use crate::net::policy::{Decision, Destination, Owner};

/// Where a connection goes, once it is allowed.
pub(super) enum Way {
    /// To a listener in this process; the connecting end has this address.
    Inside(Arc<Binding>, IpAddr),
    /// Out of the instance's container.
    Container(Agent),
    /// Out of this process, to this address.
    Host(SocketAddr),
    /// To a name server that is answered for.
    Resolver(Server),
}

/// What the policy allowed, with what it was found by.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// The instance itself.
    Itself,
    /// An instance on a shared network.
    Neighbour(InstanceName),
    /// A service of the host, at this address of the host's.
    Host(SocketAddr),
    /// Whoever sent the datagram that is answered.
    Answer,
    /// The world outside.
    Egress,
}

/// What is known of an endpoint beside its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acquaintance {
    /// Nothing.
    None,
    /// It sent a datagram to the socket that now sends one.
    Caller,
}

impl Stack {
    /// Asks the policy about an endpoint, and tells of a refusal.
    pub(super) fn decide(&self, to: SocketAddr, acquaintance: Acquaintance) -> Result<Allowed, NetError> {
        self.judge(to, acquaintance).map_err(|refused| self.refuse(&refused))
    }

    /// Asks the policy about an endpoint.
    pub(super) fn judge(&self, to: SocketAddr, acquaintance: Acquaintance) -> Result<Allowed, Refused> {
        let inner = &*self.inner;
        let owner = inner.fabric.directory.owner(&inner.shared, to.ip());
        let host = host_loopback(to.ip());
        let kind = match &owner {
            Some(owner) if *owner == inner.instance => Owner::Itself,
            Some(_) => Owner::Neighbour,
            None if acquaintance == Acquaintance::Caller => Owner::Caller,
            None if host.is_some() => Owner::Host,
            None => Owner::Outside,
        };
        let mut names = inner.memory.names(to.ip());
        if self.reach.bounds.is_some() {
            // Bounds are about neighbours as well, and these are known by name.
            names.extend(inner.fabric.directory.names(&inner.shared, to.ip()));
            names.extend(inner.hosts.iter().filter(|(_, host)| *host == to.ip()).map(|(name, _)| name.clone()));
        }
        let destination = Destination { address: to, names, owner: kind };
        match policy::decide(&self.reach, &destination) {
            Decision::Itself => Ok(Allowed::Itself),
            Decision::Neighbour => Ok(Allowed::Neighbour(owner.expect("a neighbour is found by its entry"))),
            Decision::Host => Ok(Allowed::Host(SocketAddr::new(host.unwrap_or(Ipv4Addr::LOCALHOST.into()), to.port()))),
            Decision::Answer => Ok(Allowed::Answer),
            Decision::Egress => Ok(Allowed::Egress),
            Decision::Refused(refused) => Err(refused),
        }
    }

    /// Asks the policy, and finds what carries a connection to there.
    pub(super) fn way(&self, to: SocketAddr) -> Result<Way, NetError> {
        match dns::server(to) {
            Some(server) => Ok(Way::Resolver(server)),
            None => self.carrier(self.decide(to, Acquaintance::None)?, to),
        }
    }

    /// What carries a connection to where it may go.
    pub(super) fn carrier(&self, allowed: Allowed, to: SocketAddr) -> Result<Way, NetError> {
        let inner = &*self.inner;
        match allowed {
            Allowed::Itself => {
                let found = inner.fabric.binding(&inner.instance, to).unwrap_or(Err(io::ErrorKind::NetworkDown.into()));
                Ok(Way::Inside(found?, own_end(to.ip())))
            }
            Allowed::Neighbour(owner) => match (inner.fabric.binding(&owner, to), &inner.agent) {
                (Some(found), _) => Ok(Way::Inside(found?, self.facing(to.ip()))),
                (None, Some(agent)) => Ok(Way::Container(agent.clone())),
                (None, None) => Err(io::ErrorKind::HostUnreachable.into()),
            },
            Allowed::Host(address) => Ok(Way::Host(address)),
            Allowed::Egress | Allowed::Answer => Ok(inner.agent.clone().map_or(Way::Host(to), Way::Container)),
        }
    }

    /// Connects.
    pub(super) async fn go(&self, way: Way, to: SocketAddr) -> Result<Conn, NetError> {
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
            Way::Container(agent) => Ok(agent.connect(to).await?),
            Way::Resolver(server) => self.connect_to_resolver(server, to),
            Way::Host(address) => Ok(Conn { peer: to, ..Conn::over(TcpStream::connect(address).await?)? }),
        }
    }

    /// The own address, of the same family, on the network where a neighbour has this one.
    pub(super) fn facing(&self, neighbour: IpAddr) -> IpAddr {
        let directory = &self.inner.fabric.directory;
        let shared = |network: &&StackNetwork| {
            let name = std::slice::from_ref(&network.name);
            network.addresses.contains(&neighbour) || directory.owner(name, neighbour).is_some()
        };
        let network = self.inner.networks.iter().find(shared);
        let own = network.and_then(|network| {
            network.addresses.iter().find(|address| address.is_ipv4() == neighbour.is_ipv4()).copied()
        });
        own.unwrap_or(if neighbour.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() })
    }

    /// Tells of a refusal, and makes it the guest's error.
    pub(super) fn refuse(&self, refused: &Refused) -> NetError {
        self.inner.places.traffic().count_refused();
        self.inner.memory.tell(refused);
        NetError::Refused(format!("{}: refused, {}", refused.what, refused.why))
    }
}

/// The address that an instance has when it talks to itself at this one.
pub(super) fn own_end(to: IpAddr) -> IpAddr {
    match to {
        IpAddr::V4(to) if to.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(to) if to.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        to => to,
    }
}
