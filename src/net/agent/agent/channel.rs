//! One channel: a socket, or a place for one, and what waits to be written to it.

use crate::sys::{self, EINTR, call};

/// Bytes that either end of a stream may have sent and the other not yet passed on; `mux/window.rs` holds the same.
pub const WINDOW: usize = 64 * 1024;
/// The same for datagrams, with [`OVERHEAD`] for each.
pub const DATAGRAMS: usize = 128 * 1024;
/// What a datagram counts beside its bytes.
pub const OVERHEAD: usize = 64;

/// What a channel is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Nothing.
    Free = 0,
    /// A place for a listener's next connection.
    Waiting,
    /// A listener.
    Listening,
    /// A connection that is being made.
    Connecting,
    /// A connection.
    Stream,
    /// Standard output or standard error: a stream that nothing comes from.
    Log,
    /// A datagram socket.
    Datagrams,
}

/// All zeros is a free one.
#[repr(C)]
pub struct Channel {
    pub kind: Kind,
    /// The supervisor sends no more data.
    pub finishing: bool,
    /// Nothing more is read from the socket.
    pub ended: bool,
    /// Nothing more can be written to the socket.
    pub broken: bool,
    /// To be closed once everything is written.
    pub closing: bool,
    /// The socket's writing half is shut.
    pub shut: bool,
    /// Its ring was written to.
    pub soiled: bool,
    /// What epoll watches it for.
    pub watched: u32,
    pub socket: usize,
    /// What may still be sent to the supervisor; a datagram may be the last that goes beyond it.
    pub credit: i32,
    /// What was passed on, and the supervisor was not told of yet.
    pub owed: u32,
    /// Where what waits begins in the ring, and how much it is.
    pub start: u32,
    pub length: u32,
    /// Of a listener: its places, the first and the last; of a place: its listener and the next place. Numbers, 0 for none:
    /// no socket has the numbers of the logs.
    pub first: u32,
    pub last: u32,
    pub listener: u32,
    pub next: u32,
}

/// The memory where bytes wait that a socket did not take at once: one ring of [`WINDOW`] bytes for each channel.
#[derive(Clone, Copy)]
pub struct Rings(pub *mut u8);

impl Rings {
    fn ring(self, number: usize) -> *mut u8 {
        // SAFETY: the memory was reserved for so many rings as there are channels, and every number is one of a channel.
        unsafe { self.0.add(number * WINDOW) }
    }
}

impl Channel {
    /// Writes what waits and then `bytes`; what is not taken waits. `Err` with the error number (negative) of a socket that
    /// takes nothing any more, or 0 for more bytes than were allowed.
    pub fn write(&mut self, number: usize, rings: Rings, mut bytes: &[u8]) -> Result<(), isize> {
        self.drain(number, rings)?;
        if self.length == 0 && !bytes.is_empty() {
            match put(self.socket, bytes.as_ptr(), bytes.len()) {
                written if written >= 0 => {
                    self.owed += written as u32;
                    bytes = &bytes[written as usize..];
                }
                sys::EAGAIN => {}
                error => return Err(error),
            }
        }
        if bytes.len() > WINDOW - self.length as usize {
            return Err(0);
        }
        let ring = rings.ring(number);
        self.soiled |= !bytes.is_empty();
        // At most two runs: to the end of the ring, and from its beginning.
        while !bytes.is_empty() {
            let end = (self.start as usize + self.length as usize) % WINDOW;
            let fits = bytes.len().min(WINDOW - end);
            // SAFETY: `end + fits` is within the ring, and that run is free: there is room for all of `bytes`.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), ring.add(end), fits) };
            self.length += fits as u32;
            bytes = &bytes[fits..];
        }
        Ok(())
    }

    /// Writes what waits, as much as is taken.
    pub fn drain(&mut self, number: usize, rings: Rings) -> Result<(), isize> {
        while self.length > 0 {
            let run = (self.length as usize).min(WINDOW - self.start as usize);
            // SAFETY: `start` is within the ring.
            let from = unsafe { rings.ring(number).add(self.start as usize) };
            match put(self.socket, from, run) {
                written if written >= 0 => {
                    self.owed += written as u32;
                    self.length -= written as u32;
                    self.start = if self.length == 0 { 0 } else { (self.start + written as u32) % WINDOW as u32 };
                }
                sys::EAGAIN => return Ok(()),
                error => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives the ring's memory back.
    pub fn release(number: usize, rings: Rings) {
        const DONTNEED: usize = 4;
        call(sys::MADVISE, [rings.ring(number) as usize, WINDOW, DONTNEED]);
    }
}

/// Writes to a socket or pipe; SIGPIPE is blocked.
fn put(socket: usize, from: *const u8, length: usize) -> isize {
    loop {
        match call(sys::WRITE, [socket, from as usize, length]) {
            EINTR => {}
            written => return written,
        }
    }
}
