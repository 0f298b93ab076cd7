//! The names of WasmEdge's `sock_…` functions, and what each number of theirs means.

use wasmtime::{Caller, Linker};

use super::calls::{Call, Incoming, Outgoing};
use super::errno::{Errno, answer};
use super::lookup::{self, Query};
use super::{SHADOW, guest};
use crate::engine::wasm::host::CoreState;

/// Every function, by its name and its number of parameters: versions of one name differ in it. All parameters are `i32`,
/// and so is the one result.
pub(in crate::engine::wasm) const FUNCTIONS: &[(&str, usize)] = &[
    ("sock_open", 3),
    ("sock_bind", 3),
    ("sock_listen", 2),
    ("sock_accept", 2),
    ("sock_accept", 3),
    ("sock_connect", 3),
    ("sock_recv", 6),
    ("sock_recv_from", 7),
    ("sock_recv_from", 8),
    ("sock_send", 5),
    ("sock_send_to", 7),
    ("sock_shutdown", 2),
    ("sock_getsockopt", 5),
    ("sock_setsockopt", 5),
    ("sock_getlocaladdr", 3),
    ("sock_getlocaladdr", 4),
    ("sock_getpeeraddr", 3),
    ("sock_getpeeraddr", 4),
    ("sock_getaddrinfo", 8),
];

/// Registers one function under its name and number of parameters.
macro_rules! function {
    ($linker:ident, $key:literal, ($($parameter:ident),*), |$call:ident| $body:expr) => {
        $linker.func_wrap_async(
            SHADOW,
            $key,
            |mut caller: Caller<'_, CoreState>, ($($parameter,)*): ($(function!(@type $parameter),)*)| {
                Box::new(async move {
                    let (memory, state) = guest(&mut caller)?;
                    let mut $call = Call { memory, sockets: &mut state.sockets };
                    let result: Result<(), Errno> = $body;
                    Ok::<i32, wasmtime::Error>(answer(result))
                })
            },
        )?;
    };
    (@type $parameter:ident) => { u32 };
}

/// Defines every function as `name/parameters` of the module [`SHADOW`].
pub(super) fn add_to_linker(linker: &mut Linker<CoreState>) -> wasmtime::Result<()> {
    function!(linker, "sock_open/3", (family, kind, out), |call| call.open(family, kind, out));
    function!(linker, "sock_bind/3", (fd, address, port), |call| call.bind(fd, address, port).await);
    function!(linker, "sock_listen/2", (fd, _backlog), |call| call.listen(fd).await);
    function!(linker, "sock_accept/2", (fd, out), |call| call.accept(fd, 0, out).await);
    function!(linker, "sock_accept/3", (fd, flags, out), |call| call.accept(fd, flags, out).await);
    function!(linker, "sock_connect/3", (fd, address, port), |call| call.connect(fd, address, port).await);
    function!(linker, "sock_recv/6", (fd, data, count, flags, length, out_flags), |call| {
        call.receive(fd, Incoming { data, count, flags, length, out_flags }).await.map(drop)
    });
    function!(linker, "sock_recv_from/7", (fd, data, count, address, flags, length, out_flags), |call| {
        call.receive_from(fd, Incoming { data, count, flags, length, out_flags }, address, None).await
    });
    function!(linker, "sock_recv_from/8", (fd, data, count, address, flags, port, length, out_flags), |call| {
        call.receive_from(fd, Incoming { data, count, flags, length, out_flags }, address, Some(port)).await
    });
    function!(linker, "sock_send/5", (fd, data, count, flags, length), |call| {
        call.send(fd, Outgoing { data, count, flags, length }, None).await
    });
    function!(linker, "sock_send_to/7", (fd, data, count, address, port, flags, length), |call| {
        call.send(fd, Outgoing { data, count, flags, length }, Some((address, port))).await
    });
    function!(linker, "sock_shutdown/2", (fd, how), |call| call.shutdown(fd, how));
    function!(linker, "sock_getsockopt/5", (fd, level, name, flag, size), |call| {
        call.option(fd, level, name, flag, size)
    });
    function!(linker, "sock_setsockopt/5", (fd, level, name, flag, size), |call| {
        call.set_option(fd, level, name, flag, size)
    });
    function!(linker, "sock_getlocaladdr/3", (fd, address, port), |call| call.local(fd, address, None, port));
    function!(linker, "sock_getlocaladdr/4", (fd, address, kind, port), |call| {
        call.local(fd, address, Some(kind), port)
    });
    function!(linker, "sock_getpeeraddr/3", (fd, address, port), |call| call.peer(fd, address, None, port));
    function!(linker, "sock_getpeeraddr/4", (fd, address, kind, port), |call| {
        call.peer(fd, address, Some(kind), port)
    });
    function!(
        linker,
        "sock_getaddrinfo/8",
        (node, node_length, service, service_length, hints, results, most, found),
        |call| {
            let query = Query { node, node_length, service, service_length, hints, results, most, found };
            lookup::look_up(&mut call.memory, &call.sockets.stack, query).await
        }
    );
    Ok(())
}
