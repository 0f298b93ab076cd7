//! WasmEdge's sockets from a module's side: every function is there, and says by its number what is wrong.

use super::*;
use crate::engine::wasm::p1::FUNCTIONS;

/// A module that imports every socket function as `$name/parameters`, and exits with the number that `body` leaves.
/// At 0 lies an `Address` of four octets at 16 (127.0.0.1); 64 and on is free.
fn module(body: &str) -> String {
    let imports: String = FUNCTIONS
        .iter()
        .map(|(name, parameters)| {
            let types = " i32".repeat(*parameters);
            format!(
                r#"(import "wasi_snapshot_preview1" "{name}" (func ${name}/{parameters} (param{types}) (result i32)))"#
            )
        })
        .collect();
    format!(
        r#"(module {imports}
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_seek" (func $seek (param i32 i64 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_fdstat_set_flags" (func $flags (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\04\00\00\00")
            (data (i32.const 16) "\7f\00\00\01")
            (func $open (param $kind i32) (result i32)
                (drop (call $sock_open/3 (i32.const 1) (local.get $kind) (i32.const 64)))
                (i32.load (i32.const 64)))
            (func $tcp (result i32) (call $open (i32.const 2)))
            (func (export "_start") (call $exit {body})))"#
    )
}

#[tokio::test]
async fn errors_are_told_by_their_numbers() {
    const BADF: i64 = 8;
    const FAULT: i64 = 21;
    const INVAL: i64 = 28;
    let cases = [
        ("(call $sock_open/3 (i32.const 0) (i32.const 2) (i32.const 64))", INVAL),
        ("(call $sock_open/3 (i32.const 1) (i32.const 0) (i32.const 64))", INVAL),
        ("(call $sock_open/3 (i32.const 3) (i32.const 2) (i32.const 64))", 52),
        ("(call $sock_open/3 (i32.const 1) (i32.const 2) (i32.const 65534))", FAULT),
        ("(call $sock_listen/2 (i32.const 1) (i32.const 1))", 57),
        ("(call $sock_listen/2 (i32.const 0x40000000) (i32.const 1))", BADF),
        ("(call $sock_bind/3 (call $tcp) (i32.const 0) (i32.const 65536))", INVAL),
        ("(call $sock_accept/2 (call $tcp) (i32.const 68))", INVAL),
        ("(call $sock_connect/3 (call $tcp) (i32.const 0) (i32.const 9))", 14),
        ("(call $sock_send/5 (call $tcp) (i32.const 80) (i32.const 0) (i32.const 1) (i32.const 84))", INVAL),
        ("(call $sock_shutdown/2 (call $tcp) (i32.const 3))", 53),
        ("(call $sock_getpeeraddr/4 (call $tcp) (i32.const 0) (i32.const 80) (i32.const 84))", 53),
        ("(call $sock_getsockopt/5 (call $tcp) (i32.const 1) (i32.const 1) (i32.const 80) (i32.const 84))", 50),
        ("(call $seek (call $tcp) (i64.const 0) (i32.const 0) (i32.const 80))", 70),
        (
            "(call $sock_send_to/7 (call $open (i32.const 1)) (i32.const 80) (i32.const 1025) (i32.const 0) (i32.const 9) \
           (i32.const 0) (i32.const 84))",
            INVAL,
        ),
    ];
    let bench = Bench::new();
    for (call, errno) in cases {
        let spec = bench.spec("job", &module(call));
        assert_eq!(bench.run(&spec).await.0.code, errno, "{call}");
    }
}

#[tokio::test]
async fn a_closed_descriptor_is_given_out_again() {
    let bench = Bench::new();
    let body = "(i32.eq (call $tcp) (block (result i32) (drop (call $close (call $tcp))) (call $tcp)))";
    let spec = bench.spec("job", &module(body));
    assert_eq!(bench.run(&spec).await.0.code, 0, "the second open socket has a number of its own");
    let body = "(call $close (block (result i32) (drop (call $close (call $tcp))) (i32.load (i32.const 64))))";
    let spec = bench.spec("job", &module(body));
    assert_eq!(bench.run(&spec).await.0.code, 8, "it is closed once");
}

#[tokio::test]
async fn a_socket_that_does_not_block_says_again() {
    let bench = Bench::new();
    let body = "(block (result i32)
        (drop (call $sock_listen/2 (call $tcp) (i32.const 1)))
        (drop (call $flags (i32.load (i32.const 64)) (i32.const 4)))
        (call $sock_accept/3 (i32.load (i32.const 64)) (i32.const 4) (i32.const 68)))";
    let spec = bench.spec("job", &module(body));
    assert_eq!(bench.run(&spec).await.0.code, 6);
}

/// A subscription of 48 bytes at 256: 10 ms of the monotonic clock; and one at 304: reading a listener.
const WAIT: &str = "(block (result i32)
    (drop (call $sock_listen/2 (call $tcp) (i32.const 1)))
    (i32.store8 (i32.const 264) (i32.const 0))
    (i32.store (i32.const 272) (i32.const 1))
    (i64.store (i32.const 280) (i64.const 10000000))
    (i32.store8 (i32.const 312) (i32.const 1))
    (i32.store (i32.const 320) (i32.load (i32.const 64)))
    (drop (call $poll (i32.const 256) (i32.const 512) (i32.const 2) (i32.const 640)))
    (i32.add (i32.mul (i32.const 10) (i32.load (i32.const 640))) (i32.load8_u (i32.const 522))))";

#[tokio::test]
async fn a_clock_ends_waiting_for_sockets() {
    let bench = Bench::new();
    let spec = bench.spec("job", &module(WAIT));
    assert_eq!(bench.run(&spec).await.0.code, 10, "one event, of the clock's kind");
}
