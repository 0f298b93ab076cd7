//! Projects of Wasm services alone: they need no engine, and their services are services like any other.

use crate::support::project::free_port;
use crate::support::{Guest, Project, eventually, holds, http};

/// A steerable guest on the host's port.
const ONE: &str = r#"
services:
  one:
    image: ./peer.wasm
    command: [serve, "80"]
    ports: ["${PORT}:80"]
"#;

fn one() -> (Project, u16) {
    let port = free_port();
    (Project::wasm(ONE).guest(Guest::Peer).with("PORT", port), port)
}

/// One run of the preview 1 module, with this in its service.
fn job(more: &str) -> Project {
    Project::wasm(&format!("services:\n  job:\n    image: ./module.wasm\n{more}")).guest(Guest::PeerModule)
}

#[test]
fn a_project_without_linux_services_needs_no_engine() {
    let (project, port) = one();
    project.up();
    assert_eq!(project.ask(port, "/say/hello"), "hello");
    assert_eq!(project.service("one").state, "running");

    project.run(&["down"]).well();
    project.gone();
    assert!(http::get(port, "/say/hello").is_err(), "the port is free again");
}

#[test]
fn a_guest_sees_its_arguments_and_its_declared_environment_and_nothing_else() {
    let project = job("    command: [env]\n    environment: { GIVEN: \"1\", FROM_FILE: \"${VALUE-default}\" }\n");
    project.up();
    project.becomes("job", "exited");
    assert_eq!(project.logs("job").trim_end(), "FROM_FILE=default\nGIVEN=1");

    let project = job("    command: [args]\n");
    project.up();
    project.becomes("job", "exited");
    assert_eq!(project.logs("job").trim_end(), "module.wasm\nargs");
}

#[test]
fn an_exit_code_is_shown_as_the_guest_gave_it() {
    let project = job("    command: [exit, \"7\"]\n");
    project.up();
    let row = project.becomes("job", "exited");
    assert_eq!(row.code, 7);
    assert!(row.status.starts_with("Exited (7)"), "{row:?}");
}

#[test]
fn a_trap_is_exit_134_with_the_functions_named_in_the_log() {
    let project = job("    command: [trap]\n");
    project.up();
    assert_eq!(project.becomes("job", "exited").code, 134);
    let logs = project.logs("job");
    assert!(logs.contains("something was left"), "the guest's own message:\n{logs}");
    assert!(logs.contains("fall_over"), "the frame's name:\n{logs}");
}

#[test]
fn a_read_only_mount_can_be_read_and_not_written() {
    let project = job("    command: [read, /in/note]\n    volumes: [\"./in:/in:ro\"]\n");
    project.write("in/note", "from the host");
    project.up();
    project.becomes("job", "exited");
    assert_eq!(project.logs("job").trim_end(), "from the host");

    project.edit("[read, /in/note]", "[write, /in/note, changed]");
    project.up();
    let row = project.becomes("job", "exited");
    assert_eq!(row.code, 1, "{}", project.logs("job"));
    assert_eq!(std::fs::read_to_string(project.folder().join("in/note")).expect("the note"), "from the host");
}

#[test]
fn a_guest_sees_no_file_of_the_host_that_was_not_given() {
    let project = job("    command: [read, /etc/passwd]\n");
    project.up();
    assert_eq!(project.becomes("job", "exited").code, 1);
    assert!(!project.logs("job").contains("root:"));
}

#[test]
fn a_named_volume_survives_down_and_goes_with_down_v() {
    let project = job("    command: [write, /data/note, kept]\n    volumes: [\"data:/data\"]\nvolumes: { data: }\n");
    project.up();
    assert_eq!(project.becomes("job", "exited").code, 0, "{}", project.logs("job"));
    project.run(&["down"]).well();

    project.edit("[write, /data/note, kept]", "[read, /data/note]");
    project.up();
    project.becomes("job", "exited");
    assert_eq!(project.logs("job").trim_end(), "kept");

    project.run(&["down", "-v"]).well();
    project.up();
    assert_eq!(project.becomes("job", "exited").code, 1, "the volume is empty again");
}

#[test]
fn guests_reach_each_other_by_name_also_on_the_same_port() {
    let port = free_port();
    let project = Project::wasm(
        r#"
services:
  left:  { image: ./peer.wasm, command: [serve, "80"], ports: ["${PORT}:80"] }
  right: { image: ./peer.wasm, command: [serve, "80"], environment: { SIDE: right } }
"#,
    )
    .guest(Guest::Peer)
    .with("PORT", port);
    project.up();
    assert_eq!(project.ask(port, "/get/right/80/env/SIDE"), "right");
    assert!(project.ask(port, "/lookup/localhost").starts_with("127.0.0.1"), "localhost is the guest itself");
    assert_ne!(project.ask(port, "/lookup/left"), project.ask(port, "/lookup/right"), "each has an address of its own");
}

