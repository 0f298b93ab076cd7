//! The two streams to the supervisor, each with its buffer: frames, and their lengths (2 bytes) before them.

use crate::address;
use crate::sys::{self, EAGAIN, EINTR, NONBLOCK, call};

/// Longest frame.
pub const FRAME: usize = 65_535;
/// What a frame takes at most, with its length.
const WHOLE: usize = 2 + FRAME;
/// What is said beside the longest frame in answer to one thing that happened.
const ASIDE: usize = 256;
const OUTLET: usize = 4 * WHOLE;
const INLET: usize = 2 * WHOLE;
/// Kind and number, which most frames begin with.
const HEAD: usize = 5;

/// What goes to the supervisor. All zeros is an empty one.
#[repr(C)]
pub struct Outlet {
    bytes: [u8; OUTLET],
    start: usize,
    end: usize,
    pub descriptor: usize,
}

impl Outlet {
    /// Whether anything waits to be written.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Makes sure that there is room for all that may be said about one thing that happened.
    pub fn has_room(&mut self) -> bool {
        if OUTLET - self.end < WHOLE + ASIDE && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        OUTLET - self.end >= WHOLE + ASIDE
    }

    /// Writes as much as fits. `false` where nobody reads any more.
    pub fn flush(&mut self) -> bool {
        while self.start < self.end {
            let waiting = &self.bytes[self.start..self.end];
            match call(sys::WRITE, [self.descriptor, waiting.as_ptr() as usize, waiting.len()]) {
                EINTR => {}
                EAGAIN => return true,
                written if written <= 0 => return false,
                written => self.start += written as usize,
            }
        }
        (self.start, self.end) = (0, 0);
        true
    }

    /// Says a whole frame.
    pub fn say(&mut self, frame: &[u8]) {
        self.append(&(frame.len() as u16).to_le_bytes());
        self.append(frame);
    }

    /// Says a frame about a channel.
    pub fn tell(&mut self, kind: u8, channel: usize, rest: &[u8]) {
        self.append(&((HEAD + rest.len()) as u16).to_le_bytes());
        self.head(kind, channel);
        self.append(rest);
    }

    /// Says data of a channel, which `read` puts where it belongs: at most so many bytes. What `read` returned.
    pub fn relay(&mut self, channel: usize, most: usize, read: impl FnOnce(&mut [u8]) -> isize) -> isize {
        let from = self.end + 2 + HEAD;
        let length = read(&mut self.bytes[from..from + most]);
        if length > 0 {
            self.append(&((HEAD + length as usize) as u16).to_le_bytes());
            self.head(b'D', channel);
            self.end += length as usize;
        }
        length
    }

    /// The same for a datagram: `read` returns its length and who sent it, and none (or a negative length) says nothing.
    pub fn relay_datagram(
        &mut self,
        channel: usize,
        most: usize,
        read: impl FnOnce(&mut [u8]) -> (isize, [u8; address::LENGTH]),
    ) -> isize {
        let from = self.end + 2 + HEAD + address::LENGTH;
        let (length, sender) = read(&mut self.bytes[from..from + most]);
        if length >= 0 && length as usize <= most {
            self.append(&((HEAD + address::LENGTH + length as usize) as u16).to_le_bytes());
            self.head(b'D', channel);
            self.append(&sender);
            self.end += length as usize;
        }
        length
    }

    fn head(&mut self, kind: u8, channel: usize) {
        self.append(&[kind]);
        self.append(&(channel as u32).to_le_bytes());
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }
}

/// What comes from the supervisor. All zeros is an empty one.
#[repr(C)]
pub struct Inlet {
    bytes: [u8; INLET],
    start: usize,
    end: usize,
    pub descriptor: usize,
}

impl Inlet {
    /// Reads what is there. `false` where nobody writes any more.
    pub fn fill(&mut self) -> bool {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let room = &mut self.bytes[self.end..];
        match call(sys::READ, [self.descriptor, room.as_mut_ptr() as usize, room.len()]) {
            EINTR | EAGAIN => true,
            read if read <= 0 => false,
            read => {
                self.end += read as usize;
                true
            }
        }
    }

    /// The next whole frame.
    pub fn next(&mut self) -> Option<&[u8]> {
        let waiting = &self.bytes[self.start..self.end];
        let (length, rest) = waiting.split_first_chunk::<2>()?;
        let length = u16::from_le_bytes(*length) as usize;
        let frame = rest.get(..length)?;
        self.start += 2 + length;
        Some(frame)
    }

    /// Whether there is one.
    pub fn has_frame(&self) -> bool {
        let waiting = &self.bytes[self.start..self.end];
        waiting
            .split_first_chunk::<2>()
            .is_some_and(|(length, rest)| rest.len() >= u16::from_le_bytes(*length) as usize)
    }
}

/// Lets calls on a descriptor fail rather than wait.
pub fn unblock(descriptor: usize) {
    const GET: usize = 3;
    const SET: usize = 4;
    let flags = call(sys::FCNTL, [descriptor, GET]);
    if flags >= 0 {
        call(sys::FCNTL, [descriptor, SET, flags as usize | NONBLOCK]);
    }
}
