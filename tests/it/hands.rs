//! Commands that work on what runs, or run something once, on both kinds: `run`, `exec`, `cp`, `stats`, `top`.

use std::fs;

use serde_json::Value;

use crate::support::project::free_port;
use crate::support::{Engine, Guest, Project, eventually, holds};

/// Copies its input to its output, and exits with the last two digits of the number of bytes.
const CAT: &str = include_str!("guests/cat.wat");

/// A guest that serves, and a file in its root beside it.
const ONE: &str = r#"
services:
  api:
    image: ./peer.wasm
    command: [serve, "80"]
    environment: { WHO: api }
    ports: ["${PORT}:80"]
    volumes: ["data:/data", "./tools:/tools:ro"]
volumes: { data: }
"#;

fn one() -> (Project, u16) {
    let port = free_port();
    let project = Project::wasm(ONE).guest(Guest::Peer).guest(Guest::PeerModule).with("PORT", port);
    project.write("tools/cat.wat", CAT);
    fs::copy(project.folder().join("module.wasm"), project.folder().join("tools/tool.wasm")).expect("a copy");
    (project, port)
}

#[test]
fn a_file_runs_without_a_compose_file_and_is_the_terminals() {
    let project = Project::wasm("").guest(Guest::PeerModule);
    project.write("cat.wat", CAT);
    let outcome = project.run(&["run", "--image", "module.wasm", "-e", "WHO=me", "--", "env"]).well();
    assert_eq!(outcome.stdout, "WHO=me\n", "what was given, nothing of the host's, no name before lines");
    assert_eq!(project.run(&["run", "--image", "./module.wasm", "exit", "7"]).code, 7);
    let outcome = project.feed(&["run", "--image", "cat.wat"], "from the pipe");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (13, "from the pipe"));
    project.write("in/note", "mounted");
    let outcome = project.run(&["run", "-v", "./in:/in", "--image", "module.wasm", "read", "/in/note"]).well();
    assert_eq!(outcome.stdout, "mounted\n");
    let outcome = project.run(&["run", "--image", "module.wasm", "trap"]);
    assert_eq!(outcome.code, 134);
    assert!(outcome.stderr.contains("fall_over"), "{outcome}");
    project.run(&["run", "--image", "gone.wasm"]).refused(&["gone.wasm"]);
}

#[test]
fn a_file_that_is_run_reaches_nothing_until_it_is_granted() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port().to_string();
    let project = Project::wasm("").guest(Guest::Peer);
    let outcome = project.run(&["run", "--image", "peer.wasm", "send", "127.0.0.1", &port, "hi"]);
    assert_eq!(outcome.code, 1, "its own loopback is not the host's: {outcome}");
    let outcome = project.run(&["run", "--image", "peer.wasm", "send", "169.254.169.254", "80", "hi"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("refused"), "{outcome}");
    listener.set_nonblocking(true).expect("a socket of ours");
    assert!(listener.accept().is_err(), "nobody came");
}

#[test]
fn a_one_off_guest_is_on_the_projects_networks_and_leaves_nothing() {
    let (project, port) = one();
    let outcome = project.run(&["run", "-T", "-e", "MORE=1", "api", "get", "api", "80", "env", "WHO"]);
    assert_ne!(outcome.code, 0, "nobody serves yet: {outcome}");
    eventually("a supervisor that holds nothing ends", || holds(project.supervisors().is_empty(), "it is still there"));
    project.up();
    project.ask(port, "/say/hi");
    let outcome = project.run(&["run", "-T", "api", "get", "api", "80", "env", "WHO"]).well();
    assert_eq!(outcome.stdout, "api\n");
    let outcome = project.run(&["run", "-T", "-e", "WHO=other", "api", "env", "WHO"]).well();
    assert_eq!(outcome.stdout, "other\n");
    // A component can only say that it failed.
    assert_eq!(project.run(&["run", "api", "exit", "9"]).code, 1);
    project.run(&["run", "api", "write", "/data/note", "kept"]).well();
    assert_eq!(project.ask(port, "/read/%2Fdata%2Fnote"), "kept", "volumes are the project's");
    assert_eq!(project.ps().len(), 1, "one-offs are gone");
    assert_eq!(project.ask(port, "/say/hi"), "hi", "the service was left alone");
}

