//! The frames between supervisor and agent: pure bytes in, bytes out. Knows no sockets.
//!
//! Each frame is one sequenced packet of at most [`FRAME`] bytes; its first byte says what it is; numbers are
//! little-endian. A container's connection goes:
//!
//! | who | frame | with it |
//! |---|---|---|
//! | agent | `H` version, length of the token, token, content of `/etc/resolv.conf` | its standard output and error |
//! | supervisor | `W` version, user (4), group (4): whom empty volumes belong to | |
//! | agent | `V` number, errno (4), for each entry of `WCOMPOSE_VOLUMES` | the directory, where errno is 0 |
//! | agent | `R`: ready | |
//! | supervisor | `S` number (4), family (`4`, `6`), type (1 stream, 2 datagram) | |
//! | agent | `S` number (4), errno (4) | the socket, where errno is 0 |
//! | agent | `T` signal: the container was asked to end | |
//! | supervisor | `X` code: exit with it | |
//!
//! The container's health check opens a connection of its own: `Q` token, answered by `A` and 1 (healthy) or 0.
//! A frame that is none of these is ignored. The agent's own end is the folder `agent`; where no Unix
//! socket can be mounted, `mux/frame.rs` says how they travel.

use rustix::net::{AddressFamily, SocketType};

/// Version of the frames; the agent's `main.rs` holds the same.
pub(super) const VERSION: u8 = 1;
/// Longest frame either side sends.
pub(super) const FRAME: usize = 8192;
/// Most volumes an instance may have.
pub(super) const VOLUMES: usize = 128;

/// What an agent, or a health check, says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The first frame of a container.
    Hello { version: u8, token: Vec<u8>, resolver: String },
    /// The only frame of a health check.
    Question { token: Vec<u8> },
    /// A volume was opened, or not.
    Volume { number: u8, errno: i32 },
    /// All volumes were told.
    Ready,
    /// A socket was made, or not.
    Socket { number: u32, errno: i32 },
    /// The container got this signal.
    Signal,
}

/// Reads a frame; `None` where it is malformed.
pub(super) fn read(frame: &[u8]) -> Option<Said> {
    match *frame {
        [b'H', version, length, ref rest @ ..] => {
            let (token, resolver) = rest.split_at_checked(usize::from(length))?;
            let resolver = String::from_utf8_lossy(resolver).into_owned();
            Some(Said::Hello { version, token: token.to_vec(), resolver })
        }
        [b'Q', ref token @ ..] => Some(Said::Question { token: token.to_vec() }),
        [b'V', number, a, b, c, d] => Some(Said::Volume { number, errno: i32::from_le_bytes([a, b, c, d]) }),
        [b'R'] => Some(Said::Ready),
        [b'S', a, b, c, d, e, f, g, h] => {
            Some(Said::Socket { number: u32::from_le_bytes([a, b, c, d]), errno: i32::from_le_bytes([e, f, g, h]) })
        }
        [b'T', _] => Some(Said::Signal),
        _ => None,
    }
}

/// The answer to a hello.
pub(super) fn welcome(user: u32, group: u32) -> Vec<u8> {
    [&[b'W', VERSION], user.to_le_bytes().as_slice(), group.to_le_bytes().as_slice()].concat()
}

/// A request for a socket; `None` for a family or type that agents do not make.
pub(super) fn socket(number: u32, family: AddressFamily, kind: SocketType) -> Option<Vec<u8>> {
    let family = match family {
        AddressFamily::INET => 4,
        AddressFamily::INET6 => 6,
        _ => return None,
    };
    let kind = match kind {
        SocketType::STREAM => 1,
        SocketType::DGRAM => 2,
        _ => return None,
    };
    Some([[b'S'].as_slice(), number.to_le_bytes().as_slice(), &[family, kind]].concat())
}

/// The request to exit.
pub(super) fn exit(code: u8) -> [u8; 2] {
    [b'X', code]
}

/// The answer to a health check.
pub(super) fn health(healthy: bool) -> [u8; 2] {
    [b'A', u8::from(healthy)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_agent_says() {
        let hello = Said::Hello { version: 1, token: b"ab".to_vec(), resolver: "nameserver 127.0.0.11".into() };
        assert_eq!(read(b"H\x01\x02abnameserver 127.0.0.11"), Some(hello));
        assert_eq!(read(b"Qab"), Some(Said::Question { token: b"ab".to_vec() }));
        assert_eq!(read(b"V\x03\x0d\0\0\0"), Some(Said::Volume { number: 3, errno: 13 }));
        assert_eq!(read(b"S\x01\x02\0\0\x61\0\0\0"), Some(Said::Socket { number: 513, errno: 97 }));
        assert_eq!(read(b"T\x0f"), Some(Said::Signal));
        assert_eq!(read(b"R"), Some(Said::Ready));
    }

    #[test]
    fn refuses_malformed_frames() {
        for frame in [b"".as_slice(), b"?", b"H", b"H\x01", b"H\x01\x09short", b"V\x01", b"S\0\0\0\0", b"T", b"Rx"] {
            assert_eq!(read(frame), None, "{frame:?}");
        }
    }

    #[test]
    fn makes_internet_sockets_only() {
        assert_eq!(socket(1, AddressFamily::INET6, SocketType::DGRAM), Some(b"S\x01\0\0\0\x06\x02".to_vec()));
        assert_eq!(socket(1, AddressFamily::UNIX, SocketType::STREAM), None);
        assert_eq!(socket(1, AddressFamily::INET, SocketType::RAW), None);
    }
}
