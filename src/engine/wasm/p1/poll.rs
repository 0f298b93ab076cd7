//! `poll_oneoff` over sockets, clocks and everything else at once.
//!
//! Sockets and clocks are waited for here. What else a guest waits for (standard input, files) is waited for by Wasmtime's
//! own function at the same time, in a memory of ours that holds those subscriptions alone; without a socket among them
//! Wasmtime's does it all. Like Linux, and unlike WasmEdge's `epoll_oneoff`, of which this is the body as well,
//! readiness is told as long as it lasts; guests that want edges lose nothing by it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, Sleep};
use wasmtime::{AsContextMut, Caller, Linker};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::wasi_snapshot_preview1 as wasmtime_p1;
use wasmtime_wasi::p1::wasi_snapshot_preview1::WasiSnapshotPreview1 as _;
use wiggle::GuestMemory;

use super::errno::{Errno, answer};
use super::memory::{Memory, Pointer, offset};
use super::socket::Readiness;
use super::table::Sockets;
use super::{MODULE, guest};
use crate::engine::wasm::host::CoreState;

/// Size of a `subscription`.
const SUBSCRIPTION: u32 = 48;
/// Size of an `event`.
const EVENT: u32 = 32;
/// Most subscriptions of one call: four for each socket a guest can have.
const MOST: u32 = 16_384;
/// `SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME`.
const ABSOLUTE: u16 = 1;
/// `EVENTRWFLAGS_FD_READWRITE_HANGUP`.
const HANGUP: u16 = 1;
/// Longest that is waited at once: clocks further on are looked at again.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Puts `poll_oneoff` in the place of Wasmtime's, and `epoll_oneoff` beside it.
pub(super) fn add_to_linker(linker: &mut Linker<CoreState>) -> wasmtime::Result<()> {
    for name in ["poll_oneoff", "epoll_oneoff"] {
        linker.func_wrap_async(
            MODULE,
            name,
            |mut caller: Caller<'_, CoreState>, (subscriptions, events, count, told): (u32, u32, u32, u32)| {
                Box::new(async move {
                    let fuel = caller.as_context_mut().hostcall_fuel();
                    let (memory, state) = guest(&mut caller)?;
                    state.wasi.set_hostcall_fuel(fuel);
                    let wanted = match read(&memory, &mut state.wasi, subscriptions, count) {
                        Ok(wanted) => wanted,
                        Err(errno) => return Ok(i32::from(errno.0)),
                    };
                    if !wanted.iter().any(|wanted| wanted.what.is_socket()) {
                        let [subscriptions, events, count, told] =
                            [subscriptions, events, count, told].map(|number| number as i32);
                        let mut memory = GuestMemory::Unshared(memory.0);
                        let wasi = &mut state.wasi;
                        return wasmtime_p1::poll_oneoff(wasi, &mut memory, subscriptions, events, count, told).await;
                    }
                    let happened = wait(&wanted, &memory, state, subscriptions).await?;
                    Ok(answer(tell(memory, &happened, events, told)))
                })
            },
        )?;
    }
    Ok(())
}

/// A subscription.
struct Wanted {
    userdata: u64,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Clock(Instant),
    Readable(u32),
    Writable(u32),
    /// Wasmtime's to wait for.
    Other,
}

impl What {
    fn is_socket(self) -> bool {
        matches!(self, Self::Readable(_) | Self::Writable(_))
    }
}

/// What happened, as it is told: `event`.
#[derive(Clone, Copy)]
struct Event {
    userdata: u64,
    error: Errno,
    kind: u8,
    bytes: u64,
    flags: u16,
}

impl Event {
    fn clock(userdata: u64) -> Self {
        Self { userdata, error: Errno(0), kind: 0, bytes: 0, flags: 0 }
    }

    fn ready(userdata: u64, kind: u8, readiness: Readiness) -> Self {
        let flags = if readiness == Readiness::HungUp { HANGUP } else { 0 };
        Self { userdata, error: Errno(0), kind, bytes: 1, flags }
    }

    fn failed(userdata: u64, kind: u8, error: Errno) -> Self {
        Self { userdata, error, kind, bytes: 0, flags: 0 }
    }
}

