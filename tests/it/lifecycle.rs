//! Ends: crashes, signals, and `down` at any moment.

use rustix::process::Signal;

use crate::support::project::free_port;
use crate::support::{Engine, Guest, Project, eventually, holds};

const MIXED: &str = r#"
services:
  linux:
    image: ${PEER}
    command: [serve, "80"]
    ports: ["${LINUX}:80"]
  wasm:
    image: ./peer.wasm
    command: [serve, "80"]
    ports: ["${WASM}:80"]
    depends_on: [linux]
"#;

fn mixed(engine: &Engine) -> (Project, u16, u16) {
    let (linux, wasm) = (free_port(), free_port());
    let project = Project::on(engine, MIXED).guest(Guest::Peer).with("LINUX", linux).with("WASM", wasm);
    (project, linux, wasm)
}

/// A service that waits for one that never gets healthy.
fn waiting(engine: &Engine, image: &str) -> Project {
    let compose = r#"
services:
  slow:
    image: ${PEER}
    command: [sleep, "600"]
    healthcheck: { test: [CMD, /peer, check, "80"], interval: 1s, retries: 600 }
  after:
    image: ${IMAGE}
    command: [serve, "80"]
    depends_on: { slow: { condition: service_healthy } }
"#;
    Project::on(engine, compose).guest(Guest::Peer).with("IMAGE", image)
}

#[test]
fn after_a_crash_ps_tells_the_truth_and_down_leaves_nothing() {
    let Some(engine) = Engine::answering() else { return };
    let (project, linux, wasm) = mixed(&engine);
    project.up();
    project.ask(wasm, "/say/hi");
    project.crash();
    // The agent notices by itself; the Linux container never depended on the supervisor.
    assert_ne!(project.becomes("wasm", "exited").code, 0);
    assert_eq!(project.service("linux").state, "running");
    assert_eq!(project.ask(linux, "/say/hi"), "hi");

    project.run(&["down"]).well();
    project.gone();
}

#[test]
fn after_a_crash_up_takes_over() {
    let Some(engine) = Engine::answering() else { return };
    let (project, linux, wasm) = mixed(&engine);
    project.up();
    project.ask(wasm, "/say/hi");
    let before = project.service("linux");
    project.crash();
    project.up();
    assert_eq!(project.ask(wasm, "/get/linux/80/say/hi"), "hi");
    assert_eq!(project.ask(linux, "/get/wasm/80/say/hi"), "hi");
    assert_eq!(project.service("linux").id, before.id, "what still ran was left alone");
    assert_eq!(project.supervisors().len(), 1);
}

#[test]
fn after_a_crash_of_a_project_without_engine_down_and_up_work() {
    let port = free_port();
    let compose = "services: { one: { image: ./peer.wasm, command: [serve, \"80\"], ports: [\"${PORT}:80\"] } }";
    let project = Project::wasm(compose).guest(Guest::Peer).with("PORT", port);
    project.up();
    project.ask(port, "/say/hi");
    project.crash();
    assert!(project.ps().values().all(|row| row.state != "running"), "nothing runs any more: {:?}", project.ps());

    project.up();
    assert_eq!(project.ask(port, "/say/back"), "back");
    project.crash();
    project.run(&["down"]).well();
    project.gone();
}

#[test]
fn one_ctrl_c_stops_gracefully_and_keeps_the_containers() {
    let Some(engine) = Engine::answering() else { return };
    let (project, _, wasm) = mixed(&engine);
    let up = project.start(&["up"]);
    project.ask(wasm, "/log/line");
    up.says("wasm-1   | line");
    up.signal(Signal::INT);
    up.says("Gracefully");
    let outcome = up.end();
    assert_eq!(outcome.code, 130, "{outcome}");
    let rows = project.ps();
    assert_eq!(rows["linux"].state, "exited");
    assert_eq!(rows["linux"].code, 0, "it had the time to end by itself");
    assert_eq!(rows["wasm"].state, "exited");
    assert_eq!(project.supervisors(), Vec::<i32>::new());

    let again = project.start(&["up"]);
    project.ask(wasm, "/log/other");
    again.says("wasm-1   | other");
    let outcome = again.interrupted();
    assert!(!outcome.stdout.contains("| line"), "what the first run said is told again:\n{outcome}");
}

