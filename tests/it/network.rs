//! Linux and Wasm services on one network: names resolve both ways, and edges hold.

use crate::support::project::free_port;
use crate::support::{Engine, Guest, Project};

/// Two services of the two kinds, both steerable, both published.
const BOTH: &str = r#"
services:
  linux:
    image: ${PEER}
    command: [serve, "80"]
    ports: ["${LINUX}:80"]
    environment: { KIND: linux }
  wasm:
    image: ./peer.wasm
    command: [serve, "80"]
    ports: ["${WASM}:80"]
    environment: { KIND: wasm }
    networks: { default: { aliases: [guest] } }
"#;

struct Both {
    project: Project,
    linux: u16,
    wasm: u16,
}

fn both(engine: &Engine, compose: &str) -> Both {
    let (linux, wasm) = (free_port(), free_port());
    let project = Project::on(engine, compose).guest(Guest::Peer).guest(Guest::Relay);
    Both { project: project.with("LINUX", linux).with("WASM", wasm), linux, wasm }
}

#[test]
fn linux_reaches_wasm_by_service_name_alias_and_container_name() {
    let Some(engine) = Engine::answering() else { return };
    let Both { project, linux, .. } = both(&engine, BOTH);
    project.up();
    let container = format!("{}-wasm-1", project.name);
    for name in ["wasm", "guest", container.as_str()] {
        assert_eq!(project.ask(linux, &format!("/get/{name}/80/env/KIND")), "wasm", "by the name {name}");
    }
    assert_ne!(project.ask(linux, "/lookup/wasm"), project.ask(linux, "/lookup/linux"), "an address of its own");
}

#[test]
fn wasm_reaches_linux_by_name_over_sockets_and_over_http() {
    let Some(engine) = Engine::answering() else { return };
    let relay = "\n  relay: { image: ./relay.wasm, ports: [\"${RELAY}:8080\"] }\n";
    let Both { project, linux, wasm } = both(&engine, &format!("{BOTH}{relay}"));
    let port = free_port();
    let project = project.with("RELAY", port);
    project.up();
    assert_eq!(project.ask(wasm, "/get/linux/80/env/KIND"), "linux");
    assert_eq!(project.ask(port, "/get/linux/80/env/KIND"), "linux");
    assert_eq!(project.ask(wasm, "/lookup/linux"), project.ask(linux, "/lookup/linux"), "both see one address");
    project.ask_in_vain(wasm, "/lookup/nobody");
}

#[test]
fn each_side_sees_the_other_at_its_own_address() {
    let Some(engine) = Engine::answering() else { return };
    let Both { project, linux, wasm } = both(&engine, BOTH);
    project.up();
    assert_eq!(project.ask(linux, "/get/wasm/80/caller"), project.ask(wasm, "/lookup/linux"));
    assert_eq!(project.ask(wasm, "/get/linux/80/caller"), project.ask(linux, "/lookup/wasm"));
}

#[test]
fn many_services_listen_on_one_port_number() {
    let Some(engine) = Engine::answering() else { return };
    let twin = "\n  twin: { image: ./peer.wasm, command: [serve, \"80\"], environment: { KIND: twin } }\n";
    let Both { project, linux, wasm } = both(&engine, &format!("{BOTH}{twin}"));
    project.up();
    // Not each from itself: a preview 2 guest has one thread.
    for (port, kinds) in [(linux, ["wasm", "twin"]), (wasm, ["linux", "twin"])] {
        for kind in kinds {
            assert_eq!(project.ask(port, &format!("/get/{kind}/80/env/KIND")), kind);
        }
    }
}

#[test]
fn networks_are_kept_apart_for_both_kinds() {
    let Some(engine) = Engine::answering() else { return };
    let Both { project, linux, wasm } = both(
        &engine,
        r#"
services:
  linux-a: { image: "${PEER}", command: [serve, "80"], networks: [a], ports: ["${LINUX}:80"] }
  wasm-a:  { image: ./peer.wasm, command: [serve, "80"], networks: [a], ports: ["${WASM}:80"] }
  linux-b: { image: "${PEER}", command: [serve, "80"], networks: [b] }
  wasm-b:  { image: ./peer.wasm, command: [serve, "80"], networks: [b] }
networks: { a: , b: }
"#,
    );
    project.up();
    assert_eq!(project.ask(linux, "/get/wasm-a/80/say/hi"), "hi");
    assert_eq!(project.ask(wasm, "/get/linux-a/80/say/hi"), "hi");
    for port in [linux, wasm] {
        project.ask_in_vain(port, "/lookup/linux-b");
        project.ask_in_vain(port, "/lookup/wasm-b");
    }
    // Knowing an address does not help a guest either.
    let outside = engine.get(&format!("/containers/{}-linux-b-1/json", project.name));
    let address = &outside["NetworkSettings"]["Networks"][format!("{}_b", project.name)]["IPAddress"];
    let address = address.as_str().expect("an address");
    project.ask_in_vain(wasm, &format!("/get/{address}/80/say/hi"));
}

#[test]
fn a_wasm_service_is_a_container_to_other_tools() {
    let Some(engine) = Engine::answering() else { return };
    let Both { project, wasm, .. } = both(&engine, BOTH);
    project.up();
    let container = format!("{}-wasm-1", project.name);
    assert!(engine.ids(&project.name).contains_key(&container), "{:?}", engine.ids(&project.name));
    project.ask(wasm, "/log/seen");
    crate::support::eventually("`docker logs` shows the guest's lines", || {
        let logs = engine.logs(&container);
        crate::support::holds(logs.contains("seen"), logs)
    });

    engine.post(&format!("/containers/{container}/stop"), &serde_json::json!({}));
    project.becomes("wasm", "exited");
}

#[test]
fn linux_and_wasm_wait_for_each_other() {
    let Some(engine) = Engine::answering() else { return };
    let Both { project, linux, wasm } = both(
        &engine,
        r#"
services:
  job:
    image: ./peer.wasm
    command: [say, prepared]
  linux:
    image: ${PEER}
    command: [serve, "80"]
    ports: ["${LINUX}:80"]
    healthcheck: { test: [CMD, /peer, check, "80"], interval: 500ms }
    depends_on: { job: { condition: service_completed_successfully } }
  wasm:
    image: ./peer.wasm
    command: [serve, "80"]
    ports: ["${WASM}:80"]
    depends_on: { linux: { condition: service_healthy } }
"#,
    );
    project.up();
    let rows = project.ps();
    assert_eq!((rows["job"].state.as_str(), rows["job"].code), ("exited", 0));
    assert_eq!(rows["linux"].health, "healthy");
    assert_eq!(project.ask(wasm, "/get/linux/80/say/hi"), "hi");
    assert_eq!(project.ask(linux, "/get/wasm/80/say/hi"), "hi");
}

#[test]
fn a_project_of_linux_services_alone_leaves_no_process_of_ours() {
    let Some(engine) = Engine::answering() else { return };
    let port = free_port();
    let compose = "services: { web: { image: \"${PEER}\", command: [serve, \"80\"], ports: [\"${PORT}:80\"] } }";
    let project = Project::on(&engine, compose).with("PORT", port);
    project.up();
    assert_eq!(project.ask(port, "/say/hi"), "hi");
    assert_eq!(project.supervisors(), Vec::<i32>::new());
    assert!(project.logs("web").contains("listening on 80"));
    assert_eq!(project.service("web").state, "running");
}
