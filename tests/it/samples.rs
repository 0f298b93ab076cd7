//! Each sample does what its file says.

use crate::support::project::free_port;
use crate::support::{Engine, Project, eventually, holds, http};

const PUBLIC: [&str; 2] = ["postgres:16-alpine", "nginx:alpine"];

#[test]
fn hello_greets_without_an_engine() {
    let port = free_port();
    let project = Project::sample(None, "hello").with("PORT", port);
    project.up();
    assert_eq!(project.ask(port, "/?name=Ada"), "Hello, Ada!\n");
    project.run(&["down"]).well();
    project.gone();
}

#[test]
fn quickstart_serves_its_page_and_sells_across_both_kinds() {
    let Some(engine) = Engine::answering() else { return };
    let port = free_port();
    let project = Project::sample(Some(&engine), "quickstart").with("PORT", port);
    project.up();
    assert!(project.ask(port, "/").contains("<title>"));
    let items = project.ask(port, "/api/items");
    assert!(items.contains(r#"{"item":"apple","count":12,"price":"0.45 EUR"}"#), "{items}");
    assert_eq!(http::send(port, "POST", "/api/buy/apple", "").expect("an answer"), (200, r#"{"left":11}"#.to_owned()));
    assert_eq!(project.service("backend").health, "healthy");

    project.run(&["down"]).well();
    project.up();
    assert!(project.ask(port, "/api/items").contains(r#""item":"apple","count":11"#), "the volume kept the stock");
}

#[test]
fn postgres_keeps_notes_across_down_and_up() {
    let Some(engine) = Engine::with_images(&PUBLIC) else { return };
    let port = free_port();
    let project = Project::sample(Some(&engine), "postgres").with("PORT", port);
    project.up();
    project.ask(port, "/");
    assert_eq!(http::send(port, "POST", "/notes", "remember").expect("an answer").0, 201);
    assert_eq!(http::send(port, "POST", "/notes", "").expect("an answer").0, 400, "the gateway checks");
    assert_eq!(project.ask(port, "/notes"), "remember\n");

    project.run(&["down"]).well();
    project.up();
    assert_eq!(project.ask(port, "/notes"), "remember\n");
}

#[test]
fn nginx_finds_the_wasm_service_again_after_its_restart() {
    let Some(engine) = Engine::with_images(&PUBLIC) else { return };
    let port = free_port();
    let project = Project::sample(Some(&engine), "postgres").with("PORT", port);
    project.up();
    project.ask(port, "/notes");
    project.run(&["restart", "api"]).well();
    project.ask(port, "/notes");
}

#[test]
fn without_its_password_the_database_exits_and_everyone_hears_why() {
    let Some(engine) = Engine::with_images(&PUBLIC) else { return };
    let project = Project::sample(Some(&engine), "postgres").with("PORT", free_port());
    project.write(".env", "");
    let outcome = project.run(&["up", "-d"]).refused(&["db", "exited", "(1)", "POSTGRES_PASSWORD", "backend", "api"]);
    let row = project.service("db");
    assert_eq!((row.state.as_str(), row.code), ("exited", 1), "{outcome}");
    for dependent in ["backend", "api"] {
        assert_ne!(project.service(dependent).state, "running");
    }

    project.write(".env", "POSTGRES_PASSWORD=now-there\n");
    project.up();
    eventually("everything is up", || {
        let rows = project.ps();
        holds(rows.values().all(|row| row.state == "running"), format!("{rows:?}"))
    });
}
