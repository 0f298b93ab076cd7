//! One frame each way: the packets between agent and supervisor, or between the parts of an agent, and what else is read.

use crate::sys::{self, CLOEXEC, EINTR, MISUSED, NONBLOCK, call, close, exit};

/// Where the supervisor listens; where it cannot, process 1 itself.
const SOCKET: &[u8] = b"/run/wcompose/s";
/// Longest frame either side sends.
pub const FRAME: usize = 8192;
/// Longest path of a volume.
const PATH: usize = 4096;

/// Opens a path for reading. The descriptor, or the negative error number.
pub fn open(path: &[u8], flags: usize) -> isize {
    let mut terminated = [0u8; PATH];
    if path.len() >= PATH {
        return -36;
    }
    terminated[..path.len()].copy_from_slice(path);
    const HERE: isize = -100;
    call(sys::OPENAT, [HERE as usize, terminated.as_ptr() as usize, flags | CLOEXEC, 0, 0])
}

/// A frame that is being written: its first byte says what it is.
pub struct Frame {
    bytes: [u8; FRAME],
    length: usize,
}

impl Frame {
    pub fn new(kind: u8) -> Self {
        let mut bytes = [0; FRAME];
        bytes[0] = kind;
        Self { bytes, length: 1 }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Appends what fits.
    pub fn put(&mut self, bytes: &[u8]) {
        let fits = bytes.len().min(FRAME - self.length);
        self.bytes[self.length..self.length + fits].copy_from_slice(&bytes[..fits]);
        self.length += fits;
    }

    /// Appends what fits of a file; nothing where it cannot be read.
    pub fn fill(&mut self, path: &[u8]) {
        let file = open(path, 0);
        if file < 0 {
            return;
        }
        let rest = &mut self.bytes[self.length..];
        let read = call(sys::READ, [file as usize, rest.as_mut_ptr() as usize, rest.len(), 0, 0]);
        if read > 0 {
            self.length += read as usize;
        }
        close(file as usize);
    }
}

/// The socket to the supervisor: sequenced packets, one frame each.
#[derive(Clone, Copy)]
pub struct Control(pub usize);

/// `struct sockaddr_un`.
#[repr(C)]
struct Address {
    family: u16,
    path: [u8; 108],
}

const UNIX: usize = 1;
const SEQPACKET: usize = 5;

impl Address {
    fn new() -> Self {
        let mut address = Self { family: UNIX as u16, path: [0; 108] };
        address.path[..SOCKET.len()].copy_from_slice(SOCKET);
        address
    }
}

/// Connects to who listens at the socket.
pub fn connect() -> Option<Control> {
    let made = call(sys::SOCKET, [UNIX, SEQPACKET | CLOEXEC, 0]);
    let address = Address::new();
    let place = &raw const address as usize;
    if made < 0 {
        return None;
    }
    if call(sys::CONNECT, [made as usize, place, size_of::<Address>()]) != 0 {
        close(made as usize);
        return None;
    }
    Some(Control(made as usize))
}

/// Listens at the socket.
pub fn listen() -> Option<usize> {
    const WAITING: usize = 16;
    let made = call(sys::SOCKET, [UNIX, SEQPACKET | CLOEXEC | NONBLOCK, 0]);
    let address = Address::new();
    let place = &raw const address as usize;
    let bound = made >= 0
        && call(sys::BIND, [made as usize, place, size_of::<Address>()]) == 0
        && call(sys::LISTEN, [made as usize, WAITING]) == 0;
    bound.then_some(made as usize)
}

#[repr(C)]
struct Vector {
    start: *mut u8,
    length: usize,
}

/// `struct msghdr`.
#[repr(C)]
struct Message {
    name: usize,
    name_length: u32,
    vectors: *const Vector,
    vector_count: usize,
    control: *mut Rights,
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

const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;

impl Control {
    /// Sends a frame with up to two descriptors. `false` where the other end is gone.
    pub fn send(self, frame: &[u8], descriptors: &[i32]) -> bool {
        const MSG_NOSIGNAL: usize = 0x4000;
        let head = size_of::<usize>() + 8;
        let mut rights =
            Rights { length: head + 4 * descriptors.len(), level: SOL_SOCKET, kind: SCM_RIGHTS, descriptors: [0; 2] };
        rights.descriptors[..descriptors.len()].copy_from_slice(descriptors);
        let vector = Vector { start: frame.as_ptr().cast_mut(), length: frame.len() };
        let message = Message {
            name: 0,
            name_length: 0,
            vectors: &raw const vector,
            vector_count: 1,
            control: &raw mut rights,
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
    pub fn receive(self, buffer: &mut [u8]) -> isize {
        call(sys::READ, [self.0, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0])
    }

    /// The next frame with the two descriptors that came along, if any did: its length, 0 at the end, a negative error number.
    pub fn receive_with(self, buffer: &mut [u8]) -> (isize, Option<[usize; 2]>) {
        let mut rights = Rights { length: 0, level: 0, kind: 0, descriptors: [0; 2] };
        let vector = Vector { start: buffer.as_mut_ptr(), length: buffer.len() };
        let mut message = Message {
            name: 0,
            name_length: 0,
            vectors: &raw const vector,
            vector_count: 1,
            control: &raw mut rights,
            control_length: size_of::<Rights>(),
            flags: 0,
        };
        let length = call(sys::RECVMSG, [self.0, &raw mut message as usize, CLOEXEC_RECEIVED]);
        let both =
            rights.length == size_of::<usize>() + 8 + 8 && rights.level == SOL_SOCKET && rights.kind == SCM_RIGHTS;
        let [first, second] = rights.descriptors;
        (length, both.then_some([first as usize, second as usize]))
    }
}

/// `MSG_CMSG_CLOEXEC`.
const CLOEXEC_RECEIVED: usize = 0x4000_0000;

/// A descriptor that tells the signals by which a container is asked to end. Process 1 gets no default for them.
#[derive(Clone, Copy)]
pub struct Signals(pub usize);

impl Signals {
    pub fn open() -> Self {
        const SIG_BLOCK: usize = 0;
        const SIZE: usize = 8;
        // HUP, INT, QUIT, TERM: bit n - 1 stands for signal n.
        let mask: u64 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14;
        // PIPE as well: a write to who is gone is to fail, and to do nothing else.
        let blocked = mask | 1 << 12;
        call(sys::RT_SIGPROCMASK, [SIG_BLOCK, &raw const blocked as usize, 0, SIZE]);
        let place = &raw const mask as usize;
        let made = call(sys::SIGNALFD4, [usize::MAX, place, SIZE, CLOEXEC | NONBLOCK]);
        if made < 0 {
            exit(MISUSED)
        }
        Self(made as usize)
    }

    /// The number of the next one.
    pub fn next(&self) -> Option<u8> {
        let mut told = [0u8; 128];
        let read = call(sys::READ, [self.0, told.as_mut_ptr() as usize, told.len(), 0, 0]);
        (read == 128).then_some(told[0])
    }
}
