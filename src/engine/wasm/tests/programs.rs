//! Core modules: exit codes, traps, environment, files, limits, ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::model::{Bytes, FileContent, FileGrant, Mount, MountSource};

/// A preview 1 module that does `body` in `_start`; `$print` writes `(address, length)` to standard output.
pub(super) fn program(body: &str) -> String {
    format!(
        r#"(module $app
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "environ_sizes_get" (func $env_sizes (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "environ_get" (func $env (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "args_sizes_get" (func $arg_sizes (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "path_open"
                (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "file.txt")
            (func $print (param $at i32) (param $length i32)
                (i32.store (i32.const 100) (local.get $at))
                (i32.store (i32.const 104) (local.get $length))
                (drop (call $write (i32.const 1) (i32.const 100) (i32.const 1) (i32.const 108))))
            (func $main (export "_start") {body}))"#
    )
}

#[tokio::test]
async fn the_exit_code_is_the_guests() {
    let bench = Bench::new();
    let spec = bench.spec("job", &program("(call $exit (i32.const 7))"));
    let (exit, written) = bench.run(&spec).await;
    assert_eq!((exit.code, exit.reason, written.len()), (7, None, 0));
    let spec = bench.spec("job", &program(""));
    assert_eq!(bench.run(&spec).await.0.code, 0);
}

#[tokio::test]
async fn a_trap_is_134_and_tells_where() {
    let bench = Bench::new();
    let spec = bench.spec("job", &program("unreachable"));
    let (exit, written) = bench.run(&spec).await;
    assert_eq!(exit.code, 134);
    assert_eq!(exit.reason.as_deref(), Some("wasm trap: wasm `unreachable` instruction executed"));
    assert_eq!(texts(&written), ["wasm trap: wasm `unreachable` instruction executed", "    0: app!main"]);
}

#[tokio::test]
async fn environment_and_arguments_are_what_is_declared() {
    let bench = Bench::new();
    let dump = "
        (drop (call $env_sizes (i32.const 1000) (i32.const 1004)))
        (drop (call $env (i32.const 2000) (i32.const 3000)))
        (call $print (i32.const 3000) (i32.load (i32.const 1004)))
        (drop (call $arg_sizes (i32.const 1000) (i32.const 1004)))
        (drop (call $args (i32.const 2000) (i32.const 5000)))
        (call $print (i32.const 5000) (i32.load (i32.const 1004)))";
    let mut spec = bench.spec("job", &program(dump));
    spec.environment.insert("GREETING".into(), "hello there".into());
    with_service(&mut spec, |service| service.command = Some(vec!["--fast".into()]));
    let (_, written) = bench.run(&spec).await;
    assert_eq!(texts(&written), ["GREETING=hello there\0job.wat\0--fast\0"]);
}

/// Opens `file.txt` in the folder of a descriptor with these flags (1: create) and rights, and exits with the error number.
pub(super) fn open(folder: u32, flags: u32, rights: u64) -> String {
    program(&format!(
        "(call $exit (call $open (i32.const {folder}) (i32.const 0) (i32.const 0) (i32.const 8)
            (i32.const {flags}) (i64.const {rights}) (i64.const 0) (i32.const 0) (i32.const 200)))"
    ))
}

const READ: u64 = 1 << 1;
pub(super) const WRITE: u64 = 1 << 6;

#[tokio::test]
async fn a_read_only_bind_cannot_be_written() {
    let bench = Bench::new();
    let shared = bench.folder.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let mut errors = Vec::new();
    for read_only in [true, false] {
        // Descriptor 3 is the root, 4 the first mount.
        let mut spec = bench.spec("job", &open(4, 1, WRITE));
        let source = MountSource::Bind { path: shared.clone(), create: true, propagation: None, selinux: None };
        with_service(&mut spec, |service| {
            service.mounts.push(Mount { source, target: "/data".into(), read_only });
        });
        errors.push(bench.run(&spec).await.0.code != 0);
        assert_eq!(is_empty(&shared), read_only);
    }
    assert_eq!(errors, [true, false]);
}

#[tokio::test]
async fn the_root_is_private_and_lives_until_the_instance_is_removed() {
    let bench = Bench::new();
    let image = bench.folder.path().join("image");
    fs::create_dir(&image).unwrap();
    fs::write(image.join("file.txt"), "of the image").unwrap();
    let mut writer = bench.spec("writer", &open(3, 1 | 8, WRITE));
    let mut reader = bench.spec("reader", &open(3, 0, READ));
    for spec in [&mut writer, &mut reader] {
        let Resolved::Wasm(module) = &mut spec.resolved else { unreachable!() };
        module.root = Some(image.clone());
    }
    assert_eq!(bench.run(&writer).await.0.code, 0);
    assert_eq!(bench.run(&reader).await.0.code, 0);
    assert_eq!(fs::read_to_string(image.join("file.txt")).unwrap(), "of the image");
    for spec in [&writer, &reader] {
        let existing = bench.wasm.observe(&spec.project).await.unwrap().instances;
        let existing = existing.into_iter().find(|existing| existing.name == spec.container).unwrap();
        assert_eq!((existing.kind, existing.state), (ExistingKind::Guest, RunState::Exited));
        let remove = Step::Remove { existing: Box::new(existing), grace: None, volumes: false };
        bench.wasm.apply(&remove).await.unwrap();
    }
    assert!(is_empty(&bench.folder.path().join("data/instances")));
    assert_eq!(bench.wasm.observe(&writer.project).await.unwrap(), Observed::default());
}

#[tokio::test]
async fn configs_are_files_of_the_root() {
    let bench = Bench::new();
    let mut spec = bench.spec("job", &open(3, 0, READ));
    assert_ne!(bench.run(&spec).await.0.code, 0, "nothing is there yet");
    let grant = FileGrant {
        source: "settings".into(),
        content: FileContent::Inline("x".into()),
        target: "/file.txt".into(),
        uid: None,
        gid: None,
        mode: None,
    };
    with_service(&mut spec, |service| service.configs.push(grant));
    assert_eq!(bench.run(&spec).await.0.code, 0);
    let data = fs::metadata(bench.folder.path().join("data")).unwrap();
    assert_eq!(data.permissions().mode() & 0o777, 0o700, "configs and secrets are nobody else's");
}

#[tokio::test]
async fn a_link_of_the_image_leads_nowhere() {
    let bench = Bench::new();
    let (image, outside) = (bench.folder.path().join("image"), bench.folder.path().join("outside"));
    fs::create_dir(&image).unwrap();
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, image.join("etc")).unwrap();
    let mut spec = bench.spec("job", &program(""));
    let Resolved::Wasm(module) = &mut spec.resolved else { unreachable!() };
    module.root = Some(image);
    let grant = FileGrant {
        source: "settings".into(),
        content: FileContent::Inline("x".into()),
        target: "/etc/settings".into(),
        uid: None,
        gid: None,
        mode: None,
    };
    with_service(&mut spec, |service| service.secrets.push(grant));
    bench.create(&spec).await.unwrap();
    let (reports, _told) = mpsc::channel(8);
    let (lines, _written) = mpsc::channel(8);
    let outlet = Outlet::new(spec.name.clone(), Attempt(1), reports, lines, false);
    let Err(error) = bench.wasm.start(Arc::new(spec), outlet).await else { panic!("it started") };
    assert!(error.to_string().contains("a symbolic link of the image is in the way"), "{error}");
    assert!(is_empty(&outside));
}

#[tokio::test]
async fn memory_ends_at_the_limit() {
    let bench = Bench::new();
    // 64 KiB are there; 3 pages more are asked for, then one.
    let grow = program(
        "(if (i32.ne (memory.grow (i32.const 3)) (i32.const -1)) (then (call $exit (i32.const 1))))
         (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then (call $exit (i32.const 2))))
         unreachable",
    );
    let mut spec = bench.spec("job", &grow);
    with_service(&mut spec, |service| service.memory = Some(Bytes(2 * 65536)));
    let (exit, _) = bench.run(&spec).await;
    assert_eq!(exit.code, 134);
    let reason = exit.reason.unwrap();
    assert!(reason.ends_with("; it asked for more memory than its limit of 131072 bytes (`mem_limit`)"), "{reason}");
}

#[tokio::test]
async fn an_endless_loop_is_stopped() {
    let bench = Bench::new();
    let spec = bench.spec("job", &program("(loop (br 0))"));
    bench.create(&spec).await.unwrap();
    for (signal, code) in [(None, 143), (Some("SIGKILL"), 137), (Some("SIGINT"), 130)] {
        let mut started = bench.start(&spec).await;
        assert_eq!(bench.wasm.observe(&spec.project).await.unwrap().instances[0].state, RunState::Running);
        match signal {
            None => started.handle.stop(None).await.unwrap(),
            Some(signal) => started.handle.kill(signal).await.unwrap(),
        }
        assert_eq!(started.exit().await.code, code);
    }
}

#[tokio::test]
async fn a_guest_that_logs_without_end_is_stopped() {
    let bench = Bench::new();
    let spec = bench.spec("job", &program("(loop (call $print (i32.const 0) (i32.const 8)) (br 0))"));
    bench.create(&spec).await.unwrap();
    let mut started = bench.start(&spec).await;
    started.handle.kill("KILL").await.unwrap();
    assert_eq!(started.exit().await.code, 137);
}

#[tokio::test]
async fn a_running_guest_can_be_adopted() {
    let bench = Bench::new();
    let spec = bench.spec("job", &program("(loop (br 0))"));
    bench.create(&spec).await.unwrap();
    let mut started = bench.start(&spec).await;
    let existing = bench.wasm.observe(&spec.project).await.unwrap().instances.remove(0);
    let (reports, mut told) = mpsc::channel(8);
    let (lines, _written) = mpsc::channel(8);
    let outlet = Outlet::new(spec.name.clone(), Attempt(2), reports, lines, false);
    let handle = bench.wasm.adopt(Arc::new(spec.clone()), &existing, outlet).await.unwrap();
    let Report::Started(facts) = told.recv().await.unwrap().report else { panic!("not started") };
    assert_eq!(facts.id, existing.id);
    handle.stop(None).await.unwrap();
    assert_eq!(started.exit().await.code, 143);
}

#[tokio::test]
async fn a_module_that_does_not_link_fails_at_create() {
    let bench = Bench::new();
    let text = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i64))) (func (export "_start")))"#;
    let spec = bench.spec("job", text);
    let error = bench.create(&spec).await.unwrap_err();
    assert!(error.to_string().starts_with("compile the module of `shop-job-1`: "), "{error}");
    assert!(error.to_string().contains("proc_exit"), "{error}");
    assert!(is_empty(&bench.folder.path().join("data/instances")), "nothing stays of it");
}

