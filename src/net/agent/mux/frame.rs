//! The frames of a multiplexed agent: pure bytes in, bytes out. Knows no streams.
//!
//! Where no Unix socket can be mounted, the frames of [`wire`] travel over two byte streams, each with its length
//! (2 bytes) before it, and sockets are channels: numbers that the supervisor gives out, each of which is its own again
//! when both ends have closed it. Beside those of [`wire`] (without `V` and `S`, and without descriptors) there are:
//!
//! | who | frame | what it says |
//! |---|---|---|
//! | supervisor | `L` channel, address | listen there |
//! | supervisor | `C` channel, address | connect to there |
//! | supervisor | `U` channel, address | make a datagram socket there |
//! | supervisor | `N` channel, place (4) | the listener's next connection is to be this channel |
//! | agent | `O` channel, errno (4), own address, other address | it is open; or could not be opened, and is none |
//! | both | `D` channel, bytes | data; of a datagram socket, after the address it goes to or comes from |
//! | both | `K` channel, count (4) | so many bytes more may be sent |
//! | both | `F` channel, from the agent with errno (4) | no more data comes |
//! | agent | `E` channel, errno (4) | nothing can be sent any more; of a datagram socket, one was not sent |
//! | both | `Z` channel | closed; of the supervisor, once what was sent before is written |
//! | supervisor | `A` 1 or 0 | what health checks are told |
//! | both | `P` | still there: asked after some silence, and answered |
//!
//! Channels 0 and 1 are the container's standard output and error, open from the start. Numbers are little-endian of 4
//! bytes; an address is its family (`4`, `6`), port (2, network order), 16 bytes (4 of them for IPv4) and scope (4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::net::agent::wire;

/// Bytes of an address.
const ADDRESS: usize = 23;

/// A number of a channel.
pub(super) type Number = u32;

/// What is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// A listener at an address.
    Listener(SocketAddr),
    /// A connection to an address.
    Connection(SocketAddr),
    /// A datagram socket at an address.
    Datagrams(SocketAddr),
    /// The next connection of a listener.
    Next(Number),
}

/// What an agent says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// A channel is open, with its own and the other end's address.
    Opened(Number, SocketAddr, SocketAddr),
    /// It could not be opened.
    Failed(Number, i32),
    /// Data.
    Data(Number, &'a [u8]),
    /// More may be sent.
    Credit(Number, usize),
    /// No more data comes; the error number, or 0.
    Ended(Number, i32),
    /// Nothing can be sent any more.
    Refused(Number, i32),
    /// It is closed at both ends.
    Closed(Number),
    /// One of the frames without a channel.
    Plain(wire::Said),
}

/// Reads a frame; `None` where it is malformed.
pub(super) fn read(frame: &[u8]) -> Option<Said<'_>> {
    let Some((&[kind, a, b, c, d], rest)) = frame.split_first_chunk::<5>() else {
        return wire::read(frame).map(Said::Plain);
    };
    let number = u32::from_le_bytes([a, b, c, d]);
    let errno = || Some(i32::from_le_bytes(*rest.first_chunk::<4>()?));
    Some(match kind {
        b'O' => match errno()? {
            0 => {
                let ends = rest[4..].split_at_checked(ADDRESS)?;
                Said::Opened(number, address(ends.0)?, address(ends.1)?)
            }
            error => Said::Failed(number, error),
        },
        b'D' => Said::Data(number, rest),
        b'K' => Said::Credit(number, usize::try_from(errno()?).ok()?),
        b'F' => Said::Ended(number, errno()?),
        b'E' => Said::Refused(number, errno()?),
        b'Z' => Said::Closed(number),
        _ => return wire::read(frame).map(Said::Plain),
    })
}

/// Reads a datagram: who sent it, and what it says.
pub(super) fn datagram(data: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (from, bytes) = data.split_at_checked(ADDRESS)?;
    Some((address(from)?, bytes))
}

/// Frames that are being put together for the agent.
#[derive(Debug, Default)]
pub(super) struct Frames(pub(super) Vec<u8>);

impl Frames {
    /// A frame of [`wire`], or another that is whole.
    pub(super) fn plain(&mut self, frame: &[u8]) {
        self.head(frame.len());
        self.0.extend_from_slice(frame);
    }

    pub(super) fn open(&mut self, number: Number, opening: Opening) {
        match opening {
            Opening::Listener(at) => self.about(b'L', number, &encoded(at)),
            Opening::Connection(to) => self.about(b'C', number, &encoded(to)),
            Opening::Datagrams(at) => self.about(b'U', number, &encoded(at)),
            Opening::Next(listener) => self.about(b'N', listener, &number.to_le_bytes()),
        }
    }

    /// Data in two runs, as a ring has it.
    pub(super) fn data(&mut self, number: Number, runs: (&[u8], &[u8])) {
        self.head(5 + runs.0.len() + runs.1.len());
        self.0.push(b'D');
        self.0.extend_from_slice(&number.to_le_bytes());
        self.0.extend_from_slice(runs.0);
        self.0.extend_from_slice(runs.1);
    }

    pub(super) fn datagram(&mut self, number: Number, to: SocketAddr, bytes: &[u8]) {
        self.data(number, (&encoded(to), bytes));
    }

    pub(super) fn credit(&mut self, number: Number, count: usize) {
        let count = u32::try_from(count).expect("windows are small");
        self.about(b'K', number, &count.to_le_bytes());
    }

