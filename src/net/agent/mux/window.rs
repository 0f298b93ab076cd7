//! Flow control of one channel: pure. Each end may send as much as the other allowed, so what waits anywhere is bounded,
//! and a reader that is slow holds up nobody but its own writer.
//!
//! Data that was taken from the guest is covered by credit already: whatever waits here can be sent.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;

use super::frame::{Frames, Number};

/// Bytes that one end of a stream may have sent and the other not yet passed on; the agent's `channel.rs` holds the same.
pub(super) const WINDOW: usize = 64 * 1024;
/// The same for datagrams, with [`OVERHEAD`] for each.
pub(super) const DATAGRAMS: usize = 128 * 1024;
/// What a datagram counts beside its bytes.
pub(super) const OVERHEAD: usize = 64;
/// Bytes of a stream that one frame carries at most.
const PIECE: usize = 16 * 1024;
/// Longest datagram: the last one may go beyond the window.
const LONGEST: usize = 65_535;

/// The other end sent more than it may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overrun;

/// What a stream has still to send.
#[derive(Debug)]
pub(super) struct Sending {
    waiting: VecDeque<u8>,
    credit: usize,
    end: End,
}

/// How far the end of what is sent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// To be told behind what waits.
    Wanted,
    Told,
    /// The other end takes nothing any more, by this error number.
    Refused(i32),
}

impl Sending {
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::new(), credit: WINDOW, end: End::Open }
    }

    /// Takes what may be sent: how much it is, none of it while there is no credit. An error number where nothing can be
    /// sent any more.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, i32> {
        match self.end {
            End::Open => {}
            End::Refused(errno) => return Err(errno),
            End::Wanted | End::Told => return Err(rustix::io::Errno::PIPE.raw_os_error()),
        }
        let taken = bytes.len().min(self.credit);
        self.credit -= taken;
        self.waiting.extend(&bytes[..taken]);
        Ok(taken)
    }

    /// Nothing more is taken.
    pub(super) fn finish(&mut self) {
        if self.end == End::Open {
            self.end = End::Wanted;
        }
    }

    /// The other end takes nothing any more.
    pub(super) fn refuse(&mut self, errno: i32) {
        self.waiting.clear();
        self.end = End::Refused(errno);
    }

    pub(super) fn allow(&mut self, count: usize) -> Result<(), Overrun> {
        self.credit += count;
        if self.credit > WINDOW { Err(Overrun) } else { Ok(()) }
    }

    /// Whether anything is to be sent.
    pub(super) fn is_due(&self) -> bool {
        !self.waiting.is_empty() || self.end == End::Wanted
    }

    /// Sends a piece of it.
    pub(super) fn send(&mut self, number: Number, out: &mut Frames) {
        let length = self.waiting.len().min(PIECE);
        if length > 0 {
            let (first, second) = self.waiting.as_slices();
            let from_first = first.len().min(length);
            out.data(number, (&first[..from_first], &second[..length - from_first]));
            self.waiting.drain(..length);
        }
        if self.waiting.is_empty() && self.end == End::Wanted {
            out.finish(number);
            self.end = End::Told;
        }
    }
}

/// What a stream received and nobody has read yet.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    waiting: VecDeque<u8>,
    /// Read, and the other end was not told of it yet.
    owed: usize,
    /// No more comes; the error number, or 0.
    end: Option<i32>,
}

impl Receiving {
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), Overrun> {
        if self.waiting.len() + self.owed + bytes.len() > WINDOW {
            return Err(Overrun);
        }
        self.waiting.extend(bytes);
        Ok(())
    }

    pub(super) fn end(&mut self, errno: i32) {
        self.end = Some(errno);
    }

    /// Reads what is there: `None` while nothing is; 0 at the end, which may be an error.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Option<Result<usize, i32>> {
        if self.waiting.is_empty() {
            return match self.end {
                None => None,
                Some(0) => Some(Ok(0)),
                Some(errno) => Some(Err(errno)),
            };
        }
        let (first, second) = self.waiting.as_slices();
        let from_first = first.len().min(buffer.len());
        buffer[..from_first].copy_from_slice(&first[..from_first]);
        let rest = &mut buffer[from_first..];
        let from_second = second.len().min(rest.len());
        rest[..from_second].copy_from_slice(&second[..from_second]);
        let length = from_first + from_second;
        self.waiting.drain(..length);
        self.owed += length;
        Some(Ok(length))
    }

    /// What the other end is to be allowed, once it is worth a frame.
    pub(super) fn is_due(&self) -> bool {
        self.owed >= WINDOW / 4 && self.end.is_none()
    }

    pub(super) fn settle(&mut self) -> usize {
        std::mem::take(&mut self.owed)
    }
}

/// The datagrams that a socket has still to send.
#[derive(Debug)]
pub(super) struct SendingDatagrams {
    waiting: VecDeque<(SocketAddr, Bytes)>,
    credit: usize,
    /// An earlier one was not sent.
    error: Option<i32>,
}

impl SendingDatagrams {
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::new(), credit: DATAGRAMS, error: None }
    }

    /// Takes a datagram; `false` while there is no credit for it. The error number of an earlier one that was not sent.
    pub(super) fn take(&mut self, bytes: &[u8], to: SocketAddr) -> Result<bool, i32> {
        if let Some(errno) = self.error.take() {
            return Err(errno);
        }
        let Some(left) = self.credit.checked_sub(bytes.len() + OVERHEAD) else { return Ok(false) };
        self.credit = left;
        self.waiting.push_back((to, Bytes::copy_from_slice(bytes)));
        Ok(true)
    }

    pub(super) fn refuse(&mut self, errno: i32) {
        self.error = Some(errno);
    }

    pub(super) fn allow(&mut self, count: usize) -> Result<(), Overrun> {
        self.credit += count;
        if self.credit > DATAGRAMS { Err(Overrun) } else { Ok(()) }
    }

    pub(super) fn is_due(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn send(&mut self, number: Number, out: &mut Frames) {
        if let Some((to, bytes)) = self.waiting.pop_front() {
            out.datagram(number, to, &bytes);
        }
    }
}

