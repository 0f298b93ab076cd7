//! Names, the same whoever asks: services, aliases and container names on shared networks, `localhost`, `extra_hosts`, and
//! the names of the world outside that the policy lets be looked up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{NetError, Stack, policy};

impl Stack {
    /// Addresses of a name: services, aliases and container names on shared networks, `localhost`, IP literals, granted outside names.
    /// Where there are several, each lookup begins with another: replicas share the load. IPv4 comes first, which
    /// every server listens on.
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, NetError> {
        self.lookup_for(name, None).await
    }

    pub(super) async fn lookup_for(&self, name: &str, port: Option<u16>) -> Result<Vec<IpAddr>, NetError> {
        let name = plain(name);
        let mut found = self.known(&name);
        if found.is_empty() {
            found = self.lookup_outside(&name, port).await?;
        }
        if !is_localhost(&name) {
            let (mut v4, mut v6): (Vec<IpAddr>, Vec<IpAddr>) = found.into_iter().partition(IpAddr::is_ipv4);
            let turn = self.inner.memory.turn();
            for addresses in [&mut v4, &mut v6] {
                let turn = turn % addresses.len().max(1);
                addresses.rotate_left(turn);
            }
            v4.append(&mut v6);
            found = v4;
        }
        Ok(found)
    }

    /// Whether a name is answered from here alone, be it that there is none of it.
    pub(super) fn is_known(&self, name: &str) -> bool {
        let name = plain(name);
        !name.contains('.') || !self.known(&name).is_empty()
    }

    /// Addresses of a name, as far as they are known without asking.
    fn known(&self, name: &str) -> Vec<IpAddr> {
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        if let Ok(address) = literal.parse::<IpAddr>() {
            return vec![address];
        }
        if is_localhost(name) {
            return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        let hosts = self.inner.hosts.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let hosts: Vec<IpAddr> = hosts.map(|(_, address)| *address).collect();
        if hosts.is_empty() { self.inner.fabric.directory.lookup(&self.inner.shared, name) } else { hosts }
    }

    /// A name of the world outside, where the policy lets it be looked up. What it resolved to is remembered:
    /// the policy decides about the connection by it.
    async fn lookup_outside(&self, name: &str, port: Option<u16>) -> Result<Vec<IpAddr>, NetError> {
        if !name.contains('.') {
            // A service that is not there, or is on none of the instance's networks.
            return Err(NetError::UnknownName);
        }
        policy::decide_lookup(&self.reach, name, port).map_err(|refused| self.refuse(&refused))?;
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
}

/// A name without the dot at its end, in lower case.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}
