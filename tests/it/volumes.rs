//! Named volumes that both kinds of service share.

use crate::support::project::free_port;
use crate::support::{Engine, Guest, Project};

const SHARED: &str = r#"
services:
  linux:
    image: ${PEER}
    command: [serve, "80"]
    ports: ["${LINUX}:80"]
    volumes: ["data:/data"]
  wasm:
    image: ./peer.wasm
    command: [serve, "80"]
    ports: ["${WASM}:80"]
    volumes: ["data:/data"]
volumes: { data: }
"#;

#[test]
fn what_linux_writes_a_guest_reads_and_rewrites_across_down_and_up() {
    let Some(engine) = Engine::answering() else { return };
    let (linux, wasm) = (free_port(), free_port());
    let project = Project::on(&engine, SHARED).guest(Guest::Peer).with("LINUX", linux).with("WASM", wasm);
    project.up();
    project.ask(linux, "/write/%2Fdata%2Ffrom-linux/one");
    assert_eq!(project.ask(wasm, "/read/%2Fdata%2Ffrom-linux"), "one");
    project.ask(wasm, "/write/%2Fdata%2Ffrom-wasm/two");
    project.ask(wasm, "/write/%2Fdata%2Ffrom-wasm/three");
    assert_eq!(project.ask(linux, "/read/%2Fdata%2Ffrom-wasm"), "three");

    project.run(&["down"]).well();
    assert_eq!(project.left(), [format!("volume {}_data", project.name)], "`down` keeps the volume and nothing else");

    project.up();
    assert_eq!(project.ask(linux, "/read/%2Fdata%2Ffrom-wasm"), "three");
    assert_eq!(project.ask(wasm, "/read/%2Fdata%2Ffrom-linux"), "one");
    project.ask(wasm, "/write/%2Fdata%2Ffrom-wasm/four");
    assert_eq!(project.ask(linux, "/read/%2Fdata%2Ffrom-wasm"), "four");

    project.run(&["down", "-v"]).well();
    project.gone();
}

#[test]
fn a_guest_cannot_write_a_volume_mounted_read_only() {
    let Some(engine) = Engine::answering() else { return };
    let (linux, wasm) = (free_port(), free_port());
    let project = Project::on(&engine, SHARED).guest(Guest::Peer).with("LINUX", linux).with("WASM", wasm);
    project.edit(
        "ports: [\"${WASM}:80\"]\n    volumes: [\"data:/data\"]",
        "ports: [\"${WASM}:80\"]\n    volumes: [\"data:/data:ro\"]",
    );
    project.up();
    project.ask(linux, "/write/%2Fdata%2Fnote/one");
    assert_eq!(project.ask(wasm, "/read/%2Fdata%2Fnote"), "one");
    project.ask_in_vain(wasm, "/write/%2Fdata%2Fnote/two");
}

#[test]
fn a_guest_does_not_leave_its_volume_by_dots() {
    let Some(engine) = Engine::answering() else { return };
    let (linux, wasm) = (free_port(), free_port());
    let project = Project::on(&engine, SHARED).guest(Guest::Peer).with("LINUX", linux).with("WASM", wasm);
    project.up();
    project.ask_in_vain(wasm, "/read/%2Fdata%2F..%2Fagent");
    project.ask_in_vain(wasm, "/list/%2Fdata%2F..%2F..%2Fproc");
}
