//! System calls, and the few functions the compiler expects a C library to have.

use core::arch::asm;
use core::ptr::null_mut;

/// Exit code of a start without the environment the supervisor gives, and of a panic.
pub const MISUSED: u8 = 125;

pub const EINTR: isize = -4;
pub const EAGAIN: isize = -11;

pub const CLOEXEC: usize = 0o2_000_000;
pub const NONBLOCK: usize = 0o4_000;

#[cfg(target_arch = "x86_64")]
pub const DIRECTORY: usize = 0o200_000;
#[cfg(target_arch = "aarch64")]
pub const DIRECTORY: usize = 0o40_000;

#[cfg(target_arch = "x86_64")]
mod numbers {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const MMAP: usize = 9;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const MADVISE: usize = 28;
    pub const SOCKET: usize = 41;
    pub const CONNECT: usize = 42;
    pub const SENDTO: usize = 44;
    pub const RECVFROM: usize = 45;
    pub const SENDMSG: usize = 46;
    pub const RECVMSG: usize = 47;
    pub const SHUTDOWN: usize = 48;
    pub const BIND: usize = 49;
    pub const LISTEN: usize = 50;
    pub const GETSOCKNAME: usize = 51;
    pub const GETPEERNAME: usize = 52;
    pub const SETSOCKOPT: usize = 54;
    pub const GETSOCKOPT: usize = 55;
    pub const FCNTL: usize = 72;
    pub const FCHOWN: usize = 93;
    pub const GETDENTS64: usize = 217;
    pub const CLOCK_GETTIME: usize = 228;
    pub const EXIT_GROUP: usize = 231;
    pub const EPOLL_CTL: usize = 233;
    pub const OPENAT: usize = 257;
    pub const PPOLL: usize = 271;
    pub const EPOLL_PWAIT: usize = 281;
    pub const ACCEPT4: usize = 288;
    pub const SIGNALFD4: usize = 289;
    pub const EPOLL_CREATE1: usize = 291;
}

#[cfg(target_arch = "aarch64")]
mod numbers {
    pub const EPOLL_CREATE1: usize = 20;
    pub const EPOLL_CTL: usize = 21;
    pub const EPOLL_PWAIT: usize = 22;
    pub const FCNTL: usize = 25;
    pub const FCHOWN: usize = 55;
    pub const OPENAT: usize = 56;
    pub const CLOSE: usize = 57;
    pub const GETDENTS64: usize = 61;
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const PPOLL: usize = 73;
    pub const SIGNALFD4: usize = 74;
    pub const EXIT_GROUP: usize = 94;
    pub const CLOCK_GETTIME: usize = 113;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const SOCKET: usize = 198;
    pub const BIND: usize = 200;
    pub const LISTEN: usize = 201;
    pub const CONNECT: usize = 203;
    pub const GETSOCKNAME: usize = 204;
    pub const GETPEERNAME: usize = 205;
    pub const SENDTO: usize = 206;
    pub const RECVFROM: usize = 207;
    pub const SETSOCKOPT: usize = 208;
    pub const GETSOCKOPT: usize = 209;
    pub const SHUTDOWN: usize = 210;
    pub const SENDMSG: usize = 211;
    pub const RECVMSG: usize = 212;
    pub const MMAP: usize = 222;
    pub const MADVISE: usize = 233;
    pub const ACCEPT4: usize = 242;
}

pub use numbers::*;

/// A system call of up to six arguments: its result, or a negative error number.
pub fn call<const N: usize>(number: usize, arguments: [usize; N]) -> isize {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&arguments);
    let [a, b, c, d, e, f] = all;
    let result: isize;
    // SAFETY: every caller passes what the call of that number takes; pointers are to live values of at least the length
    // given with them, and the memory is treated as clobbered.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "syscall", inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _, options(nostack)
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "svc 0", in("x8") number, inlateout("x0") a as isize => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f, options(nostack)
        );
    }
    result
}

pub fn close(descriptor: usize) {
    call(CLOSE, [descriptor]);
}

/// Whole seconds since the machine started.
pub fn clock() -> u64 {
    const MONOTONIC: usize = 1;
    let mut time = [0u64; 2];
    call(CLOCK_GETTIME, [MONOTONIC, time.as_mut_ptr() as usize]);
    time[0]
}

/// Zeroed memory, whose pages cost nothing until they are touched. Null where there is none.
pub fn reserve(length: usize) -> *mut u8 {
    const READ_WRITE: usize = 1 | 2;
    const PRIVATE_ANONYMOUS_NORESERVE: usize = 0x02 | 0x20 | 0x4000;
    let mapped = call(MMAP, [0, length, READ_WRITE, PRIVATE_ANONYMOUS_NORESERVE, usize::MAX, 0]);
    if mapped < 0 { null_mut() } else { mapped as *mut u8 }
}

/// `struct pollfd`.
#[repr(C)]
pub struct Poll {
    descriptor: i32,
    wanted: i16,
    pub happened: i16,
}

impl Poll {
    pub fn readable(descriptor: usize) -> Self {
        Self { descriptor: descriptor as i32, wanted: 1, happened: 0 }
    }

    pub fn writable(descriptor: usize) -> Self {
        Self { descriptor: descriptor as i32, wanted: 4, happened: 0 }
    }
}

/// Waits until one of them is ready, for so many seconds or, without a number, for ever: how many are; 0 when the time is up.
pub fn poll(waiting: &mut [Poll], seconds: Option<u64>) -> isize {
    let time = [seconds.unwrap_or(0), 0];
    let limit = if seconds.is_some() { time.as_ptr() as usize } else { 0 };
    call(PPOLL, [waiting.as_mut_ptr() as usize, waiting.len(), limit, 0, 0])
}

pub fn exit(code: u8) -> ! {
    loop {
        call(EXIT_GROUP, [code as usize]);
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
    // SAFETY: both ranges are valid for the length; the direction flag is clear, as the calling convention has it.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "rep movsb", inout("rcx") length => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
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
