//! The agent: process 1 of the container that gives a Wasm instance its place on the compose networks.
//!
//! It makes sockets in its network namespace and opens the container's volumes, and passes the descriptors to the
//! supervisor over one Unix socket; it copies no byte of traffic. It decides nothing: which socket, which exit code and
//! whether the service is healthy, the supervisor says. The frames are described in `wire.rs` beside this file.
//!
//! This file is a program of its own, compiled by `build.rs`: no libc, no standard library, no allocation, so that a
//! container costs a few pages and the build needs no further target. Laws it keeps: everything is bounded, a malformed
//! frame is ignored, and whatever ends the connection ends the process.

#![no_std]
#![no_main]
#![no_builtins]

use core::arch::{asm, global_asm};
use core::ffi::{CStr, c_char};

/// Version of the frames; `wire.rs` holds the same.
const VERSION: u8 = 1;
/// Where the supervisor listens.
const SOCKET: &[u8] = b"/run/wcompose/s";
/// Longest frame either side sends.
const FRAME: usize = 8192;
/// Most volumes an instance may have.
const VOLUMES: usize = 128;
/// Longest path of a volume.
const PATH: usize = 4096;

/// Exit code when the supervisor is not there, or not any more: as if killed with it.
const GONE: u8 = 137;
/// Exit code of a start without the environment the supervisor gives, and of a panic.
const MISUSED: u8 = 125;

const EINTR: isize = -4;
const EAGAIN: isize = -11;

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

