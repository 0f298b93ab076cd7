//! `sock_getaddrinfo`: the names everything else sees, in the list that the guest laid out for the answers.
//!
//! The guest makes a chain of `AddrInfo`, each with a `SockAddr` and its buffers; the answer is written into them, and the
//! chain itself is never changed. What an `AddrInfo` (28 bytes) holds: flags (2), family (1), socket type (1), protocol (1),
//! then at 8 the address's length, at 12 the `SockAddr`, at 16 the canonical name's buffer, at 20 its length, at 24 the next.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::errno::Errno;
use super::memory::{Memory, Pointer, offset};
use crate::net::stack::Stack;

/// Longest name that is looked up (RFC 1035, section 2.3.4), and longest name of a service.
const NAME: u32 = 255;
/// Most answers that are written, whatever room there is.
const ANSWERS: u32 = 64;
/// Every hint flag there is.
const FLAGS: u16 = 0x7f;
/// Room for an address in the guests' buffers.
const ADDRESS: usize = 26;

/// The parameters of the call.
pub(super) struct Query {
    pub(super) node: Pointer,
    pub(super) node_length: u32,
    pub(super) service: Pointer,
    pub(super) service_length: u32,
    pub(super) hints: Pointer,
    pub(super) results: Pointer,
    pub(super) most: u32,
    pub(super) found: Pointer,
}

/// What of the hints selects answers.
struct Hints {
    family: u8,
    kind: u8,
    protocol: u8,
}

/// Looks a name up, and writes what was found.
pub(super) async fn look_up(memory: &mut Memory<'_>, stack: &Stack, query: Query) -> Result<(), Errno> {
    memory.bytes(query.found, 4)?;
    let node = text(memory, query.node, query.node_length)?;
    let service = text(memory, query.service, query.service_length)?;
    if node.is_empty() && service.is_empty() {
        return Err(Errno::AINONAME);
    }
    if query.most == 0 {
        return Err(Errno::AIMEMORY);
    }
    let hints = read_hints(memory, query.hints)?;
    let port = port(&service)?;
    let name = if node.is_empty() { "localhost" } else { &node };
    let addresses = stack.lookup(name).await.map_err(|error| Errno::from(&error))?;
    let answers = select(&addresses, hints.family);
    if answers.is_empty() {
        return Err(Errno::AINODATA);
    }
    let mut entry = memory.u32(query.results)?;
    let mut written = 0;
    for address in answers {
        if written == query.most.min(ANSWERS) || entry == 0 {
            break;
        }
        write(memory, entry, address, port, &hints)?;
        written += 1;
        entry = memory.u32(offset(entry, 24)?)?;
    }
    memory.put_u32(query.found, written)
}

/// A text of the guest's; some count a zero at its end.
fn text(memory: &Memory<'_>, at: Pointer, length: u32) -> Result<String, Errno> {
    if length == 0 {
        return Ok(String::new());
    }
    if length > NAME + 1 {
        return Err(Errno::AINONAME);
    }
    let bytes = memory.bytes(at, length)?;
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    String::from_utf8(bytes[..end].to_vec()).map_err(|_| Errno::AINONAME)
}

fn read_hints(memory: &Memory<'_>, at: Pointer) -> Result<Hints, Errno> {
    if at == 0 {
        return Ok(Hints { family: 0, kind: 0, protocol: 0 });
    }
    if memory.u16(at)? & !FLAGS != 0 {
        return Err(Errno::AIBADFLAG);
    }
    let byte = |by: u32| offset(at, by).and_then(|place| memory.u8(place));
    let hints = Hints { family: byte(2)?, kind: byte(3)?, protocol: byte(4)? };
    match hints {
        Hints { family: 3.., .. } => Err(Errno::AIFAMILY),
        Hints { kind: 3.., .. } | Hints { protocol: 3.., .. } => Err(Errno::AISOCKTYPE),
        hints => Ok(hints),
    }
}

