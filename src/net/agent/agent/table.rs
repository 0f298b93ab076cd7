//! All channels, and what the supervisor asks of them. Whoever calls makes sure that there is room for what is said about it.

use crate::address::{self, Address};
use crate::channel::{Channel, DATAGRAMS, Kind, OVERHEAD, Rings, WINDOW};
use crate::pipes::Outlet;
use crate::sys::{self, CLOEXEC, EAGAIN, EINTR, NONBLOCK, call, close};

/// Channels, with those of the logs; `mux/state.rs` holds the same.
pub const CHANNELS: usize = 4224;
/// The channels of standard output and standard error.
pub const LOGS: [usize; 2] = [0, 1];
/// Bytes of a stream that one frame carries at most.
const PIECE: usize = 16 * 1024;
/// Longest datagram.
const LONGEST: usize = 65_507;
/// Connections that wait to be accepted, as Linux bounds it.
const BACKLOG: usize = 4096;

const EPIPE: isize = -32;
const EINVAL: isize = -22;
const ECONNABORTED: isize = -103;
const ENOBUFS: isize = -105;
const EINPROGRESS: isize = -115;

const STREAM: usize = 1;
const DGRAM: usize = 2;
const SOL_SOCKET: usize = 1;
const TCP: usize = 6;
const IPV6: usize = 41;

/// What epoll watches for.
pub const READABLE: u32 = 1;
pub const WRITABLE: u32 = 4;

/// `struct epoll_event`.
#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
#[derive(Clone, Copy)]
pub struct Event {
    pub happened: u32,
    pub what: u64,
}

/// All zeros is an empty one, which lacks its descriptor of epoll and its rings.
#[repr(C)]
pub struct Table {
    pub outlet: Outlet,
    pub epoll: usize,
    pub rings: Rings,
    channels: [Channel; CHANNELS],
}

impl Table {
    /// The channels of the logs exist from the beginning.
    pub fn open_logs(&mut self) {
        for (number, descriptor) in LOGS.into_iter().zip([1, 2]) {
            let log = &mut self.channels[number];
            log.kind = Kind::Log;
            log.socket = descriptor;
        }
    }

    /// Whether everything was written that is to be.
    pub fn is_drained(&self) -> bool {
        self.channels.iter().all(|channel| channel.length == 0)
    }

    /// Carries out a frame about a channel; one that makes no sense is ignored.
    pub fn obey(&mut self, kind: u8, number: usize, rest: &[u8]) {
        if number >= CHANNELS {
            return;
        }
        let is_free = self.channels[number].kind == Kind::Free;
        match kind {
            b'L' | b'C' | b'U' if is_free => self.open(kind, number, rest),
            b'Z' => self.close(number),
            _ if is_free => return,
            b'N' => {
                let Some(place) = rest.first_chunk::<4>() else { return };
                self.wait(number, u32::from_le_bytes(*place) as usize);
            }
            b'D' => self.send(number, rest),
            b'K' => {
                let Some(count) = rest.first_chunk::<4>() else { return };
                let channel = &mut self.channels[number];
                channel.credit = channel.credit.saturating_add(u32::from_le_bytes(*count) as i32);
            }
            b'F' => self.channels[number].finishing = true,
            _ => return,
        }
        self.settle(number);
    }

    /// Makes a socket, or says why it cannot be made.
    fn open(&mut self, kind: u8, number: usize, at: &[u8]) {
        let Some(address) = Address::read(at) else { return self.opened(number, EINVAL) };
        let of = if kind == b'U' { DGRAM } else { STREAM };
        let made = call(sys::SOCKET, [address.family(), of | CLOEXEC | NONBLOCK, 0]);
        if made < 0 {
            return self.opened(number, made);
        }
        let socket = made as usize;
        let [place, length] = address.given();
        if kind == b'C' {
            self.take(number, Kind::Connecting, socket);
            match call(sys::CONNECT, [socket, place, length]) {
                EINPROGRESS | EINTR => {}
                connected => self.opened(number, connected),
            }
            return;
        }
        if address.is_v6() {
            const V6ONLY: usize = 26;
            set(socket, IPV6, V6ONLY, i32::from(!address.is_wildcard()));
        }
        if kind == b'L' {
            // A guest that was restarted can listen again at once.
            const REUSEADDR: usize = 2;
            set(socket, SOL_SOCKET, REUSEADDR, 1);
        }
        let mut outcome = call(sys::BIND, [socket, place, length]);
        if outcome == 0 && kind == b'L' {
            outcome = call(sys::LISTEN, [socket, BACKLOG]);
        }
        self.take(number, if kind == b'L' { Kind::Listening } else { Kind::Datagrams }, socket);
        self.opened(number, outcome);
    }

