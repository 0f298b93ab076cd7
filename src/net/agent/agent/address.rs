//! Addresses: as the kernel has them, and as frames carry them.

use crate::sys::{self, call};

/// Bytes of an address in a frame: family (4 or 6), port (2, network order), address (16; 4 of them for IPv4), scope (4).
pub const LENGTH: usize = 23;
/// Bytes of the longest kernel address.
const STORAGE: usize = 28;

const INET: u16 = 2;
const INET6: u16 = 10;

/// `struct sockaddr_in` or `struct sockaddr_in6`.
#[repr(C, align(8))]
pub struct Address {
    bytes: [u8; STORAGE],
    /// What of it is in use; what there is room for, before a call fills it.
    length: u32,
}

impl Address {
    /// To be filled by a call.
    pub fn empty() -> Self {
        Self { bytes: [0; STORAGE], length: STORAGE as u32 }
    }

    /// As a frame has it.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let frame: &[u8; LENGTH] = frame.try_into().ok()?;
        let mut address = Self::empty();
        let (family, length) = match frame[0] {
            4 => (INET, 16),
            6 => (INET6, 28),
            _ => return None,
        };
        address.length = length;
        address.bytes[..2].copy_from_slice(&family.to_ne_bytes());
        address.bytes[2..4].copy_from_slice(&frame[1..3]);
        if family == INET {
            address.bytes[4..8].copy_from_slice(&frame[3..7]);
        } else {
            address.bytes[8..24].copy_from_slice(&frame[3..19]);
            let scope = u32::from_le_bytes([frame[19], frame[20], frame[21], frame[22]]);
            address.bytes[24..28].copy_from_slice(&scope.to_ne_bytes());
        }
        Some(address)
    }

    /// As a frame has it; zeros where there is none.
    pub fn write(&self) -> [u8; LENGTH] {
        let mut frame = [0; LENGTH];
        frame[1..3].copy_from_slice(&self.bytes[2..4]);
        if self.family() == INET6 as usize {
            frame[0] = 6;
            frame[3..19].copy_from_slice(&self.bytes[8..24]);
            let scope = u32::from_ne_bytes([self.bytes[24], self.bytes[25], self.bytes[26], self.bytes[27]]);
            frame[19..].copy_from_slice(&scope.to_le_bytes());
        } else {
            frame[0] = 4;
            frame[3..7].copy_from_slice(&self.bytes[4..8]);
        }
        frame
    }

    /// What `socket` takes for it.
    pub fn family(&self) -> usize {
        u16::from_ne_bytes([self.bytes[0], self.bytes[1]]) as usize
    }

    pub fn is_v6(&self) -> bool {
        self.family() == INET6 as usize
    }

    /// Whether it is the IPv6 wildcard.
    pub fn is_wildcard(&self) -> bool {
        self.bytes[8..24] == [0; 16]
    }

    /// Where it lies, and how long it is: for calls that read it.
    pub fn given(&self) -> [usize; 2] {
        [self.bytes.as_ptr() as usize, self.length as usize]
    }

    /// Where it lies, and where its length does: for calls that fill it.
    pub fn taken(&mut self) -> [usize; 2] {
        [self.bytes.as_mut_ptr() as usize, &raw mut self.length as usize]
    }

    /// The own address of a socket.
    pub fn local(socket: usize) -> Self {
        Self::asked(sys::GETSOCKNAME, socket).0
    }

    /// The other end's; none where it has gone.
    pub fn peer(socket: usize) -> Option<Self> {
        let (address, asked) = Self::asked(sys::GETPEERNAME, socket);
        (asked == 0).then_some(address)
    }

    fn asked(number: usize, socket: usize) -> (Self, isize) {
        let mut address = Self::empty();
        let [place, length] = address.taken();
        let asked = call(number, [socket, place, length]);
        (address, asked)
    }
}