#[test]
fn a_one_off_waits_for_what_it_depends_on() {
    let project = Project::wasm(
        r#"
services:
  seed: { image: ./module.wasm, command: [write, /data/seed, sown], volumes: ["data:/data"] }
  bad:  { image: ./module.wasm, command: [exit, "3"] }
  job:
    image: ./module.wasm
    volumes: ["data:/data"]
    depends_on: { seed: { condition: service_completed_successfully } }
  hopeless:
    image: ./module.wasm
    depends_on: { bad: { condition: service_completed_successfully } }
volumes: { data: }
"#,
    )
    .guest(Guest::PeerModule);
    let outcome = project.run(&["run", "job", "read", "/data/seed"]).well();
    assert_eq!(outcome.stdout, "sown\n");
    project.run(&["run", "hopeless", "say", "never"]).refused(&["bad"]);
    let outcome = project.run(&["run", "--no-deps", "hopeless", "say", "alone"]).well();
    assert_eq!(outcome.stdout, "alone\n");
}

#[test]
fn exec_runs_another_module_beside_a_guest() {
    let (project, port) = one();
    project.up();
    project.ask(port, "/say/hi");
    let outcome = project.run(&["exec", "-T", "api", "--", "/tools/tool.wasm", "env", "WHO"]).well();
    assert_eq!(outcome.stdout, "api\n", "the guest's environment");
    let outcome = project.run(&["exec", "-e", "WHO=me", "api", "/tools/tool.wasm", "env", "WHO"]).well();
    assert_eq!(outcome.stdout, "me\n");
    let outcome = project.feed(&["exec", "api", "/tools/cat.wat"], &"x".repeat(700_007));
    assert_eq!(outcome.stdout.len(), 700_007, "both directions, beyond every window");
    assert_eq!(outcome.code, 7);
    assert_eq!(project.run(&["exec", "api", "/tools/tool.wasm", "exit", "5"]).code, 5);
    project.run(&["exec", "api", "/tools/tool.wasm", "write", "/data/by-exec", "yes"]).well();
    assert_eq!(project.ask(port, "/read/%2Fdata%2Fby-exec"), "yes");
    project.run(&["exec", "api", "/../../../etc/passwd.wasm"]).refused(&["passwd.wasm"]);
    project.run(&["exec", "api", "no-such-export"]).refused(&["no-such-export"]);
    project.run(&["stop"]).well();
    project.run(&["exec", "api", "/tools/tool.wasm"]).refused(&["not running"]);
}

#[test]
fn a_signal_reaches_a_guest_that_is_run() {
    let (project, _) = one();
    let running = project.start(&["run", "--image", "peer.wasm", "spin"]);
    eventually("it listens to signals", || {
        let status = fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap_or_default();
        let caught = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
        holds(caught.is_some_and(|caught| caught & 1 << (rustix::process::Signal::INT.as_raw() - 1) != 0), status)
    });
    // A signal that comes while the module is compiled ends the command, too.
    running.signal(rustix::process::Signal::INT);
    assert_eq!(running.end().code, 130);
}

#[test]
fn files_go_into_and_out_of_a_guest_and_never_past_its_root() {
    let (project, port) = one();
    project.up();
    project.ask(port, "/say/hi");
    project.write("up/a/deep", "deep");
    project.write("up/top", "top");
    project.run(&["cp", "up", "api:/copy"]).well();
    assert_eq!(project.ask(port, "/read/%2Fcopy%2Fa%2Fdeep"), "deep");
    project.run(&["cp", "up/top", "api:/data/renamed"]).well();
    assert_eq!(project.ask(port, "/read/%2Fdata%2Frenamed"), "top", "into a volume, under a new name");
    project.run(&["cp", "api:/copy", "back"]).well();
    assert_eq!(fs::read_to_string(project.folder().join("back/a/deep")).expect("it came"), "deep");
    project.run(&["cp", "api:/data/renamed", "."]).well();
    assert_eq!(fs::read_to_string(project.folder().join("renamed")).expect("it came"), "top");

    let archive = project.run(&["cp", "api:/copy/top", "-"]).well().stdout;
    assert!(archive.starts_with("top\0") && archive.contains("top"), "a tar archive");

    project.run(&["cp", "up/top", "api:/tools/new"]).refused(&["/tools/new"]);
    project.run(&["cp", "api:/gone", "."]).refused(&["/gone"]);
    // A link that leads out of the root leads to the same path inside of it.
    std::os::unix::fs::symlink("/etc", project.folder().join("up/out")).expect("a link");
    project.run(&["cp", "up/out", "api:/out"]).well();
    project.run(&["cp", "-L", "api:/out/passwd", "stolen"]).refused(&[]);
    assert!(!project.folder().join("stolen").exists());
}

