//! The agent: process 1 of the container that gives a Wasm instance its place on the compose networks.
//!
//! It makes sockets in its network namespace and opens the container's volumes, and passes the descriptors to the
//! supervisor over one Unix socket; it copies no byte of traffic. Where no Unix socket can be mounted, it does the socket
//! work itself, as the supervisor says over the streams of an `exec` (`carry`). It decides nothing: which socket, which
//! exit code and whether the service is healthy, the supervisor says. The frames are described in `wire.rs` and
//! `mux/frame.rs` in the folder above.
//!
//! This folder is a program of its own, compiled by `build.rs`: no libc, no standard library, no allocation, so that a
//! container costs a few pages and the build needs no further target. Laws it keeps: everything is bounded, a malformed
//! frame is ignored, and whatever ends the connection ends the process.

#![no_std]
#![no_main]
#![no_builtins]

mod address;
mod carry;
mod channel;
mod control;
mod door;
mod pipes;
mod sys;
mod table;

use core::arch::global_asm;
use core::ffi::{CStr, c_char};

use control::{Control, FRAME, Frame, Signals, connect, open};
use sys::{CLOEXEC, DIRECTORY, EAGAIN, EINTR, MISUSED, NONBLOCK, Poll, call, close, exit};

/// Version of the frames; `wire.rs` holds the same.
const VERSION: u8 = 1;
/// Most volumes an instance may have.
const VOLUMES: usize = 128;

/// Exit code when the supervisor is not there any more: as if killed with it.
const GONE: u8 = 137;
/// Exit code when the supervisor was not reached at all; `agent.rs` of the supervisor holds the same.
const UNREACHED: u8 = 98;

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor %ebp, %ebp",
    "mov %rsp, %rdi",
    "and $-16, %rsp",
    "call agent_main",
    options(att_syntax)
);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, #0", "mov x30, #0", "mov x0, sp", "bl agent_main");

/// Reads what the kernel put on the stack (argument count, arguments, environment), and goes to work.
#[unsafe(no_mangle)]
extern "C" fn agent_main(stack: *const usize) -> ! {
    // SAFETY: `stack` is the initial stack pointer: the argument count, that many pointers and a null, then the
    // environment's pointers and a null. All stay valid for the life of the process.
    let (mode, environment) = unsafe {
        let count = *stack;
        let arguments = stack.add(1).cast::<*const c_char>();
        let mode = if count > 1 { CStr::from_ptr(*arguments.add(1)).to_bytes() } else { b"".as_slice() };
        (mode, Environment(arguments.add(count + 1)))
    };
    let Some(token) = environment.get(b"WCOMPOSE_TOKEN") else { exit(MISUSED) };
    match mode {
        b"health" => health(token),
        b"lend" => door::lend(token),
        b"await" => carry::carry(token),
        _ => serve(token, environment.get(b"WCOMPOSE_VOLUMES").unwrap_or(b"")),
    }
}

/// The environment's `NAME=value` strings, ended by a null pointer.
#[derive(Clone, Copy)]
struct Environment(*const *const c_char);

impl Environment {
    /// The value of a variable.
    fn get(self, name: &[u8]) -> Option<&'static [u8]> {
        let mut at = self.0;
        loop {
            // SAFETY: `at` walks the kernel's list and stops at its null; each entry is a string that lives as long as we do.
            let entry = unsafe {
                if (*at).is_null() {
                    return None;
                }
                CStr::from_ptr(*at).to_bytes()
            };
            if let Some(rest) = entry.strip_prefix(name)
                && let Some(value) = rest.strip_prefix(b"=")
            {
                return Some(value);
            }
            // SAFETY: the entry was not the null that ends the list, so another follows.
            at = unsafe { at.add(1) };
        }
    }
}

/// `agent health`, run by the engine as the container's health check: asks the supervisor.
fn health(token: &[u8]) -> ! {
    let Some(control) = connect() else { exit(1) };
    let mut frame = Frame::new(b'Q');
    frame.put(token);
    let mut answer = [0; 2];
    if control.send(frame.bytes(), &[]) && control.receive(&mut answer) == 2 && answer == [b'A', 1] {
        exit(0)
    }
    exit(1)
}

/// The first frame to a supervisor.
fn hello(token: &[u8]) -> Frame {
    let mut hello = Frame::new(b'H');
    hello.put(&[VERSION, token.len().min(255) as u8]);
    hello.put(token);
    hello.fill(b"/etc/resolv.conf");
    hello
}

