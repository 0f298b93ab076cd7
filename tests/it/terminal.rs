//! Somebody at a terminal: `exec` and `run` give it to the program, size and keys included.

use std::fs;

use rustix::process::Signal;

use crate::support::terminal::Terminal;
use crate::support::{Engine, Guest, Project, eventually, holds};

/// Both kinds, with a program to be run beside each.
const BOTH: &str = r#"
services:
  linux: { image: busybox, command: [sleep, "600"], stop_signal: SIGKILL }
  wasm:
    image: ./peer.wasm
    command: [serve, "80"]
    volumes: ["./tools:/tools"]
"#;

fn both(engine: &Engine) -> Project {
    let project = Project::on(engine, BOTH).guest(Guest::Peer).guest(Guest::PeerModule);
    fs::create_dir_all(project.folder().join("tools")).expect("a folder");
    fs::copy(project.folder().join("module.wasm"), project.folder().join("tools/tool.wasm")).expect("a copy");
    project.up();
    project
}

fn at_terminal(project: &Project, arguments: &[&str]) -> Terminal {
    Terminal::start(&project.command(arguments), project.root(), (80, 24))
}

#[test]
fn a_program_in_a_container_has_the_terminal_its_size_and_its_keys() {
    let Some(engine) = Engine::with_images(&["busybox"]).filter(|_| Terminal::is_there()) else { return };
    let project = both(&engine);
    let terminal = at_terminal(&project, &["exec", "-it", "linux", "sh"]);
    terminal.line("test -t 0 && test -t 1 && echo a-$((40 + 2))-terminal");
    terminal.shows("a-42-terminal");
    terminal.line("echo size $(stty size)");
    terminal.shows("size 24 80");
    terminal.resize(100, 30);
    eventually("the size arrives", || {
        terminal.line("clear; echo size $(stty size)");
        holds(terminal.text().contains("size 30 100"), terminal.text())
    });
    terminal.line("sleep 600; echo interrupted $?");
    terminal.shows("sleep 600");
    terminal.key("C-c");
    // The shell goes on: the key was the program's, not ours.
    terminal.line("echo went-$((1 + 1))-on");
    terminal.shows("went-2-on");
    terminal.line("exit 7");
    assert_eq!(terminal.end(), 7);
}

#[test]
fn a_program_beside_a_guest_has_the_terminal_and_is_ended_by_its_keys() {
    let Some(engine) = Engine::with_images(&["busybox"]).filter(|_| Terminal::is_there()) else { return };
    let project = both(&engine);
    let terminal = at_terminal(&project, &["exec", "-it", "wasm", "/tools/tool.wasm", "terminals"]);
    assert_eq!(terminal.end(), 0);
    drop(terminal);
    let outcome = project.feed(&["exec", "wasm", "/tools/tool.wasm", "terminals"], "");
    assert_eq!(outcome.well().stdout, "stdin false, stdout false, stderr false\n");

    let terminal = at_terminal(&project, &["exec", "-it", "wasm", "/tools/tool.wasm", "echo-lines"]);
    terminal.shows("stdin true, stdout true, stderr true");
    terminal.line("what is typed");
    terminal.shows("heard what is typed");
    terminal.key("C-d");
    assert_eq!(terminal.end(), 0);
    drop(terminal);

    let terminal = at_terminal(&project, &["exec", "-it", "wasm", "/tools/tool.wasm", "echo-lines"]);
    terminal.shows("stdin true");
    terminal.key("C-c");
    assert_eq!(terminal.end(), 130);
    assert_eq!(project.service("wasm").state, "running", "the service goes on");
    drop(terminal);

    let terminal = at_terminal(&project, &["run", "--rm", "wasm", "echo-lines"]);
    terminal.shows("stdin true, stdout true, stderr true");
    terminal.key("C-c");
    assert_eq!(terminal.end(), 130);
    assert_eq!(project.ps().len(), 2, "the one-off is gone");
}

/// As with docker compose: the engine has no signal for a program beside a container's own.
#[test]
fn a_program_in_a_container_that_has_no_terminal_goes_on_without_us() {
    let Some(engine) = Engine::with_images(&["busybox"]) else { return };
    let project = both(&engine);
    let started = "until test -f /tmp/go; do sleep 0.1; done; echo well > /tmp/done";
    let running = project.start(&["exec", "-T", "linux", "sh", "-c", started]);
    let inside = |command: &[&str]| project.run(&[&["exec", "-T", "linux"], command].concat());
    eventually("it runs", || {
        let processes = inside(&["ps"]).stdout;
        holds(processes.contains("/tmp/go"), processes)
    });
    running.signal(Signal::INT);
    assert_eq!(running.end().code, 130);
    inside(&["touch", "/tmp/go"]).well();
    eventually("it went on to its end", || {
        let done = inside(&["cat", "/tmp/done"]);
        holds(done.stdout == "well\n", done)
    });
    assert_eq!(inside(&["sh", "-c", "exit 9"]).code, 9);
    assert_eq!(inside(&["no-such-program"]).code, 126, "as the engine has it");
}
