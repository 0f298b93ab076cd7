//! Bad input: one clear error that names the place and what to do, an exit code that is not 0, and nothing left behind.

use std::net::TcpListener;

use crate::support::project::free_port;
use crate::support::{Engine, Guest, Outcome, Project};

/// `up -d` must be refused, naming these words, and leave nothing.
#[track_caller]
fn refused(project: &Project, words: &[&str]) -> Outcome {
    let outcome = project.run(&["up", "-d"]).refused(words);
    project.gone();
    outcome
}

#[test]
fn a_file_that_is_no_yaml_is_refused_where_it_breaks() {
    let project = Project::wasm("services:\n  one:\n    image: [unfinished\n");
    refused(&project, &["error", "compose.yaml:"]);
}

#[test]
fn an_unknown_key_is_refused_with_a_suggestion() {
    let project = Project::wasm("services:\n  one:\n    imagee: ./peer.wasm\n");
    refused(&project, &["compose.yaml:3:5", "imagee", "image"]);
}

#[test]
fn an_unknown_dependency_is_refused_where_it_stands() {
    let project = Project::wasm(
        "services:\n  web:\n    image: ./peer.wasm\n    depends_on: [databse]\n  database:\n    image: ./peer.wasm\n",
    );
    refused(&project, &["compose.yaml:4", "databse", "web", "database"]);
}

#[test]
fn a_cycle_is_shown_as_a_path() {
    let project = Project::wasm(
        r#"
services:
  a: { image: ./peer.wasm, depends_on: [b] }
  b: { image: ./peer.wasm, depends_on: [c] }
  c: { image: ./peer.wasm, depends_on: [a] }
"#,
    );
    refused(&project, &["compose.yaml:", "a → b → c → a"]);
}

#[test]
fn a_missing_file_is_named() {
    let project = Project::wasm("services: { one: { image: ./absent.wasm } }");
    refused(&project, &["one", "absent.wasm"]);
    let project = Project::wasm("");
    refused(&project, &["compose.yaml"]);
}

#[test]
fn a_file_that_is_no_module_is_refused() {
    let project = Project::wasm("services: { one: { image: ./text.wasm } }");
    project.write("text.wasm", "just some text");
    refused(&project, &["one", "text.wasm"]);
}

#[test]
fn unknown_imports_are_refused_each_by_its_name() {
    let project = Project::wasm("services: { one: { image: ./strange.wat } }");
    project.write(
        "strange.wat",
        r#"(module (import "warp" "drive" (func)) (import "warp" "shield" (func)) (func (export "_start")))"#,
    );
    refused(&project, &["one", "strange.wat", "warp", "drive", "shield"]);
}

#[test]
fn a_taken_port_is_refused_naming_who_holds_it() {
    let holder = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = holder.local_addr().expect("an address").port();
    let compose = "services: { one: { image: ./peer.wasm, command: [serve, \"80\"], ports: [\"${PORT}:80\"] } }";
    let project = Project::wasm(compose).guest(Guest::Peer).with("PORT", port);
    // This process holds it.
    refused(&project, &["one", &port.to_string(), &std::process::id().to_string()]);
}

#[test]
fn a_port_taken_from_a_linux_service_is_refused_by_name() {
    let Some(engine) = Engine::answering() else { return };
    let port = free_port();
    let holder = TcpListener::bind(("0.0.0.0", port)).expect("a free port");
    let compose = "services: { web: { image: \"${PEER}\", command: [serve, \"80\"], ports: [\"${PORT}:80\"] } }";
    let project = Project::on(&engine, compose).with("PORT", port);
    project.run(&["up", "-d"]).refused(&["web", &port.to_string()]);
    drop(holder);
    project.up();
    assert_eq!(project.ask(port, "/say/hi"), "hi", "once it is free the same file comes up");
}

#[test]
fn a_linux_service_without_an_engine_is_refused_with_what_to_do() {
    let project = Project::wasm("services: { db: { image: \"postgres:16-alpine\" }, one: { image: ./peer.wasm } }");
    let project = project.guest(Guest::Peer);
    refused(&project, &["/nonexistent/docker.sock", "hint", "DOCKER_HOST"]);
}

#[test]
fn a_missing_image_is_named_with_its_service() {
    let Some(engine) = Engine::answering() else { return };
    let project = Project::on(&engine, "services: { web: { image: \"wcompose-it/absent:1\", pull_policy: never } }");
    refused(&project, &["web", "wcompose-it/absent:1"]);
}

#[test]
fn an_image_without_a_module_is_refused() {
    let Some(engine) = Engine::answering() else { return };
    let project = Project::on(&engine, "services: { one: { image: \"${PEER}\", platform: wasi/wasm } }");
    refused(&project, &["one", "wcompose-it-peer", ".wasm"]);
}

#[test]
fn a_failed_build_shows_its_last_words() {
    let Some(engine) = Engine::answering() else { return };
    let project = Project::on(&engine, "services: { web: { build: . } }");
    project.write("Dockerfile", "FROM scratch\nCOPY absent /absent\n");
    refused(&project, &["web", "absent"]);
}

#[test]
fn a_variable_that_must_be_set_is_asked_for() {
    let project = Project::wasm("services: { one: { image: \"${MODULE:?which module}\" } }");
    refused(&project, &["compose.yaml:1", "MODULE", "which module"]);
}

#[test]
fn a_dependent_of_a_failed_service_fails_by_name() {
    let project = Project::wasm(
        r#"
services:
  first:  { image: ./module.wasm, command: [exit, "5"] }
  second: { image: ./module.wasm, command: [say, hi], depends_on: { first: { condition: service_completed_successfully } } }
"#,
    )
    .guest(Guest::PeerModule);
    project.run(&["up", "-d"]).refused(&["second", "first", "5"]);
    let row = project.service("first");
    assert_eq!((row.state.as_str(), row.code), ("exited", 5), "what ran is shown with its code");
    assert_ne!(project.service("second").state, "running");
}

#[test]
fn a_linux_dependent_of_a_failed_guest_is_not_started() {
    let Some(engine) = Engine::answering() else { return };
    let project = Project::on(
        &engine,
        r#"
services:
  first:  { image: ./module.wasm, command: [exit, "5"] }
  second: { image: "${PEER}", command: [serve, "80"], depends_on: { first: { condition: service_completed_successfully } } }
"#,
    )
    .guest(Guest::PeerModule);
    project.run(&["up", "-d"]).refused(&["second", "first", "5"]);
    assert_eq!(project.service("second").state, "created");
}

#[test]
fn an_unknown_service_or_flag_is_refused() {
    let project = Project::wasm("services: { one: { image: ./peer.wasm } }").guest(Guest::Peer);
    project.run(&["up", "-d", "two"]).refused(&["two"]);
    project.run(&["logs", "two"]).refused(&["two"]);
    project.run(&["up", "--detatch"]).refused(&["--detach"]);
    // The supervisor that refused is still on its way out when its answer is there.
    project.gone();
}
