//! Addresses that no name and no `*` ever opens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is special.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// This machine.
    Loopback,
    /// This link; the clouds' metadata services live here.
    LinkLocal,
    /// Someone's own network (RFC 1918, RFC 4193, RFC 6598).
    Private,
    /// Many receivers at once.
    Multicast,
    /// Set aside for other purposes (RFC 6890), among them the addresses wcompose gives out itself.
    Reserved,
}

impl Special {
    /// As it reads in a sentence.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Private => "a private address",
            Self::Multicast => "a multicast address",
            Self::Reserved => "a reserved address",
        }
    }
}

/// What is special about an address; addresses that carry an IPv4 address inside (mapped, NAT64, 6to4) count as that one.
pub fn special(address: IpAddr) -> Option<Special> {
    match address.to_canonical() {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<Special> {
    match address.octets() {
        [127, ..] => Some(Special::Loopback),
        [169, 254, ..] => Some(Special::LinkLocal),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Some(Special::Private),
        [224..=239, ..] => Some(Special::Multicast),
        [0, ..] | [240..=255, ..] | [192, 0, 0, _] | [192, 0, 2, _] => Some(Special::Reserved),
        [198, 18..=19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => Some(Special::Reserved),
        _ => None,
    }
}

fn special_v6(address: Ipv6Addr) -> Option<Special> {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        special_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Special::Loopback),
        [0, 0, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low).or(
            // The unspecified address and the long retired IPv4-compatible ones are of no use to anybody.
            (address.segments()[0] == 0).then_some(Special::Reserved),
        ),
        [0x2002, high, low, ..] => embedded(high, low),
        [0x64, 0xff9b, 1, ..] => Some(Special::Private),
        [0xfe80..=0xfebf, ..] => Some(Special::LinkLocal),
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Some(Special::Private),
        [0xff00..=0xffff, ..] => Some(Special::Multicast),
        [0x2001, 2, 0, ..] | [0x2001, 0xdb8, ..] | [0x100, 0, 0, 0, ..] | [0x2001, 0, ..] => Some(Special::Reserved),
        _ => None,
    }
}
