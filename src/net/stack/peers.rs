//! Whom a datagram socket talks with beyond this process: who may be answered and how, whose answer is expected, and the
//! address a guest knows each by.
//!
//! A client of a published port that the guest could mistake for itself (it comes from the host's loopback), or whose
//! address is of a family its socket does not speak, is shown at the address that stands for the host. Bounded in number
//! and in time, since outsiders decide how many there are.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Weak;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::net::addresses::{HOST, HOST_V6};

/// Peers a socket remembers of each kind; the one that was silent longest is forgotten first.
const MOST: usize = 1024;
/// How long a silent peer is remembered, as Docker's own proxy does.
const IDLE: Duration = Duration::from_secs(90);

/// How a caller is answered.
#[derive(Debug, Clone)]
pub(super) enum Path {
    /// By the socket in the container.
    Container,
    /// By a published host socket.
    Published(Weak<UdpSocket>),
}

/// The peers of one socket.
#[derive(Debug)]
pub(super) struct Peers {
    /// Whether the socket speaks IPv4 alone.
    v4_only: bool,
    /// Who called, by the address the guest knows.
    callers: HashMap<SocketAddr, Caller>,
    /// From the address of a published port's client to the one the guest knows.
    shown: HashMap<SocketAddr, SocketAddr>,
    /// Whom the guest spoke to by a socket of this process, and when.
    spoken: HashMap<SocketAddr, Instant>,
}

#[derive(Debug)]
struct Caller {
    path: Path,
    /// As the socket of the path sees it.
    real: SocketAddr,
    seen: Instant,
}

impl Peers {
    /// Of a socket that is bound to this address.
    pub(super) fn new(at: SocketAddr) -> Self {
        Self { v4_only: at.is_ipv4(), callers: HashMap::new(), shown: HashMap::new(), spoken: HashMap::new() }
    }

    /// A datagram came from outside: whoever sent it can be answered. The address the guest knows it by.
    pub(super) fn heard(&mut self, path: Path, real: SocketAddr) -> SocketAddr {
        let now = Instant::now();
        let shown = match path {
            Path::Container => real,
            Path::Published(_) => self.show(real, now),
        };
        if !self.callers.contains_key(&shown) {
            make_room(&mut self.callers, now, |caller| caller.seen);
            self.shown.retain(|_, shown| self.callers.contains_key(shown));
        }
        if let Path::Published(_) = path {
            self.shown.insert(real, shown);
        }
        self.callers.insert(shown, Caller { path, real, seen: now });
        shown
    }

    /// The way back to a caller, and its address there. Clients of published ports stay remembered by being answered;
    /// others do not: whose address it is can change.
    pub(super) fn way_back(&mut self, shown: SocketAddr) -> Option<(Path, SocketAddr)> {
        let now = Instant::now();
        let caller = self.callers.get_mut(&shown).filter(|caller| now - caller.seen < IDLE)?;
        if let Path::Published(_) = caller.path {
            caller.seen = now;
        }
        Some((caller.path.clone(), caller.real))
    }

    /// The guest speaks to an endpoint by a socket of this process.
    pub(super) fn spoke(&mut self, real: SocketAddr) {
        let now = Instant::now();
        if !self.spoken.contains_key(&real) {
            make_room(&mut self.spoken, now, |spoken| *spoken);
        }
        self.spoken.insert(real, now);
    }

    /// The address the guest knows an endpoint by that it spoke to by a socket of this process; none of a stranger's.
    pub(super) fn expected(&self, real: SocketAddr) -> Option<SocketAddr> {
        self.spoken.get(&real).filter(|spoken| spoken.elapsed() < IDLE)?;
        Some(SocketAddr::new(self.stand_in(real.ip()).unwrap_or(real.ip()), real.port()))
    }

    /// The address a published port's client is known by: the same as long as it is remembered.
    fn show(&self, real: SocketAddr, now: Instant) -> SocketAddr {
        if let Some(shown) = self.shown.get(&real) {
            return *shown;
        }
        let Some(ip) = self.stand_in(real.ip()) else { return real };
        let free = |shown: &SocketAddr| self.callers.get(shown).is_none_or(|caller| now - caller.seen >= IDLE);
        // There are more ports than callers.
        let ports = (real.port()..=u16::MAX).chain(1..real.port());
        ports.map(|port| SocketAddr::new(ip, port)).find(free).unwrap_or(SocketAddr::new(ip, real.port()))
    }