    pub(super) fn finish(&mut self, number: Number) {
        self.about(b'F', number, &[]);
    }

    pub(super) fn close(&mut self, number: Number) {
        self.about(b'Z', number, &[]);
    }

    fn about(&mut self, kind: u8, number: Number, rest: &[u8]) {
        self.head(5 + rest.len());
        self.0.push(kind);
        self.0.extend_from_slice(&number.to_le_bytes());
        self.0.extend_from_slice(rest);
    }

    fn head(&mut self, length: usize) {
        let length = u16::try_from(length).expect("no frame is made longer than the longest datagram");
        self.0.extend_from_slice(&length.to_le_bytes());
    }
}

/// Cuts a byte stream into frames.
#[derive(Debug, Default)]
pub(super) struct Cutter(Vec<u8>);

impl Cutter {
    /// Adds a piece, and hands on each frame that is whole by then, until one of them fails.
    pub(super) fn feed<E>(&mut self, piece: &[u8], mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let joined;
        let mut bytes: &[u8] = if self.0.is_empty() {
            piece
        } else {
            self.0.extend_from_slice(piece);
            joined = std::mem::take(&mut self.0);
            &joined
        };
        while let Some((frame, rest)) = first(bytes) {
            each(frame)?;
            bytes = rest;
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
}

fn encoded(address: SocketAddr) -> [u8; ADDRESS] {
    let mut bytes = [0; ADDRESS];
    bytes[1..3].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(v4) => {
            bytes[0] = 4;
            bytes[3..7].copy_from_slice(&v4.ip().octets());
        }
        SocketAddr::V6(v6) => {
            bytes[0] = 6;
            bytes[3..19].copy_from_slice(&v6.ip().octets());
            bytes[19..].copy_from_slice(&v6.scope_id().to_le_bytes());
        }
    }
    bytes
}

fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let bytes: &[u8; ADDRESS] = bytes.try_into().ok()?;
    let port = u16::from_be_bytes([bytes[1], bytes[2]]);
    let (ip, scope) = bytes[3..].split_first_chunk::<16>()?;
    match bytes[0] {
        4 => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3])), port)),
        6 => {
            let scope = u32::from_le_bytes(scope.try_into().ok()?);
            Some(SocketAddrV6::new(Ipv6Addr::from(*ip), port, 0, scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an endpoint")
    }

    fn frames(bytes: &[u8], step: usize) -> Vec<Vec<u8>> {
        let (mut cutter, mut found) = (Cutter::default(), Vec::new());
        for piece in bytes.chunks(step) {
            let fed: Result<(), ()> = cutter.feed(piece, |frame| {
                found.push(frame.to_vec());
                Ok(())
            });
            fed.expect("nothing fails");
        }
        found
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let mut made = Frames::default();
        made.plain(b"R");
        made.data(7, (b"to the end", b" and from the beginning"));
        made.datagram(8, at("[fe80::1%3]:53"), b"question");
        made.credit(9, 4096);
        for step in [1, 2, 3, 7, 64, 1000] {
            let found = frames(&made.0, step);
            let said: Vec<_> = found.iter().map(|frame| read(frame).expect("a frame")).collect();
            assert_eq!(said[0], Said::Plain(wire::Said::Ready));
            assert_eq!(said[1], Said::Data(7, b"to the end and from the beginning"));
            let Said::Data(8, data) = said[2] else { panic!("{:?}", said[2]) };
            assert_eq!(datagram(data), Some((at("[fe80::1%3]:53"), b"question".as_slice())));
            assert_eq!(said[3], Said::Credit(9, 4096));
        }
    }

    #[test]
    fn reads_what_agents_say_of_channels() {
        let ends = [encoded(at("10.0.0.1:80")), encoded(at("[2001:db8::1]:9"))].concat();
        let opened = [b"O\x01\0\0\0\0\0\0\0".as_slice(), &ends].concat();
        assert_eq!(read(&opened), Some(Said::Opened(1, at("10.0.0.1:80"), at("[2001:db8::1]:9"))));
        assert_eq!(read(b"O\x01\0\0\0\x6f\0\0\0"), Some(Said::Failed(1, 111)));
        assert_eq!(read(b"F\x02\0\0\0\x68\0\0\0"), Some(Said::Ended(2, 104)));
        assert_eq!(read(b"E\x02\0\0\0\x20\0\0\0"), Some(Said::Refused(2, 32)));
        assert_eq!(read(b"Z\x02\0\0\0"), Some(Said::Closed(2)));
        assert_eq!(read(b"T\x0f"), Some(Said::Plain(wire::Said::Signal)));
        for malformed in
            [b"".as_slice(), b"K\x01\0\0\0", b"K\x01\0\0\0\xff\xff\xff\xff", b"F\x01\0\0\0\0", &opened[..30]]
        {
            assert_eq!(read(malformed), None, "{malformed:?}");
        }
    }

    #[test]
    fn the_longest_datagram_fits_into_a_frame() {
        let mut made = Frames::default();
        made.datagram(1, at("10.0.0.1:80"), &vec![7; 65_507]);
        assert_eq!(made.0.len(), 2 + usize::from(u16::MAX));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_that_comes_in_makes_it_fall(bytes in prop::collection::vec(any::<u8>(), 0..300), step in 1..50_usize) {
            for frame in frames(&bytes, step) {
                if let Some(Said::Data(_, data)) = read(&frame) {
                    datagram(data);
                }
            }
        }
    }
}
