//! Guests of WASI 0.3: commands, HTTP components, their sockets. Told apart from those of 0.2 by what they import and export.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpStream};
use std::thread;

use crate::support::project::free_port;
use crate::support::{Engine, Guest, Project, eventually, http};

/// An async peer on the host's port, with this in its service.
fn peer(more: &str) -> (Project, u16) {
    let port = free_port();
    let compose = format!(
        "services:\n  one:\n    image: ./async-peer.wasm\n    command: [serve, \"80\"]\n    ports: [\"${{PORT}}:80\"]\n{more}"
    );
    (Project::wasm(&compose).guest(Guest::AsyncPeer).with("PORT", port), port)
}

/// An async relay on the host's port, with these services beside it.
fn relay(more: &str) -> (Project, u16) {
    let port = free_port();
    let compose = format!("services:\n  one: {{ image: ./async-relay.wasm, ports: [\"${{PORT}}:8080\"] }}\n{more}");
    (Project::wasm(&compose).guest(Guest::AsyncRelay).with("PORT", port), port)
}

#[test]
fn a_command_runs_to_its_end_and_its_failure_is_its_exit_code() {
    let project = Project::wasm("services: { job: { image: ./async-peer.wasm, command: [say, hello] } }");
    let project = project.guest(Guest::AsyncPeer);
    project.up();
    assert_eq!(project.becomes("job", "exited").code, 0);
    assert_eq!(project.logs("job").trim_end(), "hello");
    project.edit("[say, hello]", "[fail]");
    project.up();
    assert_eq!(project.becomes("job", "exited").code, 1);
}

#[test]
fn one_guest_serves_many_connections_at_once() {
    let (project, port) = peer("");
    project.up();
    assert_eq!(project.ask(port, "/say/hi"), "hi");
    let waiting = thread::spawn(move || http::get(port, "/wait"));
    assert_eq!(project.ask(port, "/release"), "done");
    assert_eq!(waiting.join().expect("no panic").expect("an answer"), (200, "released".to_owned()));
}

#[test]
fn its_sockets_reach_its_network_and_nothing_else() {
    let (project, port) = peer("  two: { image: ./peer.wasm, command: [serve, \"81\"], environment: { WHO: two } }\n");
    let project = project.guest(Guest::Peer);
    let host = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let target = host.local_addr().expect("an address").port();
    project.up();
    assert_eq!(project.ask(port, "/get/two/81/env/WHO"), "two");
    assert!(project.ask(port, "/lookup/two").starts_with("IpAddress::Ipv4"));
    assert!(project.ask_in_vain(port, "/lookup/nobody").contains("NameUnresolvable"));
    assert!(project.ask_in_vain(port, "/lookup/example.com").contains("AccessDenied"));
    assert!(project.ask_in_vain(port, "/get/169.254.169.254/80/latest").contains("AccessDenied"));
    assert!(project.ask_in_vain(port, &format!("/get/127.0.0.1/{target}/x")).contains("ConnectionRefused"));
    assert!(project.logged("one", "169.254.169.254:80").contains("egress"));
}

#[test]
fn its_datagrams_reach_its_network_and_nothing_else() {
    let (project, port) = peer("  two: { image: ./async-peer.wasm, command: [serve, \"81\"] }\n");
    project.up();
    assert_eq!(project.ask(port, "/udp/two/81/hello"), "hello");
    assert_eq!(project.ask(port, "/udp/localhost/80/itself"), "itself");
    assert!(project.ask_in_vain(port, "/udp/169.254.169.254/53/x").contains("AccessDenied"));
}

#[test]
fn its_files_are_those_it_was_given() {
    let (project, port) =
        peer("    configs: [{ source: note, target: /note }]\nconfigs: { note: { content: kept } }\n");
    project.up();
    assert_eq!(project.ask(port, "/read/note"), "kept");
    project.ask_in_vain(port, "/read/..%2f..%2fetc%2fpasswd");
}

#[test]
fn addresses_of_the_other_family_are_told_in_the_words_of_the_sockets_own() {
    let (project, port) = peer("");
    project.up();
    project.ask(port, "/say/hi");
    let mut stream = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).expect("it is published for both");
    stream.write_all(b"GET /peer HTTP/1.1\r\nhost: one\r\n\r\n").expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("Ipv4") && answer.contains("127"), "{answer}");
}

#[test]
fn an_http_component_answers_and_keeps_nothing_between_requests() {
    let (project, port) = relay("");
    project.up();
    assert_eq!(project.ask(port, "/requests"), "1");
    assert_eq!(project.ask(port, "/requests"), "1");
    assert_eq!(http::get(port, "/trap").expect("an answer").0, 500);
    assert_eq!(project.ask(port, "/say/hi"), "hi");
    project.edit("image: ./async-relay.wasm,", "image: ./async-relay.wasm, x-wasm: { http: { reuse: true } },");
    project.up();
    eventually("an instance is used again", || {
        match http::get(port, "/requests").map_err(|error| error.to_string())? {
            (200, count) if count != "1" => Ok(()),
            answer => Err(format!("{answer:?}")),
        }
    });
}

#[test]
fn both_generations_of_http_components_ask_each_other() {
    let (project, port) = relay(
        "  old: { image: ./relay.wasm, environment: { WHO: old } }\n  new: { image: ./async-relay.wasm, environment: { WHO: new } }\n",
    );
    let project = project.guest(Guest::Relay);
    project.up();
    assert_eq!(project.ask(port, "/get/old/8080/env/WHO"), "old");
    assert_eq!(project.ask(port, "/get/new/8080/env/WHO"), "new");
    assert_eq!(project.ask(port, "/get/old/8080/get/new/8080/env/WHO"), "new");
    assert!(project.ask_in_vain(port, "/get/example.com/80/").contains("HttpRequestDenied"));
}

#[test]
fn a_request_that_never_ends_does_not_keep_the_service_from_stopping() {
    let (project, port) = relay("");
    project.up();
    project.ask(port, "/say/hi");
    let spinning = thread::spawn(move || http::get(port, "/spin"));
    project.run(&["stop", "-t", "1"]).well();
    assert_eq!(project.becomes("one", "exited").code, 137);
    assert_ne!(spinning.join().expect("no panic").map_or(0, |(status, _)| status), 200);
}

#[test]
fn linux_services_and_guests_of_wasi_3_reach_each_other() {
    let Some(engine) = Engine::answering() else { return };
    let (guest, linux) = (free_port(), free_port());
    let project = Project::on(
        &engine,
        r#"
services:
  guest: { image: ./async-peer.wasm, command: [serve, "80"], ports: ["${GUEST}:80"], environment: { WHO: guest } }
  linux: { image: "${PEER}", command: [serve, "80"], ports: ["${LINUX}:80"], environment: { WHO: linux } }
"#,
    )
    .guest(Guest::AsyncPeer)
    .with("GUEST", guest)
    .with("LINUX", linux);
    project.up();
    assert_eq!(project.ask(guest, "/get/linux/80/env/WHO"), "linux");
    assert_eq!(project.ask(linux, "/get/guest/80/env/WHO"), "guest");
}
