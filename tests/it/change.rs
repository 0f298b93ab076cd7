//! An edited file, brought up from a second shell, changes exactly the services it concerns.

use std::collections::BTreeMap;

use crate::support::project::{Row, free_port};
use crate::support::{Engine, Guest, Project};

const FOUR: &str = r#"
services:
  linux:
    image: ${PEER}
    command: [serve, "80"]
    ports: ["${LINUX}:80"]
    environment: { NUMBER: linux-1 }
  wasm:
    image: ./peer.wasm
    command: [serve, "80"]
    ports: ["${WASM}:80"]
    environment: { NUMBER: wasm-1 }
  relay:
    image: ./relay.wasm
    x-wasm: { http: { ports: [8080] } }
    ports: ["${RELAY}:8080"]
  still:
    image: ./peer.wasm
    command: [serve, "80"]
  calm:
    image: ${PEER}
    command: [serve, "80"]
"#;

struct Four {
    project: Project,
    linux: u16,
    wasm: u16,
    relay: u16,
}

fn four(engine: &Engine) -> Four {
    let (linux, wasm, relay) = (free_port(), free_port(), free_port());
    let project = Project::on(engine, FOUR).guest(Guest::Peer).guest(Guest::Relay);
    let project = project.with("LINUX", linux).with("WASM", wasm).with("RELAY", relay);
    Four { project, linux, wasm, relay }
}

/// Services whose container or instance is another one now.
fn changed(before: &BTreeMap<String, Row>, after: &BTreeMap<String, Row>) -> Vec<String> {
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    before.iter().filter(|(name, row)| row.id != after[*name].id).map(|(name, _)| name.clone()).collect()
}

/// Edits, brings up from a second shell, and says which services changed.
fn after_edit(project: &Project, from: &str, to: &str) -> Vec<String> {
    let before = project.ps();
    project.edit(from, to);
    project.up();
    changed(&before, &project.ps())
}

#[test]
fn nothing_changes_when_nothing_was_edited() {
    let Some(engine) = Engine::answering() else { return };
    let Four { project, linux, wasm, .. } = four(&engine);
    project.up();
    let before = project.ps();
    project.up();
    assert_eq!(changed(&before, &project.ps()), Vec::<String>::new());
    assert_eq!(project.ask(linux, "/get/wasm/80/env/NUMBER"), "wasm-1");
    assert_eq!(project.ask(wasm, "/get/linux/80/env/NUMBER"), "linux-1");
    assert_eq!(project.supervisors().len(), 1, "one supervisor a project");
}

#[test]
fn an_edited_environment_changes_its_service_only() {
    let Some(engine) = Engine::answering() else { return };
    let Four { project, linux, wasm, .. } = four(&engine);
    project.up();
    assert_eq!(after_edit(&project, "wasm-1", "wasm-2"), ["wasm"]);
    assert_eq!(project.ask(wasm, "/env/NUMBER"), "wasm-2");
    assert_eq!(project.ask(linux, "/get/wasm/80/env/NUMBER"), "wasm-2", "the others find it again");

    assert_eq!(after_edit(&project, "linux-1", "linux-2"), ["linux"]);
    assert_eq!(project.ask(wasm, "/get/linux/80/env/NUMBER"), "linux-2");
}

#[test]
fn an_edited_port_moves_its_service_only() {
    let Some(engine) = Engine::answering() else { return };
    let Four { project, wasm, .. } = four(&engine);
    project.up();
    project.ask(wasm, "/say/hi");
    let moved = free_port();
    assert_eq!(after_edit(&project, "${WASM}:80", &format!("{moved}:80")), ["wasm"]);
    assert_eq!(project.ask(moved, "/say/hi"), "hi");
    assert!(crate::support::http::get(wasm, "/say/hi").is_err(), "the old port is free");
}

#[test]
fn an_edited_x_wasm_key_changes_its_service_only() {
    let Some(engine) = Engine::answering() else { return };
    let Four { project, relay, .. } = four(&engine);
    project.up();
    project.ask(relay, "/say/hi");
    assert_eq!(after_edit(&project, "{ ports: [8080] }", "{ ports: [8080], reuse: true }"), ["relay"]);
    assert_eq!(project.ask(relay, "/say/hi"), "hi");
}

#[test]
fn services_of_new_module_bytes_take_them_over() {
    let Some(engine) = Engine::answering() else { return };
    let Four { project, relay, .. } = four(&engine);
    project.up();
    project.ask(relay, "/say/hi");
    let before = project.ps();
    // A custom section more: other bytes, the same behaviour. Component binaries end with sections, so it may be appended.
    let module = project.folder().join("relay.wasm");
    let mut bytes = std::fs::read(&module).expect("the module is there");
    bytes.extend([0, 5, 4, b'n', b'o', b't', b'e']);
    std::fs::write(&module, bytes).expect("a writable folder");
    let outcome = project.up();
    assert!(outcome.stderr.contains("-relay-1  Reloaded"), "{outcome}");
    assert_eq!(changed(&before, &project.ps()), [""; 0], "nothing is made anew");
    assert_eq!(project.ask(relay, "/say/hi"), "hi");
}

#[test]
fn a_second_shell_hands_its_file_to_the_foreground() {
    let Some(engine) = Engine::answering() else { return };
    let Four { project, wasm, .. } = four(&engine);
    let foreground = project.start(&["up"]);
    project.ask(wasm, "/say/hi");
    for service in ["linux", "relay", "still", "calm"] {
        project.becomes(service, "running");
    }
    assert_eq!(after_edit(&project, "wasm-1", "wasm-2"), ["wasm"]);
    assert_eq!(project.ask(wasm, "/env/NUMBER"), "wasm-2");
    assert_eq!(project.supervisors(), [foreground.id() as i32], "the one in the foreground did it");
    foreground.interrupted();
}

#[test]
fn a_removed_service_is_an_orphan_until_asked_for() {
    let Some(engine) = Engine::answering() else { return };
    let Four { project, .. } = four(&engine);
    project.up();
    project.edit("  still:\n    image: ./peer.wasm\n    command: [serve, \"80\"]\n", "");
    let outcome = project.up();
    assert!(outcome.stderr.contains("orphan"), "{outcome}");
    assert!(project.ps().contains_key("still"));
    project.run(&["up", "-d", "--remove-orphans"]).well();
    assert!(!project.ps().contains_key("still"));
}
