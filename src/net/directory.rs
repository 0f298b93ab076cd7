//! Name → addresses, on each network. Engines write their own instances in before they report them started; guests' stacks read.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, RwLock};

use crate::model::InstanceName;

/// Who is where. One for each supervisor.
#[derive(Debug, Default)]
pub struct Directory {
    entries: RwLock<BTreeMap<InstanceName, Vec<Presence>>>,
}

/// An instance on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The engine's name of the network.
    pub network: String,
    /// Every name it has there: container name, service, aliases.
    pub names: Vec<String>,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
}

impl Directory {
    /// An empty directory.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Enters an instance, in place of what was known of it.
    pub fn enter(&self, instance: InstanceName, presences: Vec<Presence>) {
        self.entries.write().expect("no panic while it is held").insert(instance, presences);
    }

    /// Forgets an instance.
    pub fn leave(&self, instance: &InstanceName) {
        self.entries.write().expect("no panic while it is held").remove(instance);
    }

    /// Addresses of a name on any of these networks, without repeats; names compare without case (RFC 4343).
    pub fn lookup(&self, networks: &[String], name: &str) -> Vec<IpAddr> {
        let mut found = Vec::new();
        for presence in self.entries.read().expect("no panic while it is held").values().flatten() {
            if networks.contains(&presence.network)
                && presence.names.iter().any(|known| known.eq_ignore_ascii_case(name))
            {
                for address in &presence.addresses {
                    if !found.contains(address) {
                        found.push(*address);
                    }
                }
            }
        }
        found
    }

    /// The names behind an address on these networks.
    pub fn names(&self, networks: &[String], address: IpAddr) -> Vec<String> {
        let entries = self.entries.read().expect("no panic while it is held");
        let there =
            |presence: &&Presence| networks.contains(&presence.network) && presence.addresses.contains(&address);
        entries.values().flatten().filter(there).flat_map(|presence| presence.names.iter().cloned()).collect()
    }

    /// The instance that has this address on one of these networks.
    pub fn owner(&self, networks: &[String], address: IpAddr) -> Option<InstanceName> {
        self.entries
            .read()
            .expect("no panic while it is held")
            .iter()
            .find(|(_, presences)| {
                presences
                    .iter()
                    .any(|presence| networks.contains(&presence.network) && presence.addresses.contains(&address))
            })
            .map(|(instance, _)| instance.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(service: &str) -> InstanceName {
        InstanceName::new(service.into(), 1)
    }

    fn presence(network: &str, name: &str, address: &str) -> Presence {
        let address = address.parse().expect("an address");
        Presence { network: network.to_owned(), names: vec![name.to_owned()], addresses: vec![address] }
    }

    #[test]
    fn answers_for_shared_networks_only() {
        let directory = Directory::new();
        directory.enter(instance("db"), vec![presence("front", "db", "10.0.0.1"), presence("back", "db", "10.0.1.1")]);
        let front = ["front".to_owned()];
        let address: IpAddr = "10.0.0.1".parse().expect("an address");
        assert_eq!(directory.lookup(&front, "DB"), [address]);
        assert_eq!(directory.owner(&front, address), Some(instance("db")));
        assert_eq!(directory.owner(&["back".to_owned()], address), None);
        assert_eq!(directory.names(&front, address), ["db"]);
        assert!(directory.names(&["back".to_owned()], address).is_empty());
        assert!(directory.lookup(&front, "web").is_empty());
    }

    #[test]
    fn the_latest_entry_counts() {
        let directory = Directory::new();
        let front = ["front".to_owned()];
        directory.enter(instance("db"), vec![presence("front", "db", "10.0.0.1")]);
        directory.enter(instance("db"), vec![presence("front", "db", "10.0.0.2")]);
        assert_eq!(directory.lookup(&front, "db"), ["10.0.0.2".parse::<IpAddr>().expect("an address")]);
        directory.leave(&instance("db"));
        assert!(directory.lookup(&front, "db").is_empty());
    }
}