#[test]
fn stats_and_top_show_guests() {
    let (project, port) = one();
    project.up();
    project.ask(port, "/say/hi");
    let outcome = project.run(&["stats", "--no-stream", "--format", "json"]).well();
    let row: Value = serde_json::from_str(outcome.stdout.trim()).expect("one object");
    assert_eq!(row["Name"].as_str().map(|name| name.ends_with("-api-1")), Some(true), "{row}");
    assert!(row["MemUsage"].as_str().is_some_and(|used| !used.starts_with("0B")), "{row}");
    assert!(row["NetIO"].as_str().is_some_and(|net| !net.starts_with("0B")), "{row}");
    let table = project.run(&["stats", "--no-stream"]).well().stdout;
    assert!(table.starts_with("CONTAINER ID "), "{table}");
    let top = project.run(&["top"]).well().stdout;
    let lines: Vec<&str> = top.lines().collect();
    assert_eq!(lines.len(), 2, "{top}");
    assert!(lines[1].starts_with("api ") && lines[1].ends_with("serve 80"), "{top}");
    project.run(&["down"]).well();
    assert_eq!(project.run(&["top"]).well().stdout, "");
}

/// The same deeds on a container and on a guest at an agent.
#[test]
fn the_commands_work_on_containers_and_on_guests_beside_them() {
    let Some(engine) = Engine::answering() else { return };
    let project = Project::on(
        &engine,
        r#"
services:
  linux: { image: "${PEER}", command: [serve, "80"], environment: { WHO: linux } }
  wasm:
    image: ./peer.wasm
    command: [serve, "80"]
    environment: { WHO: wasm }
    volumes: ["./tools:/tools"]
    depends_on: [linux]
"#,
    )
    .guest(Guest::Peer)
    .guest(Guest::PeerModule)
    .guest(Guest::PeerLinux);
    fs::create_dir_all(project.folder().join("tools")).expect("a folder");
    fs::copy(project.folder().join("module.wasm"), project.folder().join("tools/tool.wasm")).expect("a copy");

    // One-offs: dependencies first, on the networks, the exit code, nothing left.
    let outcome = project.run(&["run", "--rm", "-T", "linux", "env", "WHO"]).well();
    assert_eq!(outcome.stdout, "linux\n");
    assert_eq!(project.run(&["run", "--rm", "-T", "linux", "exit", "7"]).code, 7);
    let outcome = project.run(&["run", "--rm", "-T", "wasm", "get", "linux", "80", "env", "WHO"]).well();
    assert_eq!(outcome.stdout, "linux\n");
    assert_eq!(project.service("linux").state, "running", "the dependency was started");
    assert_eq!(project.ps().len(), 1);

    project.up();
    let outcome = project.run(&["run", "--rm", "-T", "linux", "get", "wasm", "80", "env", "WHO"]).well();
    assert_eq!(outcome.stdout, "wasm\n");

    // Beside what runs.
    let outcome = project.run(&["exec", "-T", "-e", "WHO=me", "linux", "/peer", "env", "WHO"]).well();
    assert_eq!(outcome.stdout, "me\n");
    assert_eq!(project.run(&["exec", "-T", "linux", "/peer", "exit", "5"]).code, 5);
    let outcome = project.run(&["exec", "-T", "wasm", "/tools/tool.wasm", "env", "WHO"]).well();
    assert_eq!(outcome.stdout, "wasm\n");

    // Files.
    project.write("note", "noted");
    for service in ["linux", "wasm"] {
        project.run(&["cp", "note", &format!("{service}:/note")]).well();
        project.run(&["cp", &format!("{service}:/note"), &format!("from-{service}")]).well();
        let back = fs::read_to_string(project.folder().join(format!("from-{service}"))).expect("it came back");
        assert_eq!(back, "noted", "{service}");
    }

    // Looking.
    let stats = project.run(&["stats", "--no-stream", "--format", "json"]).well().stdout;
    assert_eq!(stats.lines().count(), 2, "{stats}");
    let top = project.run(&["top"]).well().stdout;
    assert!(top.lines().any(|line| line.starts_with("linux ")), "{top}");
    assert!(top.lines().any(|line| line.starts_with("wasm ") && line.ends_with("serve 80")), "{top}");

    // Detached, under a name.
    let outcome = project.run(&["run", "-d", "--name", "once", "linux", "sleep", "60"]).well();
    assert_eq!(outcome.stdout.trim().len(), 64, "the id: {outcome}");
}