/// Process 1: says hello, then does what it is told until the connection ends.
fn serve(token: &[u8], volumes: &'static [u8]) -> ! {
    // Blocked before anything else: a signal that comes early waits in the descriptor and is reported later.
    let signals = Signals::open();
    let Some(control) = connect() else { exit(UNREACHED) };
    if !control.send(hello(token).bytes(), &[1, 2]) {
        exit(UNREACHED)
    }
    let mut welcomed = false;
    let mut buffer = [0; FRAME];
    loop {
        let mut waiting = [Poll::readable(control.0), Poll::readable(signals.0)];
        if sys::poll(&mut waiting, None) < 0 {
            continue;
        }
        if waiting[1].happened != 0
            && let Some(signal) = signals.next()
        {
            control.send(&[b'T', signal], &[]);
        }
        if waiting[0].happened != 0 {
            match control.receive(&mut buffer) {
                EAGAIN | EINTR => {}
                // Whoever listens there lets us in or closes: it may be another machine's supervisor, and not ours.
                length if length <= 0 => exit(if welcomed { GONE } else { UNREACHED }),
                length => {
                    welcomed = true;
                    obey(control, &buffer[..length as usize], volumes);
                }
            }
        }
    }
}

/// Carries out one request. A frame it does not know, or of another length, is ignored.
fn obey(control: Control, frame: &[u8], volumes: &'static [u8]) {
    match *frame {
        // Welcome: whom empty volumes belong to.
        [b'W', VERSION, u0, u1, u2, u3, g0, g1, g2, g3] => {
            let user = u32::from_le_bytes([u0, u1, u2, u3]);
            let group = u32::from_le_bytes([g0, g1, g2, g3]);
            hand_over(control, volumes, user, group);
        }
        // Socket: number of the request, family, type.
        [b'S', n0, n1, n2, n3, family, kind] => {
            let family = if family == 6 { 10 } else { 2 };
            let kind = if kind == 2 { 2 } else { 1 };
            let made = call(sys::SOCKET, [family, kind | CLOEXEC | NONBLOCK, 0, 0, 0]);
            answer(control, &[b'S', n0, n1, n2, n3], made);
        }
        [b'X', code] => exit(code),
        _ => {}
    }
}

/// Opens every volume, gives the empty ones to the supervisor's user, passes them all, and says that it is ready.
fn hand_over(control: Control, volumes: &'static [u8], user: u32, group: u32) {
    let targets = volumes.split(|byte| *byte == b':').filter(|target| !target.is_empty());
    for (number, target) in targets.take(VOLUMES).enumerate() {
        let opened = open(target, DIRECTORY);
        if opened >= 0 && is_empty(opened as usize) {
            // A read-only or foreign file system refuses; the guest then meets its own error when it writes.
            call(sys::FCHOWN, [opened as usize, user as usize, group as usize, 0, 0]);
        }
        answer(control, &[b'V', number as u8], opened);
    }
    control.send(b"R", &[]);
}

/// Sends `head`, the error number of `made` (0: none) and, where there is none, the descriptor `made`; closes our copy.
fn answer(control: Control, head: &[u8], made: isize) {
    let mut frame = Frame::new(head[0]);
    frame.put(&head[1..]);
    let failed = if made < 0 { -made as i32 } else { 0 };
    frame.put(&failed.to_le_bytes());
    if made < 0 {
        control.send(frame.bytes(), &[]);
    } else {
        control.send(frame.bytes(), &[made as i32]);
        close(made as usize);
    }
}

/// Whether a directory has no entry but `.` and `..` (and `lost+found`, which a fresh file system has). Not known is not empty.
fn is_empty(directory: usize) -> bool {
    let mut buffer = [0u8; 1024];
    let length = call(sys::GETDENTS64, [directory, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0]);
    if length < 0 {
        return false;
    }
    let mut entries = &buffer[..length as usize];
    // An entry: inode (8 bytes), offset (8), length of the record (2), type (1), name, zero.
    while entries.len() > 19 {
        let size = u16::from_ne_bytes([entries[16], entries[17]]) as usize;
        if size < 20 || size > entries.len() {
            return false;
        }
        match entries[19..size].split(|byte| *byte == 0).next() {
            Some(b"." | b".." | b"lost+found") => entries = &entries[size..],
            _ => return false,
        }
    }
    true
}