/// A number, or one of the names that guests' libraries pass.
fn port(service: &str) -> Result<u16, Errno> {
    match service {
        "" => Ok(0),
        "http" => Ok(80),
        "https" => Ok(443),
        "domain" => Ok(53),
        other => other.parse().map_err(|_| Errno::AISERVICE),
    }
}

/// Each address once, of the family that is asked for; IPv4 first, since guests' libraries pass over the others.
fn select(addresses: &[IpAddr], family: u8) -> Vec<IpAddr> {
    let mut seen = BTreeSet::new();
    let wanted = |address: &IpAddr| match family {
        1 => address.is_ipv4(),
        2 => address.is_ipv6(),
        _ => true,
    };
    let mut selected: Vec<IpAddr> =
        addresses.iter().copied().filter(wanted).filter(|address| seen.insert(*address)).collect();
    selected.sort_by_key(IpAddr::is_ipv6);
    selected
}

fn write(memory: &mut Memory<'_>, entry: Pointer, address: IpAddr, port: u16, hints: &Hints) -> Result<(), Errno> {
    let family = if address.is_ipv4() { 1 } else { 2 };
    let (kind, protocol) = match (hints.kind, hints.protocol) {
        (1, _) | (0, 2) => (1, 2),
        _ => (2, 1),
    };
    let mut data = Vec::with_capacity(ADDRESS);
    data.extend(port.to_be_bytes());
    let length = match address {
        IpAddr::V4(address) => {
            data.extend(address.octets());
            data.resize(14, 0);
            16
        }
        IpAddr::V6(address) => {
            data.resize(6, 0);
            data.extend(address.octets());
            data.resize(ADDRESS, 0);
            28
        }
    };
    memory.put(entry, &[0, 0, family, kind, protocol])?;
    memory.put_u32(offset(entry, 8)?, length)?;
    memory.put_u32(offset(entry, 20)?, 0)?;
    let socket_address = memory.u32(offset(entry, 12)?)?;
    let buffer = memory.u32(offset(socket_address, 8)?)?;
    memory.put(buffer, &data)?;
    memory.put(socket_address, &[family])?;
    memory.put_u32(offset(socket_address, 4)?, data.len() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_comes_first_and_each_address_once() {
        let four: IpAddr = [10, 0, 0, 1].into();
        let six: IpAddr = "fd00::1".parse().unwrap();
        assert_eq!(select(&[six, four, six, four], 0), [four, six]);
        assert_eq!(select(&[six, four], 1), [four]);
        assert_eq!(select(&[six, four], 2), [six]);
    }

    #[test]
    fn an_answer_is_a_linux_address_without_its_family() {
        let mut bytes = vec![0; 128];
        let mut memory = Memory(&mut bytes);
        memory.put_u32(12, 64).unwrap();
        memory.put_u32(24, 0xdead).unwrap();
        memory.put_u32(64 + 8, 96).unwrap();
        let hints = Hints { family: 0, kind: 0, protocol: 0 };
        write(&mut memory, 0, [10, 0, 0, 1].into(), 5432, &hints).unwrap();
        assert_eq!(memory.bytes(0, 5), Ok([0, 0, 1, 2, 1].as_slice()), "IPv4, stream, TCP");
        assert_eq!(memory.bytes(96, 6), Ok([0x15, 0x38, 10, 0, 0, 1].as_slice()));
        assert_eq!((memory.u32(8), memory.u32(64 + 4)), (Ok(16), Ok(14)));
        assert_eq!(memory.u32(24), Ok(0xdead), "the chain is the guest's");
    }

    #[test]
    fn what_is_no_name_and_no_service_is_refused() {
        let mut bytes = b"db\0\xff\xff".to_vec();
        let memory = Memory(&mut bytes);
        assert_eq!(text(&memory, 0, 3).as_deref(), Ok("db"));
        assert_eq!(text(&memory, 3, 2), Err(Errno::AINONAME));
        assert_eq!(text(&memory, 0, NAME + 2), Err(Errno::AINONAME));
        assert_eq!(port("70000"), Err(Errno::AISERVICE));
        assert_eq!(port("5432"), Ok(5432));
    }
}