#[test]
fn names_end_at_the_edge_of_a_network() {
    let port = free_port();
    let project = Project::wasm(
        r#"
services:
  inside:  { image: ./peer.wasm, command: [serve, "80"], networks: [a], ports: ["${PORT}:80"] }
  beside:  { image: ./peer.wasm, command: [serve, "80"], networks: { a: { aliases: [neighbour] } } }
  outside: { image: ./peer.wasm, command: [serve, "80"], networks: [b] }
networks: { a: , b: }
"#,
    )
    .guest(Guest::Peer)
    .with("PORT", port);
    project.up();
    assert_eq!(project.ask(port, "/get/neighbour/80/say/hi"), "hi");
    project.ask_in_vain(port, "/lookup/outside");
    project.ask_in_vain(port, "/get/outside/80/say/hi");
}

#[test]
fn an_http_component_calls_another_service_by_name() {
    let port = free_port();
    let project = Project::wasm(
        r#"
services:
  front: { image: ./relay.wasm, ports: ["${PORT}:8080"] }
  back:  { image: ./relay.wasm, environment: { WHO: back } }
  raw:   { image: ./peer.wasm, command: [serve, "90"] }
"#,
    )
    .guest(Guest::Relay)
    .guest(Guest::Peer)
    .with("PORT", port);
    project.up();
    assert_eq!(project.ask(port, "/get/back/8080/env/WHO"), "back");
    assert_eq!(project.ask(port, "/get/back/8080/host"), "back:8080");
    assert_eq!(project.ask(port, "/get/raw/90/say/hi"), "hi", "a component reaches a guest that serves by sockets");
}

#[test]
fn no_state_passes_from_one_http_request_to_the_next() {
    let port = free_port();
    let project = Project::wasm("services: { one: { image: ./relay.wasm, ports: [\"${PORT}:8080\"] } }")
        .guest(Guest::Relay)
        .with("PORT", port);
    project.up();
    assert_eq!(project.ask(port, "/requests"), "1");
    assert_eq!(project.ask(port, "/requests"), "1");
}

#[test]
fn a_trap_in_one_request_is_that_requests_error_only() {
    let port = free_port();
    let project = Project::wasm("services: { one: { image: ./relay.wasm, ports: [\"${PORT}:8080\"] } }")
        .guest(Guest::Relay)
        .with("PORT", port);
    project.up();
    project.ask(port, "/say/hi");
    assert_eq!(http::get(port, "/trap").expect("an answer").0, 500);
    let mut connection = http::Connection::open(port).expect("a connection");
    let half = connection.get("/half");
    assert!(half.is_err(), "what came of a body before the trap must not pass for all of it: {half:?}");
    assert_eq!(project.ask(port, "/say/hi"), "hi");
    assert_eq!(project.service("one").state, "running");
    project.logged("one", "asked to");
}

#[test]
fn a_guest_reaches_nothing_of_the_host_and_the_log_says_what_to_add() {
    let (project, port) = one();
    let host = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let target = host.local_addr().expect("an address").port();
    project.up();
    project.ask_in_vain(port, &format!("/send/127.0.0.1/{target}/hello"));
    project.ask_in_vain(port, "/send/169.254.169.254/80/hello");
    let logs = project.logged("one", "169.254.169.254:80");
    assert!(logs.contains("egress"), "the log names the grant:\n{logs}");
}

#[test]
fn a_dependency_is_told_in_the_environment() {
    let port = free_port();
    let project = Project::wasm(
        r#"
services:
  one:
    image: ./peer.wasm
    command: [serve, "80"]
    ports: ["${PORT}:80"]
    environment: { THREE_HOST: mine }
    depends_on: [my-two, three]
  my-two: { image: ./peer.wasm, command: [serve, "70"], expose: ["70"] }
  three:  { image: ./peer.wasm, command: [serve, "71"], expose: ["71"] }
"#,
    )
    .guest(Guest::Peer)
    .with("PORT", port);
    project.up();
    assert_eq!(project.ask(port, "/env/MY_TWO_HOST"), "my-two");
    assert_eq!(project.ask(port, "/env/MY_TWO_PORT"), "70");
    assert_eq!(project.ask(port, "/env/THREE_HOST"), "mine", "what the file sets stays");
    assert_eq!(project.ask(port, "/get/my-two/70/say/hi"), "hi");
}

#[test]
fn a_failing_guest_is_started_again_as_its_policy_says() {
    let project = job("    command: [exit, \"3\"]\n    restart: \"on-failure:2\"\n");
    project.up();
    let row = eventually("the policy is used up", || match project.ps().remove("job") {
        Some(row) if row.state == "exited" && project.logs("job").matches("leaving").count() == 3 => Ok(row),
        seen => Err(format!("{seen:?}")),
    });
    assert_eq!(row.code, 3);

    let (project, port) = one();
    project.edit("command:", "restart: always\n    command:");
    project.up();
    project.ask(port, "/say/hi");
    let _ = http::get(port, "/exit/1");
    assert_eq!(project.ask(port, "/say/back"), "back");
}

