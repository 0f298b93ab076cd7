//! Addresses of instances on in-process networks.
//!
//! They come from 198.18.0.0/15 and 2001:2::/48, set aside for benchmarks of network devices (RFC 2544, RFC 5180): no
//! real network and no engine uses them, so an address a guest sees can never be mistaken for a real one. They mean nothing outside this process.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::InstanceName;

const FIRST: u32 = Ipv4Addr::new(198, 18, 0, 1).to_bits();
/// The top 256 addresses are kept for what is no instance.
const LAST: u32 = Ipv4Addr::new(198, 19, 254, 255).to_bits();

/// The address that stands for the host where `extra_hosts` grants it: the host's loopback, seen from a guest.
pub(super) const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 19, 255, 254));
/// The same, for what came to the host's loopback over IPv6.
pub(super) const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0xffff, 0, 0, 0, 0xfffe));

/// The host's loopback, where an address stands for it.
pub(super) fn host_loopback(address: IpAddr) -> Option<IpAddr> {
    match address {
        HOST => Some(Ipv4Addr::LOCALHOST.into()),
        HOST_V6 => Some(Ipv6Addr::LOCALHOST.into()),
        _ => None,
    }
}

/// The addresses given out. An instance keeps its addresses on a network across restarts.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    given: BTreeMap<(String, InstanceName), u32>,
}

/// The address families of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 alone.
    V4,
    /// IPv4 and IPv6.
    Both,
}

impl Addresses {
    /// The addresses of an instance on a network; none when all 130 000 are given out.
    pub(super) fn of(&mut self, network: &str, instance: &InstanceName, families: Families) -> Vec<IpAddr> {
        let next = self.given.values().max().map_or(FIRST, |last| last + 1);
        let key = (network.to_owned(), instance.clone());
        let address = match self.given.get(&key) {
            Some(address) => *address,
            None if next <= LAST => {
                self.given.insert(key, next);
                next
            }
            None => return Vec::new(),
        };
        let v4 = Ipv4Addr::from_bits(address);
        let [a, b, c, d] = v4.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        // The same number at the end of both, for who reads them.
        let v6 = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, high, low);
        match families {
            Families::V4 => vec![v4.into()],
            Families::Both => vec![v4.into(), v6.into()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn each_instance_keeps_its_addresses_on_a_network() {
        let mut given = Addresses::default();
        let (web, api) = (InstanceName::new("web".into(), 1), InstanceName::new("api".into(), 1));
        assert_eq!(given.of("front", &web, Families::V4), addresses(&["198.18.0.1"]));
        assert_eq!(given.of("front", &api, Families::V4), addresses(&["198.18.0.2"]));
        assert_eq!(given.of("back", &web, Families::Both), addresses(&["198.18.0.3", "2001:2::c612:3"]));
        assert_eq!(given.of("front", &web, Families::V4), addresses(&["198.18.0.1"]));
    }
}