/// Process 1: says hello, then does what it is told until the connection ends.
fn serve(token: &[u8], volumes: &'static [u8]) -> ! {
    // Blocked before anything else: a signal that comes early waits in the descriptor and is reported later.
    let signals = Signals::open();
    let Some(control) = connect() else { exit(GONE) };
    let mut hello = Frame::new(b'H');
    hello.put(&[VERSION, token.len().min(255) as u8]);
    hello.put(token);
    hello.fill(b"/etc/resolv.conf");
    if !control.send(hello.bytes(), &[1, 2]) {
        exit(GONE)
    }
    let mut buffer = [0; FRAME];
    loop {
        let mut waiting = [Poll::readable(control.0), Poll::readable(signals.0)];
        if call(sys::PPOLL, [waiting.as_mut_ptr() as usize, waiting.len(), 0, 0, 0]) < 0 {
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
                length if length <= 0 => exit(GONE),
                length => obey(control, &buffer[..length as usize], volumes),
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
        call(sys::CLOSE, [made as usize, 0, 0, 0, 0]);
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

/// Opens a path for reading. The descriptor, or the negative error number.
fn open(path: &[u8], flags: usize) -> isize {
    let mut terminated = [0u8; PATH];
    if path.len() >= PATH {
        return -36;
    }
    terminated[..path.len()].copy_from_slice(path);
    const HERE: isize = -100;
    call(sys::OPENAT, [HERE as usize, terminated.as_ptr() as usize, flags | CLOEXEC, 0, 0])
}

/// A frame that is being written: its first byte says what it is.
struct Frame {
    bytes: [u8; FRAME],
    length: usize,
}

impl Frame {
    fn new(kind: u8) -> Self {
        let mut bytes = [0; FRAME];
        bytes[0] = kind;
        Self { bytes, length: 1 }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Appends what fits.
    fn put(&mut self, bytes: &[u8]) {
        let fits = bytes.len().min(FRAME - self.length);
        self.bytes[self.length..self.length + fits].copy_from_slice(&bytes[..fits]);
        self.length += fits;
    }

    /// Appends what fits of a file; nothing where it cannot be read.
    fn fill(&mut self, path: &[u8]) {
        let file = open(path, 0);
        if file < 0 {
            return;
        }
        let rest = &mut self.bytes[self.length..];
        let read = call(sys::READ, [file as usize, rest.as_mut_ptr() as usize, rest.len(), 0, 0]);
        if read > 0 {
            self.length += read as usize;
        }
        call(sys::CLOSE, [file as usize, 0, 0, 0, 0]);
    }
}

/// The socket to the supervisor: sequenced packets, one frame each.
#[derive(Clone, Copy)]
struct Control(usize);

fn connect() -> Option<Control> {
    #[repr(C)]
    struct Address {
        family: u16,
        path: [u8; 108],
    }
    const UNIX: usize = 1;
    const SEQPACKET: usize = 5;
    let made = call(sys::SOCKET, [UNIX, SEQPACKET | CLOEXEC, 0, 0, 0]);
    let mut address = Address { family: UNIX as u16, path: [0; 108] };
    address.path[..SOCKET.len()].copy_from_slice(SOCKET);
    let place = &raw const address as usize;
    if made < 0 || call(sys::CONNECT, [made as usize, place, size_of::<Address>(), 0, 0]) != 0 {
        return None;
    }
    Some(Control(made as usize))
}

#[repr(C)]
struct Vector {
    start: *const u8,
    length: usize,
}

/// `struct msghdr`.
#[repr(C)]
struct Message {
    name: usize,
    name_length: u32,
    vectors: *const Vector,
    vector_count: usize,
    control: *const Rights,
    control_length: usize,
    flags: i32,
}

/// `struct cmsghdr` with up to two descriptors behind it.
#[repr(C, align(8))]
struct Rights {
    length: usize,
    level: i32,
    kind: i32,
    descriptors: [i32; 2],
}

impl Control {
    /// Sends a frame with up to two descriptors. `false` where the other end is gone.
    fn send(self, frame: &[u8], descriptors: &[i32]) -> bool {
        const SOL_SOCKET: i32 = 1;
        const SCM_RIGHTS: i32 = 1;
        const MSG_NOSIGNAL: usize = 0x4000;
        let head = size_of::<usize>() + 8;
        let mut rights =
            Rights { length: head + 4 * descriptors.len(), level: SOL_SOCKET, kind: SCM_RIGHTS, descriptors: [0; 2] };
        rights.descriptors[..descriptors.len()].copy_from_slice(descriptors);
        let vector = Vector { start: frame.as_ptr(), length: frame.len() };
        let message = Message {
            name: 0,
            name_length: 0,
            vectors: &vector,
            vector_count: 1,
            control: &rights,
            control_length: if descriptors.is_empty() { 0 } else { size_of::<Rights>() },
            flags: 0,
        };
        loop {
            match call(sys::SENDMSG, [self.0, &raw const message as usize, MSG_NOSIGNAL, 0, 0]) {
                EINTR => {}
                sent => return sent >= 0,
            }
        }
    }

    /// The next frame: its length, 0 at the end, a negative error number.
    fn receive(self, buffer: &mut [u8]) -> isize {
        call(sys::READ, [self.0, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0])
    }
}

/// A descriptor that tells the signals by which a container is asked to end. Process 1 gets no default for them.
struct Signals(usize);

impl Signals {
    fn open() -> Self {
        const SIG_BLOCK: usize = 0;
        const SIZE: usize = 8;
        // HUP, INT, QUIT, TERM: bit n - 1 stands for signal n.
        let mask: u64 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14;
        let place = &raw const mask as usize;
        call(sys::RT_SIGPROCMASK, [SIG_BLOCK, place, 0, SIZE, 0]);
        let made = call(sys::SIGNALFD4, [usize::MAX, place, SIZE, CLOEXEC | NONBLOCK, 0]);
        if made < 0 {
            exit(MISUSED)
        }
        Self(made as usize)
    }

    /// The number of the next one.
    fn next(&self) -> Option<u8> {
        let mut told = [0u8; 128];
        let read = call(sys::READ, [self.0, told.as_mut_ptr() as usize, told.len(), 0, 0]);
        (read == 128).then_some(told[0])
    }
}

/// `struct pollfd`.
#[repr(C)]
struct Poll {
    descriptor: i32,
    wanted: i16,
    happened: i16,
}

impl Poll {
    fn readable(descriptor: usize) -> Self {
        Self { descriptor: descriptor as i32, wanted: 1, happened: 0 }
    }
}

const CLOEXEC: usize = 0o2_000_000;
const NONBLOCK: usize = 0o4_000;

#[cfg(target_arch = "x86_64")]
const DIRECTORY: usize = 0o200_000;
#[cfg(target_arch = "aarch64")]
const DIRECTORY: usize = 0o40_000;

#[cfg(target_arch = "x86_64")]
mod sys {
    pub const READ: usize = 0;
    pub const CLOSE: usize = 3;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const SOCKET: usize = 41;
    pub const CONNECT: usize = 42;
    pub const SENDMSG: usize = 46;
    pub const FCHOWN: usize = 93;
    pub const GETDENTS64: usize = 217;
    pub const EXIT_GROUP: usize = 231;
    pub const OPENAT: usize = 257;
    pub const PPOLL: usize = 271;
    pub const SIGNALFD4: usize = 289;
}

#[cfg(target_arch = "aarch64")]
mod sys {
    pub const FCHOWN: usize = 55;
    pub const OPENAT: usize = 56;
    pub const CLOSE: usize = 57;
    pub const GETDENTS64: usize = 61;
    pub const READ: usize = 63;
    pub const PPOLL: usize = 73;
    pub const SIGNALFD4: usize = 74;
    pub const EXIT_GROUP: usize = 94;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const SOCKET: usize = 198;
    pub const CONNECT: usize = 203;
    pub const SENDMSG: usize = 211;
}

/// A system call of up to five arguments: its result, or a negative error number.
fn call(number: usize, arguments: [usize; 5]) -> isize {
    let [a, b, c, d, e] = arguments;
    let result: isize;
    // SAFETY: every caller passes what the call of that number takes; pointers are to live values of at least the length
    // given with them, and the memory is treated as clobbered.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "syscall", inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") 0usize,
            lateout("rcx") _, lateout("r11") _, options(nostack)
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "svc 0", in("x8") number, inlateout("x0") a as isize => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") 0usize, options(nostack)
        );
    }
    result
}

fn exit(code: u8) -> ! {
    loop {
        call(sys::EXIT_GROUP, [code as usize, 0, 0, 0, 0]);
    }
}

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(MISUSED)
}

/// # Safety
/// As in C: both ranges are valid for `length` bytes and do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    for at in 0..length {
        // SAFETY: `at` is below the length both ranges are valid for.
        unsafe { *to.add(at) = *from.add(at) };
    }
    to
}

/// # Safety
/// As in C: both ranges are valid for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    if to.cast_const() <= from {
        // SAFETY: copied upwards, no byte is overwritten before it was read.
        return unsafe { memcpy(to, from, length) };
    }
    for at in (0..length).rev() {
        // SAFETY: `at` is below the length both ranges are valid for; copied downwards.
        unsafe { *to.add(at) = *from.add(at) };
    }
    to
}

/// # Safety
/// As in C: the range is valid for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, length: usize) -> *mut u8 {
    for at in 0..length {
        // SAFETY: `at` is below the length the range is valid for.
        unsafe { *to.add(at) = value as u8 };
    }
    to
}

/// # Safety
/// As in C: both ranges are valid for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    for at in 0..length {
        // SAFETY: `at` is below the length both ranges are valid for.
        let (left, right) = unsafe { (*left.add(at), *right.add(at)) };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}

/// # Safety
/// As in C: both ranges are valid for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(left, right, length) }
}

/// # Safety
/// As in C: a string that ends in zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: no byte behind the zero is read.
    while unsafe { *text.add(length) } != 0 {
        length += 1;
    }
    length
}