    fn take(&mut self, number: usize, kind: Kind, socket: usize) {
        let channel = &mut self.channels[number];
        channel.kind = kind;
        channel.socket = socket;
        channel.credit = if kind == Kind::Datagrams { DATAGRAMS } else { WINDOW } as i32;
    }

    /// Says how opening a channel went; where it failed the channel is free again.
    fn opened(&mut self, number: usize, outcome: isize) {
        let channel = &mut self.channels[number];
        let mut told = [0; 4 + 2 * address::LENGTH];
        told[..4].copy_from_slice(&errno(outcome));
        if outcome < 0 {
            self.free(number);
        } else {
            if channel.kind == Kind::Connecting {
                channel.kind = Kind::Stream;
                set(channel.socket, TCP, NODELAY, 1);
            }
            let peer = Address::peer(channel.socket).unwrap_or(Address::empty());
            told[4..4 + address::LENGTH].copy_from_slice(&Address::local(channel.socket).write());
            told[4 + address::LENGTH..].copy_from_slice(&peer.write());
        }
        self.outlet.tell(b'O', number, &told);
    }

    /// A listener gets a place for its next connection.
    fn wait(&mut self, listener: usize, place: usize) {
        if place >= CHANNELS || self.channels[place].kind != Kind::Free {
            return;
        }
        if self.channels[listener].kind != Kind::Listening {
            return self.opened(place, EINVAL);
        }
        let waiting = &mut self.channels[place];
        (waiting.kind, waiting.listener, waiting.next) = (Kind::Waiting, listener as u32, 0);
        match self.channels[listener].last {
            0 => self.channels[listener].first = place as u32,
            last => self.channels[last as usize].next = place as u32,
        }
        self.channels[listener].last = place as u32;
    }

    /// A place waits no more.
    fn leave(&mut self, place: usize) {
        let listener = self.channels[place].listener as usize;
        let next = self.channels[place].next;
        let mut before = 0;
        let mut at = self.channels[listener].first;
        while at != 0 && at as usize != place {
            before = at;
            at = self.channels[at as usize].next;
        }
        if at == 0 {
            // Its listener is gone.
            return;
        }
        match before {
            0 => self.channels[listener].first = next,
            before => self.channels[before as usize].next = next,
        }
        if next == 0 {
            self.channels[listener].last = before;
        }
        self.settle(listener);
    }

    /// Accepts connections while there are places for them.
    fn accept(&mut self, listener: usize) {
        while self.channels[listener].first != 0 && self.outlet.has_room() {
            let accepted = call(sys::ACCEPT4, [self.channels[listener].socket, 0, 0, CLOEXEC | NONBLOCK]);
            match accepted {
                EINTR | ECONNABORTED => continue,
                EAGAIN => break,
                _ => {}
            }
            if accepted >= 0 && Address::peer(accepted as usize).is_none() {
                // It gave up while it waited.
                close(accepted as usize);
                continue;
            }
            let place = self.channels[listener].first as usize;
            self.leave(place);
            if accepted >= 0 {
                self.take(place, Kind::Connecting, accepted as usize);
            }
            self.opened(place, accepted.min(0));
            self.settle(place);
        }
        self.settle(listener);
    }

