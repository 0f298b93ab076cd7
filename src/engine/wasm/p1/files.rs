//! The functions of preview 1 that take any descriptor: on a socket they are answered here, on all else by Wasmtime.

use wasmtime::{AsContextMut, Caller, Linker};
use wasmtime_wasi::p1::wasi_snapshot_preview1 as wasmtime_p1;
use wasmtime_wasi::p1::wasi_snapshot_preview1::WasiSnapshotPreview1 as _;
use wiggle::GuestMemory;

use super::calls::{NONBLOCK, drain, fill};
use super::errno::{Errno, answer};
use super::memory::{Memory, Pointer, offset};
use super::socket::Socket;
use super::table::Sockets;
use super::{MODULE, guest};
use crate::engine::wasm::host::CoreState;

/// `FILETYPE_SOCKET_STREAM`, which WasmEdge says of every socket.
const SOCKET_STREAM: u8 = 6;

/// What may be done with a socket (`rights`): read, set flags, write, poll, and everything that begins with `sock_`. The
/// C library tells from reading and writing how a descriptor was opened.
const RIGHTS: u64 = 1 << 1 | 1 << 3 | 1 << 6 | 1 << 27 | 0xff << 28;

/// Defines a function that asks `socket` where the descriptor is one of a socket, and Wasmtime otherwise.
macro_rules! shared {
    ($linker:ident, $name:ident, ($fd:ident $(, $parameter:ident: $type:ty)*), |$memory:ident, $sockets:ident| $body:expr) => {
        $linker.func_wrap_async(
            MODULE,
            stringify!($name),
            |mut caller: Caller<'_, CoreState>, ($fd, $($parameter,)*): (u32, $($type,)*)| {
                Box::new(async move {
                    let fuel = caller.as_context_mut().hostcall_fuel();
                    let (memory, state) = guest(&mut caller)?;
                    if !Sockets::owns($fd) {
                        state.wasi.set_hostcall_fuel(fuel);
                        let mut memory = GuestMemory::Unshared(memory.0);
                        return shared!(@wasmtime $name, state, memory, $fd, ($($parameter: $type),*));
                    }
                    let ($memory, $sockets) = (memory, &mut state.sockets);
                    let result: Result<(), Errno> = $body;
                    Ok(answer(result))
                })
            },
        )?;
    };
    (@wasmtime fd_fdstat_set_flags, $state:ident, $memory:ident, $fd:ident, ($flags:ident: $type:ty)) => {
        wasmtime_p1::fd_fdstat_set_flags(&mut $state.wasi, &mut $memory, $fd as i32, $flags as i32)
    };
    (@wasmtime fd_tell, $state:ident, $memory:ident, $fd:ident, ($out:ident: $type:ty)) => {
        wasmtime_p1::fd_tell(&mut $state.wasi, &mut $memory, $fd as i32, $out as i32)
    };
    (@wasmtime fd_seek, $state:ident, $memory:ident, $fd:ident, ($by:ident: $b:ty, $from:ident: $f:ty, $out:ident: $o:ty)) => {
        wasmtime_p1::fd_seek(&mut $state.wasi, &mut $memory, $fd as i32, $by, $from as i32, $out as i32).await
    };
    (@wasmtime $name:ident, $state:ident, $memory:ident, $fd:ident, ($($parameter:ident: $type:ty),*)) => {
        wasmtime_p1::$name(&mut $state.wasi, &mut $memory, $fd as i32, $($parameter as i32),*).await
    };
}

/// Puts these functions in the place of Wasmtime's.
pub(super) fn add_to_linker(linker: &mut Linker<CoreState>) -> wasmtime::Result<()> {
    shared!(linker, fd_read, (fd, data: u32, count: u32, length: u32), |memory, sockets| {
        read(memory, sockets, fd, data, count, length).await
    });
    shared!(linker, fd_write, (fd, data: u32, count: u32, length: u32), |memory, sockets| {
        write(memory, sockets, fd, data, count, length).await
    });
    shared!(linker, fd_close, (fd), |_memory, sockets| sockets.close(fd));
    shared!(linker, fd_renumber, (fd, to: u32), |_memory, sockets| sockets.renumber(fd, to));
    shared!(linker, fd_fdstat_get, (fd, out: u32), |memory, sockets| {
        sockets.get(fd).and_then(|socket| tell_state(memory, socket, out))
    });
    shared!(linker, fd_fdstat_set_flags, (fd, flags: u32), |_memory, sockets| {
        sockets.get(fd).map(|socket| socket.nonblocking = flags & NONBLOCK != 0)
    });
    shared!(linker, fd_filestat_get, (fd, out: u32), |memory, sockets| {
        sockets.get(fd).and_then(|_| tell_file(memory, out))
    });
    shared!(linker, fd_seek, (fd, by: i64, from: u32, out: u32), |_memory, sockets| {
        let _ = (by, from, out);
        sockets.get(fd).and(Err(Errno::SPIPE))
    });
    shared!(linker, fd_tell, (fd, out: u32), |_memory, sockets| {
        let _ = out;
        sockets.get(fd).and(Err(Errno::SPIPE))
    });
    Ok(())
}

async fn read(
    mut memory: Memory<'_>,
    sockets: &mut Sockets,
    fd: u32,
    data: Pointer,
    count: u32,
    length: Pointer,
) -> Result<(), Errno> {
    memory.bytes(length, 4)?;
    let vectors = memory.vectors(data, count)?;
    let filled = fill(&mut memory, sockets.get(fd)?, &vectors, 0).await?;
    memory.put_u32(length, filled.length)
}

async fn write(
    mut memory: Memory<'_>,
    sockets: &mut Sockets,
    fd: u32,
    data: Pointer,
    count: u32,
    length: Pointer,
) -> Result<(), Errno> {
    memory.bytes(length, 4)?;
    let vectors = memory.vectors(data, count)?;
    let sent = drain(&memory, sockets.get(fd)?, &vectors, None).await?;
    memory.put_u32(length, sent)
}

/// `fdstat`: file type at 0, flags at 2, rights at 8 and 16.
fn tell_state(mut memory: Memory<'_>, socket: &Socket, out: Pointer) -> Result<(), Errno> {
    let mut state = [0; 24];
    state[0] = SOCKET_STREAM;
    state[2] = if socket.nonblocking { NONBLOCK as u8 } else { 0 };
    state[8..16].copy_from_slice(&RIGHTS.to_le_bytes());
    state[16..].copy_from_slice(&RIGHTS.to_le_bytes());
    memory.put(out, &state)
}

/// `filestat`: 64 bytes, the file type at 16; a socket has nothing else.
fn tell_file(mut memory: Memory<'_>, out: Pointer) -> Result<(), Errno> {
    memory.put(out, &[0; 64])?;
    memory.put(offset(out, 16)?, &[SOCKET_STREAM])
}