    /// What stands for an address that the guest cannot be shown.
    fn stand_in(&self, real: IpAddr) -> Option<IpAddr> {
        match real {
            IpAddr::V4(real) if real.is_loopback() => Some(HOST),
            IpAddr::V6(_) if self.v4_only => Some(HOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST) => Some(HOST_V6),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }
}

/// Forgets the silent, and where that is not enough, the one that was silent longest.
fn make_room<K: Copy + Eq + Hash, V>(table: &mut HashMap<K, V>, now: Instant, seen: impl Fn(&V) -> Instant) {
    if table.len() < MOST {
        return;
    }
    table.retain(|_, entry| now - seen(entry) < IDLE);
    if table.len() >= MOST
        && let Some(oldest) = table.iter().min_by_key(|(_, entry)| seen(entry)).map(|(key, _)| *key)
    {
        table.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an endpoint")
    }

    fn published() -> Path {
        Path::Published(Weak::new())
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_could_be_mistaken_are_shown_as_the_host_and_apart() {
        let mut peers = Peers::new(at("0.0.0.0:53"));
        assert_eq!(peers.heard(published(), at("192.0.2.1:1000")), at("192.0.2.1:1000"));
        let first = peers.heard(published(), at("127.0.0.1:1000"));
        let second = peers.heard(published(), at("[::1]:1000"));
        let third = peers.heard(published(), at("127.0.0.2:1000"));
        assert_eq!([first, second, third].map(|shown| shown.ip()), [HOST; 3]);
        assert!(first != second && second != third && first != third);
        assert_eq!(peers.heard(published(), at("[::1]:1000")), second, "as long as it is remembered");
        for (shown, real) in [(first, "127.0.0.1:1000"), (second, "[::1]:1000"), (third, "127.0.0.2:1000")] {
            assert_eq!(peers.way_back(shown).map(|(_, real)| real), Some(at(real)));
        }
        let mut both = Peers::new(at("[::]:53"));
        assert_eq!(both.heard(published(), at("[::1]:7")), SocketAddr::new(HOST_V6, 7));
        assert_eq!(both.heard(published(), at("[fd00::1]:7")), at("[fd00::1]:7"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_peers_is_bounded_and_the_silent_go_first() {
        let mut peers = Peers::new(at("0.0.0.0:53"));
        let faithful = at("192.0.2.1:1");
        for number in 0..5000_u32 {
            let crowd = SocketAddr::new(IpAddr::from((0xcb00_7100 + number).to_be_bytes()), 7);
            peers.heard(published(), crowd);
            peers.spoke(crowd);
            peers.heard(published(), faithful);
            peers.spoke(faithful);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(peers.callers.len() <= MOST && peers.shown.len() <= MOST && peers.spoken.len() <= MOST);
        assert!(peers.way_back(faithful).is_some() && peers.expected(faithful).is_some());
        tokio::time::advance(IDLE).await;
        assert!(peers.way_back(faithful).is_none() && peers.expected(faithful).is_none(), "forgotten when silent");
    }

    #[tokio::test(start_paused = true)]
    async fn answering_keeps_a_published_client_and_nobody_else() {
        let mut peers = Peers::new(at("0.0.0.0:53"));
        let (client, stranger) = (at("192.0.2.1:1"), at("172.18.0.9:1"));
        peers.heard(published(), client);
        peers.heard(Path::Container, stranger);
        for _ in 0..3 {
            tokio::time::advance(IDLE / 2).await;
            peers.way_back(client);
            peers.way_back(stranger);
        }
        assert!(peers.way_back(client).is_some());
        assert!(peers.way_back(stranger).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn only_whom_the_guest_spoke_to_is_expected() {
        let mut peers = Peers::new(at("0.0.0.0:0"));
        assert_eq!(peers.expected(at("192.0.2.1:53")), None);
        peers.spoke(at("192.0.2.1:53"));
        peers.spoke(at("127.0.0.1:53"));
        assert_eq!(peers.expected(at("192.0.2.1:53")), Some(at("192.0.2.1:53")));
        assert_eq!(peers.expected(at("127.0.0.1:53")), Some(SocketAddr::new(HOST, 53)));
        for stranger in ["192.0.2.1:54", "127.0.0.2:53"] {
            assert_eq!(peers.expected(at(stranger)), None);
        }
        // Who was spoken to is no caller: the policy decides about each datagram to it.
        assert!(peers.way_back(at("192.0.2.1:53")).is_none());
    }
}