#[test]
fn a_guest_that_spins_holds_up_nobody() {
    let port = free_port();
    let project = Project::wasm(
        r#"
services:
  spinner: { image: ./module.wasm, command: [spin] }
  second:  { image: ./module.wasm, command: [spin] }
  third:   { image: ./module.wasm, command: [spin] }
  server:  { image: ./relay.wasm, ports: ["${PORT}:8080"] }
"#,
    )
    .guest(Guest::PeerModule)
    .guest(Guest::Relay)
    .with("PORT", port);
    project.up();
    assert_eq!(project.ask(port, "/say/hi"), "hi");
    let start = crate::support::now();
    project.run(&["stop", "spinner"]).well();
    assert!(start.elapsed().as_secs() < 8, "it ends at once, not after the grace period");
    assert_eq!(project.becomes("spinner", "exited").code, 143);
    assert_eq!(project.service("second").state, "running");
}

#[test]
fn health_is_asked_natively_and_gates_dependents() {
    let port = free_port();
    let project = Project::wasm(
        r#"
services:
  server:
    image: ./relay.wasm
    healthcheck: { test: ["CMD", "curl", "-f", "http://localhost:8080/say/well"], interval: 200ms }
  after:
    image: ./peer.wasm
    command: [serve, "80"]
    ports: ["${PORT}:80"]
    depends_on: { server: { condition: service_healthy } }
  never:
    image: ./relay.wasm
    healthcheck: { test: ["CMD", "curl", "-f", "http://localhost:8080/unknown"], interval: 100ms, retries: 2 }
"#,
    )
    .guest(Guest::Peer)
    .guest(Guest::Relay)
    .with("PORT", port);
    project.up();
    assert_eq!(project.ask(port, "/say/hi"), "hi");
    assert_eq!(project.service("server").health, "healthy");
    eventually("the other becomes unhealthy", || {
        let row = project.service("never");
        holds(row.health == "unhealthy", format!("{row:?}"))
    });
}

#[test]
fn services_can_be_stopped_started_and_restarted_by_name() {
    let (project, port) = one();
    project.up();
    let before = project.service("one");
    project.run(&["stop", "one"]).well();
    assert_eq!(project.service("one").state, "exited");
    project.run(&["start", "one"]).well();
    assert_eq!(project.ask(port, "/say/again"), "again");
    project.run(&["restart"]).well();
    assert_eq!(project.ask(port, "/say/again"), "again");
    assert_eq!(project.service("one").created, before.created, "it is the same instance all along");
    project.run(&["stop", "nobody"]).refused(&["nobody"]);
}

#[test]
fn logs_of_several_services_come_in_one_order_of_time() {
    let project = Project::wasm(
        r#"
services:
  early: { image: ./module.wasm, command: [say, first] }
  later: { image: ./module.wasm, command: [say, second], depends_on: { early: { condition: service_completed_successfully } } }
"#,
    )
    .guest(Guest::PeerModule);
    project.up();
    project.becomes("later", "exited");
    let lines = project.run(&["logs"]).well().stdout;
    assert_eq!(lines, "early-1  | first\nlater-1  | second\n");

    project.crash();
    assert_eq!(project.run(&["logs"]).well().stdout, lines, "kept lines need no supervisor");
    assert_eq!(project.run(&["logs", "--tail", "1", "later"]).well().stdout, "later-1  | second\n");
}

#[test]
fn following_logs_shows_what_was_and_what_comes() {
    let (project, port) = one();
    project.up();
    project.ask(port, "/log/before");
    let follower = project.start(&["logs", "-f", "one"]);
    follower.says("before");
    project.ask(port, "/log/after");
    follower.says("after on stderr");
    follower.signal(rustix::process::Signal::INT);
    let outcome = follower.end();
    assert_eq!(outcome.stdout.matches("| before\n").count(), 1, "each line once:\n{outcome}");
}

#[test]
fn an_unchanged_guest_is_compiled_once() {
    let (project, port) = one();
    let cache = project.root().join("cache");
    let project = project.with("WCOMPOSE_CACHE_DIR", cache.display());
    let entries = || {
        let mut files = Vec::new();
        crate::support::leaks::walk(&cache, &mut |path, kind| {
            if kind.is_file() {
                let written = path.metadata().and_then(|meta| meta.modified()).expect("a file of ours");
                files.push((path.to_owned(), written));
            }
        });
        files.sort();
        files
    };
    project.up();
    project.ask(port, "/say/hi");
    project.run(&["down"]).well();
    let first = entries();
    assert!(!first.is_empty(), "compiled code is kept");

    project.up();
    project.ask(port, "/say/hi");
    assert_eq!(entries(), first, "and used again");
}
