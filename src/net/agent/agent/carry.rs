//! Process 1 where no Unix socket of the supervisor can be mounted: makes sockets and carries what goes over them, as the
//! supervisor says over the two streams of an `exec` that [`door`](crate::door) brings.
//!
//! One loop, which never waits for one socket while another has something: reading from a socket needs the supervisor's
//! credit and room in the outlet, what a socket does not take waits in its ring, and nothing is read from the supervisor
//! while there is no room for the answer. The supervisor reads whatever it writes, so that neither waits for the other.

use crate::channel::{Rings, WINDOW};
use crate::control::Signals;
use crate::door::{Door, Visit};
use crate::pipes::{Inlet, unblock};
use crate::sys::{self, CLOEXEC, Poll, call, close, exit};
use crate::table::{CHANNELS, Event, READABLE, Table, WRITABLE, watch};
use crate::{GONE, MISUSED, VERSION, hello};

/// How long the supervisor, which says something every few seconds, may be silent. In seconds.
const SILENCE: u64 = 60;
/// How long what is to be written may keep the process that was told to exit. In seconds.
const LINGER: u64 = 2;
/// Things that happened and are looked at together.
const EVENTS: usize = 64;

/// What epoll tells of beside channels.
const INLET: u64 = u64::MAX;
const OUTLET: u64 = u64::MAX - 1;
const SIGNALS: u64 = u64::MAX - 2;
const DOOR: u64 = u64::MAX - 3;

const ADD: usize = 1;
const MODIFY: usize = 3;

/// All zeros is one that lacks its descriptors.
#[repr(C)]
struct Carrier {
    inlet: Inlet,
    table: Table,
}

/// What one frame asked of the process as a whole.
enum Wish {
    Nothing,
    Health(bool),
    Exit(u8),
}

/// Waits for streams, says hello, and carries until they end or the supervisor says how to end.
pub fn carry(token: &[u8]) -> ! {
    let signals = Signals::open();
    let mut door = Door::open();
    let [input, output] = door.wait(token, signals);
    for descriptor in [input, output, 1, 2] {
        unblock(descriptor);
    }
    let (carrier, rings) = (sys::reserve(size_of::<Carrier>()).cast::<Carrier>(), sys::reserve(CHANNELS * WINDOW));
    if carrier.is_null() || rings.is_null() {
        exit(MISUSED)
    }
    // SAFETY: the memory is as long, a page's alignment is enough, nothing else refers to it, and all zeros is a value of it.
    let Carrier { inlet, table } = unsafe { &mut *carrier };
    inlet.descriptor = input;
    table.outlet.descriptor = output;
    table.rings = Rings(rings);
    table.epoll = call(sys::EPOLL_CREATE1, [CLOEXEC]) as usize;
    for (descriptor, what) in [(input, INLET), (signals.0, SIGNALS), (door.listener, DOOR)] {
        watch(table.epoll, ADD, descriptor, READABLE, what);
    }
    watch(table.epoll, ADD, output, 0, OUTLET);
    table.open_logs();
    table.outlet.say(hello(token).bytes());

    let mut watched = false;
    let mut leaving = None;
    loop {
        // Whatever was said before its wish to exit was heard before it.
        while table.outlet.has_room()
            && let Some(frame) = inlet.next()
        {
            match obey(table, frame) {
                Wish::Nothing => {}
                Wish::Health(healthy) => door.healthy = healthy,
                Wish::Exit(code) => leaving = leaving.or(Some((code, sys::clock() + LINGER))),
            }
        }
        if !table.outlet.flush() {
            exit(GONE)
        }
        if let Some((code, until)) = leaving
            && (table.is_drained() || sys::clock() >= until)
        {
            exit(code)
        }
        if !table.outlet.has_room() {
            // Nothing else can be done meanwhile.
            if sys::poll(&mut [Poll::writable(output)], Some(SILENCE)) == 0 {
                exit(GONE)
            }
            continue;
        }
        if inlet.has_frame() {
            continue;
        }
        if watched == table.outlet.is_empty() {
            watched = !watched;
            watch(table.epoll, MODIFY, output, if watched { WRITABLE } else { 0 }, OUTLET);
        }
        let mut events = [Event { happened: 0, what: 0 }; EVENTS];
        let limit = if leaving.is_some() { 100 } else { SILENCE as usize * 1000 };
        let count = call(sys::EPOLL_PWAIT, [table.epoll, events.as_mut_ptr() as usize, EVENTS, limit, 0, 8]);
        if count == 0 && leaving.is_none() {
            exit(GONE)
        }
        for event in events.iter().take(count.max(0) as usize) {
            let (happened, what) = (event.happened, event.what);
            if !table.outlet.has_room() && !(table.outlet.flush() && table.outlet.has_room()) {
                // Told again when there is.
                break;
            }
            match what {
                INLET => {
                    if !inlet.fill() {
                        exit(GONE)
                    }
                }
                OUTLET => {
                    // Nobody reads any more.
                    if happened & !WRITABLE != 0 {
                        exit(GONE)
                    }
                }
                SIGNALS => {
                    if let Some(signal) = signals.next() {
                        table.outlet.say(&[b'T', signal]);
                    }
                }
                DOOR => {
                    // One is enough.
                    if let Visit::Lent(streams, visitor) = door.admit(token) {
                        streams.into_iter().for_each(close);
                        close(visitor.0);
                    }
                }
                channel => table.happened(channel as usize, happened),
            }
        }
    }
}

/// Carries out a frame. One that is none is ignored.
fn obey(table: &mut Table, frame: &[u8]) -> Wish {
    match *frame {
        [b'W', VERSION, ..] => table.outlet.say(b"R"),
        [b'A', healthy] => return Wish::Health(healthy == 1),
        [b'X', code] => return Wish::Exit(code),
        // Says that it is still there, and wants to hear the same.
        [b'P'] => table.outlet.say(b"P"),
        [kind, a, b, c, d, ref rest @ ..] => table.obey(kind, u32::from_le_bytes([a, b, c, d]) as usize, rest),
        _ => {}
    }
    Wish::Nothing
}