    /// Data for a channel.
    fn send(&mut self, number: usize, bytes: &[u8]) {
        let channel = &mut self.channels[number];
        match channel.kind {
            Kind::Stream | Kind::Log if !channel.broken => match channel.write(number, self.rings, bytes) {
                Ok(()) => {}
                Err(error) => self.refuse(number, error),
            },
            Kind::Datagrams => {
                let Some((to, bytes)) = bytes.split_at_checked(address::LENGTH) else { return };
                let sent = match Address::read(to) {
                    Some(to) => {
                        let [place, length] = to.given();
                        call(sys::SENDTO, [channel.socket, bytes.as_ptr() as usize, bytes.len(), 0, place, length])
                    }
                    None => EINVAL,
                };
                channel.owed += (bytes.len() + OVERHEAD) as u32;
                // What the socket has no room for is lost, as datagrams are.
                if sent < 0 && sent != EAGAIN && sent != ENOBUFS {
                    self.outlet.tell(b'E', number, &errno(sent));
                }
            }
            _ => {}
        }
    }

    /// Something happened to a channel's socket.
    pub fn happened(&mut self, number: usize, events: u32) {
        let channel = &mut self.channels[number];
        match channel.kind {
            Kind::Listening => return self.accept(number),
            Kind::Connecting => {
                const ERROR: usize = 4;
                let outcome = get(channel.socket, SOL_SOCKET, ERROR);
                self.opened(number, -(outcome as isize));
            }
            Kind::Stream | Kind::Log => {
                if channel.length > 0
                    && let Err(error) = channel.drain(number, self.rings)
                {
                    self.refuse(number, error);
                }
                // Whatever it is that happened, a reader is to see it.
                if events & !WRITABLE != 0 && self.channels[number].wants_to_read() {
                    self.read(number);
                }
            }
            Kind::Datagrams => self.receive(number),
            Kind::Free | Kind::Waiting => {}
        }
        self.settle(number);
    }

    fn read(&mut self, number: usize) {
        let channel = &mut self.channels[number];
        let most = PIECE.min(channel.credit as usize);
        let read = self
            .outlet
            .relay(number, most, |room| call(sys::READ, [channel.socket, room.as_mut_ptr() as usize, room.len()]));
        match read {
            EINTR | EAGAIN => {}
            read if read > 0 => channel.credit -= read as i32,
            ended => {
                channel.ended = true;
                self.outlet.tell(b'F', number, &errno(ended));
            }
        }
    }

    fn receive(&mut self, number: usize) {
        const TRUNC: usize = 0x20;
        let channel = &mut self.channels[number];
        if channel.credit <= 0 {
            return;
        }
        let received = self.outlet.relay_datagram(number, LONGEST, |room| {
            let mut from = Address::empty();
            let [place, length] = from.taken();
            let taken =
                call(sys::RECVFROM, [channel.socket, room.as_mut_ptr() as usize, room.len(), TRUNC, place, length]);
            (taken, from.write())
        });
        // Errors here are those of earlier datagrams that reached nobody: read, and gone.
        if (0..=LONGEST as isize).contains(&received) {
            channel.credit -= (received as usize + OVERHEAD) as i32;
        }
    }

    /// Nothing can be written any more. What may still come is read.
    fn refuse(&mut self, number: usize, error: isize) {
        let channel = &mut self.channels[number];
        channel.broken = true;
        channel.length = 0;
        let error = if error == 0 { EPIPE } else { error };
        self.outlet.tell(b'E', number, &errno(error));
    }

    /// The supervisor wants no more of it. The number is its own again when it is told so.
    fn close(&mut self, number: usize) {
        let channel = &mut self.channels[number];
        match channel.kind {
            Kind::Free => self.outlet.tell(b'Z', number, &[]),
            Kind::Waiting => {
                self.leave(number);
                self.free(number);
                self.outlet.tell(b'Z', number, &[]);
            }
            Kind::Stream if channel.length > 0 => {
                // Of a peer that takes nothing, and says nothing, the kernel tells after so many milliseconds.
                const USER_TIMEOUT: usize = 18;
                set(channel.socket, TCP, USER_TIMEOUT, 60_000);
                channel.closing = true;
            }
            _ => channel.closing = true,
        }
    }

