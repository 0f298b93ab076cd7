//! Addresses of instances on in-process networks.
//!
//! They come from 198.18.0.0/15, set aside for benchmarks of network devices (RFC 2544): no real network and no engine
//! uses it, so an address a guest sees can never be mistaken for a real one. They mean nothing outside this process.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::model::InstanceName;

const FIRST: u32 = Ipv4Addr::new(198, 18, 0, 1).to_bits();
/// The top 256 addresses are kept for what is no instance.
const LAST: u32 = Ipv4Addr::new(198, 19, 254, 255).to_bits();

/// The address that stands for the host where `extra_hosts` grants it: the host's loopback, seen from a guest.
pub(super) const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 19, 255, 254));

/// The addresses given out. An instance keeps its address on a network across restarts.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    given: BTreeMap<(String, InstanceName), u32>,
}

impl Addresses {
    /// The address of an instance on a network; `None` when all 130 000 are given out.
    pub(super) fn of(&mut self, network: &str, instance: &InstanceName) -> Option<IpAddr> {
        let next = self.given.values().max().map_or(FIRST, |last| last + 1);
        let key = (network.to_owned(), instance.clone());
        let address = match self.given.get(&key) {
            Some(address) => *address,
            None if next <= LAST => {
                self.given.insert(key, next);
                next
            }
            None => return None,
        };
        Some(Ipv4Addr::from_bits(address).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instance_keeps_one_address_a_network() {
        let mut addresses = Addresses::default();
        let (web, api) = (InstanceName::new("web".into(), 1), InstanceName::new("api".into(), 1));
        let first = addresses.of("front", &web);
        assert_eq!(first, Some("198.18.0.1".parse().expect("an address")));
        assert_eq!(addresses.of("front", &api), Some("198.18.0.2".parse().expect("an address")));
        assert_eq!(addresses.of("back", &web), Some("198.18.0.3".parse().expect("an address")));
        assert_eq!(addresses.of("front", &web), first);
    }
}