/// The datagrams that a socket received and nobody has read yet.
#[derive(Debug, Default)]
pub(super) struct ReceivingDatagrams {
    waiting: VecDeque<(Bytes, SocketAddr)>,
    held: usize,
    owed: usize,
}

impl ReceivingDatagrams {
    pub(super) fn put(&mut self, bytes: &[u8], from: SocketAddr) -> Result<(), Overrun> {
        if self.held + self.owed >= DATAGRAMS || bytes.len() > LONGEST {
            return Err(Overrun);
        }
        self.held += bytes.len() + OVERHEAD;
        self.waiting.push_back((Bytes::copy_from_slice(bytes), from));
        Ok(())
    }

    pub(super) fn read(&mut self) -> Option<(Bytes, SocketAddr)> {
        let (bytes, from) = self.waiting.pop_front()?;
        self.held -= bytes.len() + OVERHEAD;
        self.owed += bytes.len() + OVERHEAD;
        Some((bytes, from))
    }

    pub(super) fn is_due(&self) -> bool {
        self.owed >= DATAGRAMS / 4
    }

    pub(super) fn settle(&mut self) -> usize {
        std::mem::take(&mut self.owed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_was_allowed() {
        let mut sending = Sending::new();
        assert_eq!(sending.take(&vec![7; WINDOW + 1]), Ok(WINDOW));
        assert_eq!(sending.take(b"more"), Ok(0));
        let mut out = Frames::default();
        while sending.is_due() {
            sending.send(3, &mut out);
        }
        assert_eq!(out.0.len(), WINDOW + WINDOW / PIECE * 7, "all of it, in pieces");
        assert_eq!(sending.take(b"more"), Ok(0), "sent is not passed on");
        assert_eq!(sending.allow(3), Ok(()));
        assert_eq!(sending.take(b"more"), Ok(3));
        assert_eq!(sending.allow(WINDOW + 1), Err(Overrun));
    }

    #[test]
    fn the_end_is_told_behind_the_data_and_once() {
        let mut sending = Sending::new();
        assert_eq!(sending.take(b"last words"), Ok(10));
        sending.finish();
        sending.finish();
        assert!(sending.take(b"too late").is_err());
        let mut out = Frames::default();
        sending.send(1, &mut out);
        assert!(!sending.is_due());
        assert_eq!(out.0, b"\x0f\0D\x01\0\0\0last words\x05\0F\x01\0\0\0");
    }

    #[test]
    fn what_is_refused_is_not_sent_any_more() {
        let mut sending = Sending::new();
        assert_eq!(sending.take(b"in vain"), Ok(7));
        sending.refuse(104);
        assert!(!sending.is_due());
        assert_eq!(sending.take(b"again"), Err(104));
        sending.finish();
        assert!(!sending.is_due(), "there is nobody to tell");
    }

    #[test]
    fn readers_give_credit_back_and_nobody_may_send_beyond_it() {
        let mut receiving = Receiving::default();
        assert_eq!(receiving.put(&vec![1; WINDOW]), Ok(()));
        assert_eq!(receiving.put(b"x"), Err(Overrun));
        let mut buffer = vec![0; WINDOW / 4];
        assert_eq!(receiving.read(&mut buffer), Some(Ok(WINDOW / 4)));
        assert_eq!(receiving.put(b"x"), Err(Overrun), "it was not told yet");
        assert!(receiving.is_due());
        assert_eq!(receiving.settle(), WINDOW / 4);
        assert_eq!(receiving.put(&vec![1; WINDOW / 4]), Ok(()));
        assert_eq!(receiving.put(b"x"), Err(Overrun));
    }

    #[test]
    fn the_end_comes_behind_the_data() {
        let mut receiving = Receiving::default();
        let mut buffer = [0; 8];
        assert_eq!(receiving.read(&mut buffer), None);
        receiving.put(b"rest").expect("it fits");
        receiving.end(0);
        assert_eq!(receiving.read(&mut buffer), Some(Ok(4)));
        assert_eq!(receiving.read(&mut buffer), Some(Ok(0)));
        receiving.end(104);
        assert_eq!(receiving.read(&mut buffer), Some(Err(104)));
    }

    #[test]
    fn datagrams_are_bounded_by_their_bytes_and_their_number() {
        let to = "10.0.0.1:53".parse().expect("an endpoint");
        let mut sending = SendingDatagrams::new();
        assert_eq!(sending.take(&vec![0; 65_507], to), Ok(true));
        assert_eq!(sending.take(&vec![0; 65_507], to), Ok(false), "not in part");
        assert_eq!(sending.take(b"", to), Ok(true));
        let mut empty = 0;
        while sending.take(b"", to) == Ok(true) {
            empty += 1;
        }
        assert!(empty < DATAGRAMS / OVERHEAD, "{empty}");
        sending.refuse(90);
        assert_eq!(sending.take(b"", to), Err(90));
        assert_eq!(sending.take(b"", to), Ok(false), "told once");

        let mut receiving = ReceivingDatagrams::default();
        let mut count = 0;
        while receiving.put(&[], to).is_ok() {
            count += 1;
        }
        assert_eq!(count, DATAGRAMS / OVERHEAD);
        for _ in 0..count {
            assert!(receiving.read().is_some());
        }
        assert!(receiving.is_due());
        assert_eq!(receiving.settle(), DATAGRAMS);
    }
}