    /// What follows from a channel's state: what is told of it, and what it is watched for.
    fn settle(&mut self, number: usize) {
        let channel = &mut self.channels[number];
        if channel.kind == Kind::Free {
            return;
        }
        if channel.closing && (channel.length == 0 || channel.kind == Kind::Connecting) {
            self.free(number);
            return self.outlet.tell(b'Z', number, &[]);
        }
        if channel.finishing && !channel.shut && channel.length == 0 && channel.kind == Kind::Stream {
            const WRITING: usize = 1;
            channel.shut = true;
            call(sys::SHUTDOWN, [channel.socket, WRITING]);
        }
        let window = if channel.kind == Kind::Datagrams { DATAGRAMS } else { WINDOW };
        if channel.owed as usize >= window / 4 {
            let owed = core::mem::take(&mut channel.owed);
            self.outlet.tell(b'K', number, &owed.to_le_bytes());
        }
        self.watch(number);
    }

    /// Watches a socket for what is wanted of it, and for nothing where nothing is: then not even its errors are told.
    fn watch(&mut self, number: usize) {
        const ADD: usize = 1;
        const DELETE: usize = 2;
        const MODIFY: usize = 3;
        let channel = &mut self.channels[number];
        let read = if channel.wants_to_read() { READABLE } else { 0 };
        let write = if channel.length > 0 || channel.kind == Kind::Connecting { WRITABLE } else { 0 };
        let wanted = read | write;
        if wanted == channel.watched {
            return;
        }
        let change = match (channel.watched, wanted) {
            (0, _) => ADD,
            (_, 0) => DELETE,
            _ => MODIFY,
        };
        channel.watched = wanted;
        watch(self.epoll, change, channel.socket, wanted, number as u64);
    }

    fn free(&mut self, number: usize) {
        let channel = &mut self.channels[number];
        let (kind, socket, soiled) = (channel.kind, channel.socket, channel.soiled);
        // SAFETY: all zeros is a free channel.
        *channel = unsafe { core::mem::zeroed() };
        match kind {
            Kind::Free | Kind::Waiting => return,
            Kind::Listening => {
                for place in &mut self.channels {
                    if place.kind == Kind::Waiting && place.listener as usize == number {
                        place.listener = 0;
                    }
                }
            }
            _ if soiled => Channel::release(number, self.rings),
            _ => {}
        }
        // Which takes it out of what epoll watches as well.
        close(socket);
    }
}

impl Channel {
    fn wants_to_read(&self) -> bool {
        match self.kind {
            Kind::Listening => self.first != 0,
            Kind::Stream | Kind::Datagrams => self.credit > 0 && !self.ended && !self.closing,
            Kind::Free | Kind::Waiting | Kind::Connecting | Kind::Log => false,
        }
    }
}

/// `TCP_NODELAY`: small writes go out at once.
const NODELAY: usize = 1;

/// Adds, changes or deletes what epoll watches a descriptor for.
pub fn watch(epoll: usize, change: usize, descriptor: usize, wanted: u32, what: u64) -> isize {
    let event = Event { happened: wanted, what };
    call(sys::EPOLL_CTL, [epoll, change, descriptor, &raw const event as usize])
}

/// An error number as frames have it: 0 where nothing failed.
fn errno(outcome: isize) -> [u8; 4] {
    (outcome.min(0).unsigned_abs() as u32).to_le_bytes()
}

fn set(socket: usize, level: usize, option: usize, value: i32) {
    call(sys::SETSOCKOPT, [socket, level, option, &raw const value as usize, size_of::<i32>()]);
}

fn get(socket: usize, level: usize, option: usize) -> i32 {
    let mut value = 0i32;
    let mut length = size_of::<i32>() as u32;
    call(sys::GETSOCKOPT, [socket, level, option, &raw mut value as usize, &raw mut length as usize]);
    value
}