#[test]
fn what_a_second_up_kept_stops_and_starts() {
    let Some(engine) = Engine::answering() else { return };
    let (project, _, wasm) = mixed(&engine);
    project.up();
    project.ask(wasm, "/say/hi");
    project.up();
    project.run(&["stop"]).well();
    project.run(&["start"]).well();
    assert_eq!(project.ask(wasm, "/say/hi"), "hi");
}

#[test]
fn a_second_ctrl_c_kills() {
    let Some(engine) = Engine::answering() else { return };
    // `sleep` is the first process of its container, and the peer ignores nothing but is not asked: SIGURG changes nothing.
    let compose = "services: { stubborn: { image: \"${PEER}\", command: [sleep, \"600\"], stop_signal: SIGURG, stop_grace_period: 5m } }";
    let project = Project::on(&engine, compose);
    let up = project.start(&["up"]);
    project.becomes("stubborn", "running");
    up.signal(Signal::INT);
    up.says("Gracefully");
    assert_eq!(project.service("stubborn").state, "running", "it is given its time");
    up.interrupted();
    assert_eq!(project.service("stubborn").code, 137);
}

#[test]
fn a_foreground_up_ends_when_every_service_ended() {
    let project = Project::wasm(
        r#"
services:
  well:   { image: ./module.wasm, command: [say, done] }
  badly:  { image: ./module.wasm, command: [exit, "3"] }
"#,
    )
    .guest(Guest::PeerModule);
    let outcome = project.start(&["up"]).end();
    assert_eq!(outcome.code, 0, "as compose has it:\n{outcome}");
    assert!(outcome.stdout.contains("well-1   | done"), "{outcome}");
    assert!((outcome.stdout + &outcome.stderr).contains("badly-1 exited with code 3"));
}

#[test]
fn a_terminated_supervisor_takes_its_guests_down_in_order() {
    let Some(engine) = Engine::answering() else { return };
    let (project, _, wasm) = mixed(&engine);
    let up = project.start(&["up"]);
    project.ask(wasm, "/say/hi");
    up.signal(Signal::TERM);
    let outcome = up.end();
    assert_eq!(outcome.code, 130, "{outcome}");
    assert_eq!(project.service("wasm").state, "exited");
}

#[test]
fn down_works_while_up_is_still_starting() {
    let Some(engine) = Engine::answering() else { return };
    let project = waiting(&engine, "./peer.wasm");
    let up = project.start(&["up", "-d"]);
    eventually("the first service runs", || {
        let rows = project.ps();
        holds(rows.get("slow").is_some_and(|row| row.state == "running"), format!("{rows:?}"))
    });
    project.run(&["down", "-t", "1"]).well();
    let outcome = up.end();
    assert_ne!(outcome.code, 0, "`up` did not do what it was asked:\n{outcome}");
    project.gone();
}

#[test]
fn ctrl_c_while_starting_stops_what_was_started() {
    let Some(engine) = Engine::answering() else { return };
    let project = waiting(&engine, engine.peer());
    let up = project.start(&["up"]);
    project.becomes("slow", "running");
    up.interrupted();
    let rows = project.ps();
    assert_eq!(rows["slow"].state, "exited");
    assert!(rows.get("after").is_none_or(|row| row.state == "created"), "{rows:?}");
}

#[test]
fn down_from_another_folder_finds_the_project_by_its_name() {
    let Some(engine) = Engine::answering() else { return };
    let (project, _, wasm) = mixed(&engine);
    project.up();
    project.ask(wasm, "/say/hi");
    let name = project.name.clone();
    let mut command = project.command(&["-p", &name, "down"]);
    command.current_dir(project.root());
    crate::support::Running::start(&mut command).end().well();
    project.gone();
}
