//! Who listens on a port of this machine, as far as `/proc` shows it. A courtesy of error messages: where something
//! cannot be read (another user's processes), the answer is none.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::model::Protocol;

/// The holder of a host port: `nginx (pid 812)`.
pub fn of(address: SocketAddr, protocol: Protocol) -> Option<String> {
    let (paths, state) = match protocol {
        Protocol::Tcp => (["/proc/net/tcp", "/proc/net/tcp6"], LISTENING),
        Protocol::Udp => (["/proc/net/udp", "/proc/net/udp6"], UNCONNECTED),
        Protocol::Sctp => return None,
    };
    let tables = paths.map(|path| fs::read_to_string(path).unwrap_or_default());
    let inodes: Vec<String> = tables.iter().flat_map(|table| bound(table, state, address)).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let numbered = processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())));
    for (pid, process) in numbered {
        if holds(&process, &inodes) {
            let name = fs::read_to_string(process.join("comm")).ok()?;
            return Some(format!("{} (pid {pid})", name.trim_end()));
        }
    }
    None
}

fn holds(process: &Path, inodes: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| {
        let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.iter().any(|known| known == inode))
    })
}

/// How the kernel's tables write the state of a socket that listens.
const LISTENING: &str = "0A";
/// And of one that takes datagrams from anybody.
const UNCONNECTED: &str = "07";

/// Inodes of the sockets in a table of the kernel, of this state, at an address or at one that includes or overlaps it.
fn bound(table: &str, state: &str, address: SocketAddr) -> Vec<String> {
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, port) = fields.get(1)?.split_once(':')?;
        let overlaps = match parse(local)? {
            local if local.is_unspecified() || address.ip().is_unspecified() => true,
            local => local == address.ip().to_canonical(),
        };
        let same_port = u16::from_str_radix(port, 16).ok()? == address.port();
        if *fields.get(3)? != state || !same_port || !overlaps {
            return None;
        }
        fields.get(9).map(|inode| (*inode).to_owned())
    };
    table.lines().skip(1).filter_map(inode).collect()
}

/// An address as the kernel prints it: words of 32 bits in this machine's byte order.
fn parse(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (number, quarter) in bytes.chunks_exact_mut(4).enumerate() {
                quarter.copy_from_slice(&word(number * 8)?);
            }
            Some(IpAddr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_ourselves() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let ours = format!("(pid {})", std::process::id());
        for (address, protocol) in [(listener.local_addr(), Protocol::Tcp), (socket.local_addr(), Protocol::Udp)] {
            let holder = of(address.expect("an address"), protocol).expect("a holder");
            assert!(holder.ends_with(&ours), "{holder}");
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn reads_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1\n\
            1: 00000000:1F90 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 222 1\n\
            2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1\n";
        for (address, expected) in
            [("127.0.0.1:8080", "111"), ("0.0.0.0:8080", "111"), ("10.0.0.1:8080", ""), ("10.0.0.1:80", "333")]
        {
            assert_eq!(bound(table, LISTENING, address.parse().expect("an endpoint")).concat(), expected, "{address}");
        }
    }
}