#[tokio::test]
async fn a_program_opens_no_more_files_than_its_limit() {
    let bench = Bench::new();
    // Opens the same file until that fails, and exits with the number of the error.
    let hoard = r#"(local $error i32)
        (loop $again
            (local.set $error (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 8)
                (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 200)))
            (br_if $again (i32.eqz (local.get $error))))
        (call $exit (i32.add (local.get $error) (i32.load (i32.const 200))))"#;
    let mut spec = bench.spec("job", &program(hoard));
    with_service(&mut spec, |service| service.document = serde_json::json!({ "ulimits": { "nofile": 10 } }));
    let (exit, written) = bench.run(&spec).await;
    // 33 is "too many open files"; 13 is the tenth descriptor behind the three streams and the root.
    assert_eq!(exit.code, 33 + 13);
    assert_eq!(texts(&written).len(), 1, "{written:?}");
    assert!(written[0].1.contains("10 files open") && written[0].1.contains("nofile"), "{written:?}");
}

#[tokio::test]
async fn fuel_that_is_used_up_is_a_trap_that_says_so() {
    let bench = Bench::new();
    let mut spec = bench.spec("job", &program("(loop $again (br $again))"));
    with_service(&mut spec, |service| {
        service.wasm = Some(WasmOptions { fuel: Some(1_000_000), ..WasmOptions::default() });
    });
    let (exit, written) = bench.run(&spec).await;
    assert_eq!(exit.code, 134);
    assert!(exit.reason.is_some_and(|reason| reason.contains("x-wasm.fuel")));
    assert!(texts(&written).iter().any(|line| line.contains("x-wasm.fuel")), "{written:?}");
    let mut spec = bench.spec("job", &program(""));
    with_service(&mut spec, |service| {
        service.wasm = Some(WasmOptions { fuel: Some(1_000_000), ..WasmOptions::default() });
    });
    assert_eq!(bench.run(&spec).await.0.code, 0, "enough is enough");
}

#[tokio::test]
async fn a_table_has_an_end() {
    let bench = Bench::new();
    let text = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (table $table 1 funcref)
        (func (export "_start")
            (call $exit (i32.add
                (i32.eq (table.grow $table (ref.null func) (i32.const 10000)) (i32.const 1))
                (i32.mul (i32.const 2) (i32.eq (table.grow $table (ref.null func) (i32.const 2000000)) (i32.const -1)))))))"#;
    let spec = bench.spec("job", text);
    let (exit, written) = bench.run(&spec).await;
    assert_eq!(exit.code, 1 + 2, "a large one is had, an endless one is not");
    assert!(texts(&written)[0].contains("table"), "{written:?}");
}
