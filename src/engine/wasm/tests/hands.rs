//! What people do with running guests: look at their figures, attach to them, run something beside them.

use bytes::Bytes;

use super::http::component;
use super::programs::program;
use super::*;
use crate::engine::wasm::attached::{Ends, Pipe, Terminals};
use crate::engine::wasm::exec::Exec;

/// Copies its input to its output, and exits with the number of bytes.
const CAT: &str = r#"(module $cat
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 2)
    (func (export "_start") (local $total i32)
        (loop $again
            (i32.store (i32.const 0) (i32.const 1024))
            (i32.store (i32.const 4) (i32.const 4096))
            (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
            (if (i32.load (i32.const 8)) (then
                (i32.store (i32.const 4) (i32.load (i32.const 8)))
                (local.set $total (i32.add (local.get $total) (i32.load (i32.const 8))))
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
                (br $again))))
        (call $exit (local.get $total))))"#;

/// Waits for ever in `_start`; `seven` exits with 7.
const HOST: &str = r#"(module $host
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func (export "seven") (call $exit (i32.const 7)))
    (func (export "_start") (loop (br 0))))"#;

fn exec(command: &[&str]) -> Exec {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    Exec { command, environment: Vec::new(), working_dir: None }
}

async fn read(pipe: Pipe) -> String {
    let mut text = String::new();
    while let Some((_, bytes)) = tokio::time::timeout(PATIENCE, pipe.next()).await.expect("the end in time") {
        text += &String::from_utf8_lossy(&bytes);
    }
    text
}

#[tokio::test]
async fn computing_shows_in_the_figures() {
    let bench = Bench::new();
    let spec = bench.spec("job", &program("(loop (br 0))"));
    bench.create(&spec).await.unwrap();
    let started = bench.start(&spec).await;
    let usage = tokio::time::timeout(PATIENCE, async {
        loop {
            match bench.wasm.usage(&spec.project).into_iter().find(|usage| usage.cpu >= Duration::from_millis(50)) {
                Some(usage) => break usage,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    let usage = usage.await.expect("a guest that loops computes");
    assert_eq!((usage.instance, usage.tasks, usage.memory), (spec.name.clone(), 1, 65536));
    started.handle.kill("SIGKILL").await.unwrap();
}

#[tokio::test]
async fn requests_of_both_kinds_of_components_are_counted() {
    for reuse in [false, true] {
        let bench = Bench::new();
        let mut spec = bench.spec("web", &component(""));
        with_service(&mut spec, |service| {
            service.wasm = Some(WasmOptions { http_reuse: reuse, ..WasmOptions::default() });
        });
        bench.create(&spec).await.unwrap();
        let started = bench.start(&spec).await;
        for _ in 0..3 {
            bench.get(&spec, 8080).await;
        }
        let usage = bench.wasm.usage(&spec.project).remove(0);
        let guest = usage.guest.clone().expect("it is a guest");
        assert_eq!((guest.requests, guest.latency.total(), guest.refusals), (3, 3, 0), "reuse: {reuse}");
        assert!(usage.cpu > Duration::ZERO, "reuse: {reuse}");
        assert!(usage.received >= 3 * 16 && usage.sent >= 3 * 16, "reuse: {reuse}: {usage:?}");
        started.handle.stop(None).await.unwrap();
    }
}

#[tokio::test]
async fn whoever_is_attached_is_the_guests_streams() {
    let bench = Bench::new();
    let spec = Arc::new(bench.spec("cat", CAT));
    bench.create(&spec).await.unwrap();
    let (input, stdin) = mpsc::channel(1);
    let output = Pipe::default();
    let ends = Ends { stdin: Some(stdin), output: output.clone(), terminals: Terminals::default() };
    let (reports, mut told) = mpsc::channel(64);
    let (lines, _written) = mpsc::channel(64);
    let outlet = Outlet::new(spec.name.clone(), Attempt(1), reports, lines, false);
    let _handle = bench.wasm.start_attached(&spec, outlet, ends).await.unwrap();
    let sent = async {
        for word in ["one ", "two"] {
            input.send(Bytes::from(word)).await.unwrap();
        }
        drop(input);
    };
    let (text, ()) = tokio::join!(read(output), sent);
    assert_eq!(text, "one two");
    let exit = loop {
        if let Report::Exited(exit) = told.recv().await.expect("the run tells its end").report {
            break exit;
        }
    };
    assert_eq!(exit.code, 7);
    bench.wasm.discard(&spec).await.unwrap();
    assert!(bench.wasm.created(&spec.container).is_none());
}

#[tokio::test]
async fn exec_runs_exports_and_modules_of_the_guests_files() {
    let bench = Bench::new();
    let spec = bench.spec("host", HOST);
    bench.create(&spec).await.unwrap();
    let started = bench.start(&spec).await;
    let root = bench.folder.path().join("data/instances").join(spec::short_id(&spec)).join("root");
    std::fs::write(root.join("cat.wat"), CAT).unwrap();

    let closed = || Ends { stdin: None, output: Pipe::default(), terminals: Terminals::default() };
    let executed = bench.wasm.exec(&spec.name, exec(&["seven"]), closed()).await.unwrap();
    assert_eq!(executed.exit.await.unwrap(), 7);

    let (input, stdin) = mpsc::channel(1);
    let output = Pipe::default();
    let ends = Ends { stdin: Some(stdin), output: output.clone(), terminals: Terminals::default() };
    let executed = bench.wasm.exec(&spec.name, exec(&["cat.wat"]), ends).await.unwrap();
    input.send(Bytes::from("hello")).await.unwrap();
    drop(input);
    assert_eq!(read(output).await, "hello");
    assert_eq!(executed.exit.await.unwrap(), 5);

    for nothing in ["../../../outside.wasm", "gone.wasm", "no_export", "/etc/passwd"] {
        assert!(bench.wasm.exec(&spec.name, exec(&[nothing]), closed()).await.is_err(), "{nothing}");
    }

    // It ends with the guest it is beside, or by a signal of its own.
    let executed = bench.wasm.exec(&spec.name, exec(&["_start"]), closed()).await.unwrap();
    executed.switch.kill(2, None);
    assert_eq!(executed.exit.await.unwrap(), 130);
    let executed = bench.wasm.exec(&spec.name, exec(&["_start"]), closed()).await.unwrap();
    started.handle.kill("SIGKILL").await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, executed.exit).await.expect("an end in time").unwrap(), 137);
    assert!(bench.wasm.exec(&spec.name, exec(&["seven"]), closed()).await.is_err());
}