fn read(memory: &Memory<'_>, wasi: &mut WasiP1Ctx, at: Pointer, count: u32) -> Result<Vec<Wanted>, Errno> {
    if count > MOST {
        return Err(Errno::INVAL);
    }
    let mut wanted = Vec::with_capacity(count as usize);
    for index in 0..count {
        let entry = offset(at, index * SUBSCRIPTION)?;
        memory.bytes(entry, SUBSCRIPTION)?;
        let what = match memory.u8(entry + 8)? {
            0 => What::Clock(deadline(memory, wasi, entry)?),
            kind @ (1 | 2) => match (kind, memory.u32(entry + 16)?) {
                (1, fd) if Sockets::owns(fd) => What::Readable(fd),
                (2, fd) if Sockets::owns(fd) => What::Writable(fd),
                _ => What::Other,
            },
            _ => return Err(Errno::INVAL),
        };
        wanted.push(Wanted { userdata: memory.u64(entry)?, what });
    }
    Ok(wanted)
}

/// When a clock's subscription is due.
fn deadline(memory: &Memory<'_>, wasi: &mut WasiP1Ctx, entry: Pointer) -> Result<Instant, Errno> {
    const REALTIME: u32 = 0;
    const MONOTONIC: u32 = 1;
    let (clock, time) = (memory.u32(entry + 16)?, Duration::from_nanos(memory.u64(entry + 24)?));
    let absolute = memory.u16(entry + 40)? & ABSOLUTE != 0;
    let wait = match (clock, absolute) {
        (REALTIME | MONOTONIC, false) => time,
        (REALTIME, true) => time.saturating_sub(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
        (MONOTONIC, true) => time.saturating_sub(monotonic(wasi)?),
        _ => return Err(Errno::INVAL),
    };
    Ok(Instant::now() + wait.min(FAR))
}

/// The guest's own monotonic clock: where it begins is Wasmtime's choice.
fn monotonic(wasi: &mut WasiP1Ctx) -> Result<Duration, Errno> {
    let mut now = [0; 8];
    let told = wasmtime_p1::clock_time_get(wasi, &mut GuestMemory::Unshared(&mut now), 1, 0, 0);
    match told {
        Ok(0) => Ok(Duration::from_nanos(u64::from_le_bytes(now))),
        Ok(_) | Err(_) => Err(Errno::INVAL),
    }
}

/// Waits until something happened, and answers all that did.
async fn wait(
    wanted: &[Wanted],
    memory: &Memory<'_>,
    state: &mut CoreState,
    subscriptions: Pointer,
) -> wasmtime::Result<Vec<Event>> {
    let mut others = Others::new(wanted, memory, subscriptions);
    let mut waiting = Box::pin(others.wait(&mut state.wasi));
    let mut others_told = None;
    let first = wanted.iter().filter_map(|wanted| match wanted.what {
        What::Clock(due) => Some(due),
        What::Readable(_) | What::Writable(_) | What::Other => None,
    });
    let mut alarm: Option<Pin<Box<Sleep>>> = first.min().map(|due| Box::pin(tokio::time::sleep_until(due)));
    let sockets = &mut state.sockets;
    std::future::poll_fn(|cx| {
        let mut happened = Vec::new();
        if let Some(alarm) = &mut alarm
            && alarm.as_mut().poll(cx).is_ready()
        {
            let now = Instant::now();
            let due = wanted.iter().filter(|wanted| matches!(wanted.what, What::Clock(due) if due <= now));
            happened.extend(due.map(|wanted| Event::clock(wanted.userdata)));
        }
        happened.extend(wanted.iter().filter_map(|wanted| poll_socket(cx, sockets, wanted)));
        if others_told.is_none()
            && let Poll::Ready(told) = waiting.as_mut().poll(cx)
        {
            others_told = Some(told?);
        }
        happened.extend(others_told.iter().flatten());
        if happened.is_empty() { Poll::Pending } else { Poll::Ready(Ok(happened)) }
    })
    .await
}

fn poll_socket(cx: &mut Context<'_>, sockets: &mut Sockets, wanted: &Wanted) -> Option<Event> {
    let (kind, fd) = match wanted.what {
        What::Readable(fd) => (1, fd),
        What::Writable(fd) => (2, fd),
        What::Clock(_) | What::Other => return None,
    };
    let socket = match sockets.get(fd) {
        Ok(socket) => socket,
        Err(errno) => return Some(Event::failed(wanted.userdata, kind, errno)),
    };
    let polled = if kind == 1 { socket.poll_readable(cx) } else { socket.poll_writable(cx) };
    match polled {
        Poll::Ready(readiness) => Some(Event::ready(wanted.userdata, kind, readiness)),
        Poll::Pending => None,
    }
}

/// The subscriptions that are Wasmtime's, in a memory of their own: subscriptions, events, and the number of events.
struct Others {
    memory: Vec<u8>,
    /// (userdata, kind) by position, which stands in the place of the userdata meanwhile.
    wanted: Vec<(u64, u8)>,
}

impl Others {
    fn new(wanted: &[Wanted], memory: &Memory<'_>, subscriptions: Pointer) -> Self {
        let mut others = Self { memory: Vec::new(), wanted: Vec::new() };
        for (index, wanted) in (0..).zip(wanted) {
            if matches!(wanted.what, What::Other)
                && let Ok(entry) = memory.bytes(subscriptions + index * SUBSCRIPTION, SUBSCRIPTION)
            {
                others.memory.extend((others.wanted.len() as u64).to_le_bytes());
                others.memory.extend(&entry[8..]);
                others.wanted.push((wanted.userdata, entry[8]));
            }
        }
        others.memory.resize(others.events() as usize + others.wanted.len() * EVENT as usize + 4, 0);
        others
    }

    fn events(&self) -> u32 {
        self.wanted.len() as u32 * SUBSCRIPTION
    }

    /// Where there is none, it takes for ever.
    async fn wait(&mut self, wasi: &mut WasiP1Ctx) -> wasmtime::Result<Vec<Event>> {
        let count = self.wanted.len() as u32;
        if count == 0 {
            return std::future::pending().await;
        }
        let (events, told) = (self.events(), self.events() + count * EVENT);
        let mut memory = GuestMemory::Unshared(&mut self.memory);
        let failed = wasmtime_p1::poll_oneoff(wasi, &mut memory, 0, events as i32, count as i32, told as i32).await?;
        if let Ok(failed @ 1..) = u16::try_from(failed) {
            let event = |(userdata, kind): &(u64, u8)| Event::failed(*userdata, *kind, Errno(failed));
            return Ok(self.wanted.iter().map(event).collect());
        }
        let memory = Memory(&mut self.memory);
        let read = |index: u32| -> Result<Event, Errno> {
            let at = events + index * EVENT;
            let (userdata, kind) = usize::try_from(memory.u64(at)?)
                .ok()
                .and_then(|place| self.wanted.get(place))
                .copied()
                .ok_or(Errno::INVAL)?;
            let (error, bytes, flags) = (Errno(memory.u16(at + 8)?), memory.u64(at + 16)?, memory.u16(at + 24)?);
            Ok(Event { userdata, error, kind, bytes, flags })
        };
        let happened: Result<Vec<Event>, Errno> = memory.u32(told).and_then(|told| (0..told).map(read).collect());
        happened.map_err(|errno| wasmtime::format_err!("Wasmtime's poll_oneoff told what cannot be read: {errno:?}"))
    }
}

fn tell(mut memory: Memory<'_>, happened: &[Event], events: Pointer, told: Pointer) -> Result<(), Errno> {
    memory.bytes(told, 4)?;
    for (index, event) in (0..).zip(happened) {
        let at = offset(events, index * EVENT)?;
        let mut bytes = [0; EVENT as usize];
        bytes[..8].copy_from_slice(&event.userdata.to_le_bytes());
        bytes[8..10].copy_from_slice(&event.error.0.to_le_bytes());
        bytes[10] = event.kind;
        bytes[16..24].copy_from_slice(&event.bytes.to_le_bytes());
        bytes[24..26].copy_from_slice(&event.flags.to_le_bytes());
        memory.put(at, &bytes)?;
    }
    memory.put_u32(told, happened.len() as u32)
}
