//! Spin applications, as images on scratch and in Spin's own form: one service each.

use std::fs;

use serde_json::{Value, json};

use crate::support::layout::{CONFIG, LAYER, digest, layer, layout};
use crate::support::project::free_port;
use crate::support::{Guest, Project, eventually, holds};

/// The media type of an application's locked form.
const LOCKED: &str = "application/vnd.fermyon.spin.application.v1+config";
/// The media type of its modules.
const MODULE: &str = "application/vnd.wasm.content.layer.v1+wasm";

/// Three components: `front` has all that nobody else has, `named` some paths, `keeper` values.
const SHOP: &str = r#"
spin_manifest_version = 2
[application]
name = "shop"
[variables]
who = { default = "world" }
[[trigger.http]]
route = "/..."
component = "front"
[[trigger.http]]
route = "/header/:name"
component = "named"
[[trigger.http]]
route = "/env/OWN"
component = "named"
[[trigger.http]]
route = "/read/assets/b.txt"
component = "named"
[[trigger.http]]
route = "/config/..."
component = "keeper"
[[trigger.http]]
route = "/:bucket/set/..."
component = "keeper"
[component.front]
source = "relay.wasm"
environment = { OWN = "front", MODE = "front", SHARED = "front" }
files = ["assets/*.txt", { source = "deep", destination = "/static" }]
exclude_files = ["deep/secret*"]
allowed_outbound_hosts = ["http://backend:8080", "http://192.0.2.1"]
[component.named]
source = "relay.wasm"
environment = { OWN = "named" }
[component.keeper]
source = "keeper.wasm"
key_value_stores = ["default"]
[component.keeper.variables]
greeting = "hello {{ who }}"
"#;

const SERVICE: &str = r#"
services:
  app:
    image: ./layout
    runtime: io.containerd.spin.v2
    command: [/]
    ports: ["${PORT}:80"]
    environment: { SHARED: compose }
    configs: [{ source: note, target: /note }]
  backend: { image: ./relay.wasm }
  other: { image: ./relay.wasm }
configs: { note: { content: noted } }
"#;

fn relay() -> Vec<u8> {
    fs::read(Guest::Relay.path()).expect("the guest is built")
}

/// The project of an application on scratch.
fn on_scratch(project: &Project, manifest: &str) {
    let (relay, keeper) = (relay(), fs::read(Guest::Keeper.path()).expect("the guest is built"));
    let layer = layer(&[
        ("spin.toml", manifest.as_bytes()),
        ("relay.wasm", &relay),
        ("keeper.wasm", &keeper),
        ("assets/a.txt", b"a"),
        ("assets/b.txt", b"b"),
        ("assets/below/c.txt", b"c"),
        ("deep/er/d.txt", b"d"),
        ("deep/secret/key", b"key"),
    ]);
    let config = json!({ "os": "wasi", "architecture": "wasm", "config": { "Entrypoint": ["/spin.toml"] } });
    layout(project, config.to_string().into_bytes(), CONFIG, vec![(LAYER, layer)]);
}

fn shop() -> (Project, u16) {
    let port = free_port();
    let project = Project::wasm(SERVICE).with("PORT", port);
    fs::write(project.folder().join("relay.wasm"), relay()).expect("a writable folder");
    on_scratch(&project, SHOP);
    (project, port)
}

#[test]
fn each_component_of_an_application_has_its_routes_its_environment_and_its_files() {
    let (project, port) = shop();
    project.up();
    // The most specific route, and what is told of it.
    for (path, answer) in [
        ("/say/hello", "hello"),
        ("/env/MODE", "front"),
        ("/env/OWN", "named"),
        ("/env/SHARED", "compose"),
        ("/header/spin-raw-component-route", "/header/:name"),
        ("/header/spin-component-route", "/header/:name"),
        ("/header/spin-matched-route", "/header/:name"),
        ("/header/spin-path-match-name", "spin-path-match-name"),
        ("/header/spin-path-info", ""),
        ("/header/spin-base-path", "/"),
        ("/header/spin-full-url?a=b", &format!("http://localhost:{port}/header/spin-full-url?a=b")),
        ("/.well-known/spin/health", "OK"),
        ("/read/assets/a.txt", "a"),
        ("/read/static/er/d.txt", "d"),
        ("/read/note", "noted"),
    ] {
        assert_eq!(project.ask(port, path), answer, "{path}");
    }
    assert!(project.ask(port, "/header/spin-client-addr").starts_with("127.0.0.1:"));
    // `named` has no files of its own, `*` is one folder, what is excluded is not there, nor is what nobody lists.
    for path in ["/read/assets/b.txt", "/read/assets/below/c.txt", "/read/static/secret/key", "/read/relay.wasm"] {
        project.ask_in_vain(port, path);
    }
}

#[test]
fn variables_come_from_the_environment_and_stores_are_those_of_the_component() {
    let (project, port) = shop();
    project.up();
    assert_eq!(project.ask(port, "/config/greeting"), "hello world");
    assert_eq!(project.ask(port, "/default/set/key/value"), "set");
    assert!(project.ask_in_vain(port, "/hidden/set/key/value").contains("AccessDenied"));
    project.edit("SHARED: compose", "SHARED: compose, SPIN_VARIABLE_WHO: you");
    project.up();
    eventually("the new value", || {
        let said = project.ask(port, "/config/greeting");
        holds(said == "hello you", said)
    });
    // It is the application's, not its components'.
    assert_eq!(project.ask(port, "/env/SPIN_VARIABLE_WHO"), "unset");
    on_scratch(&project, &SHOP.replace("default = \"world\"", "required = true"));
    project.edit(", SPIN_VARIABLE_WHO: you", "");
    project.run(&["up", "-d"]).refused(&["service `app`", "`who`", "SPIN_VARIABLE_WHO"]);
}

#[test]
fn a_manifest_narrows_what_the_file_allows_and_adds_nothing() {
    let (project, port) = shop();
    project.up();
    assert_eq!(project.ask(port, "/get/backend/8080/say/hello"), "hello");
    // On the same network, but not listed.
    project.ask_in_vain(port, "/get/other/8080/say/hello");
    // Listed, but not allowed by the file.
    project.ask_in_vain(port, "/get/192.0.2.1/80/x");
    eventually("both are told", || {
        let logs = project.logs("app");
        let told = logs.contains("[component.front] allowed_outbound_hosts = [\"*://other:8080\"]")
            && logs.contains("x-wasm: { egress: [\"192.0.2.1:80\"] }");
        holds(told, logs)
    });
}

#[test]
fn an_application_in_spins_own_form_is_served() {
    let relay = relay();
    let (data, bundled) = (b"data".to_vec(), b"bundled".to_vec());
    let bundle = layer(&[("any/name", &bundled)]);
    let component = |id: &str, files: Value| {
        json!({
            "id": id, "source": { "content_type": "application/wasm", "digest": digest(&relay) },
            "env": { "WHO": id }, "files": files,
        })
    };
    let trigger = |component: &str, route: &str| json!({ "id": route, "trigger_type": "http", "trigger_config": { "component": component, "route": route } });
    let locked = json!({
        "spin_lock_version": 1,
        "triggers": [trigger("one", "/..."), trigger("two", "/env/WHO"), trigger("two", "/read/inline")],
        "components": [
            component("one", json!([{ "digest": digest(&data), "path": "data" }, { "digest": digest(&bundled), "path": "in/it" }])),
            component("two", json!([{ "inline": "aW5saW5l", "digest": digest(b"inline"), "path": "inline" }])),
        ],
    });
    let port = free_port();
    let project = Project::wasm("services: {app: {image: ./layout, ports: [\"${PORT}:80\"]}}").with("PORT", port);
    let layers = vec![
        (MODULE, relay.clone()),
        ("application/vnd.wasm.content.layer.v1+data", data),
        ("application/vnd.wasm.content.bundle.v1.tar+gzip", bundle),
    ];
    layout(&project, locked.to_string().into_bytes(), LOCKED, layers);
    project.up();
    for (path, answer) in
        [("/env/WHO", "two"), ("/read/data", "data"), ("/read/in/it", "bundled"), ("/read/inline", "inline")]
    {
        assert_eq!(project.ask(port, path), answer, "{path}");
    }
}

#[test]
fn what_no_service_can_be_is_told() {
    let (project, _) = shop();
    for (from, to, words) in [
        ("[[trigger.http]]", "[[trigger.redis]]", "started by `redis`"),
        ("route = \"/...\"", "route = \"/...\"\nexecutor = { type = \"wagi\" }", "Wagi"),
        ("keeper.wasm", "gone.wasm", "gone.wasm"),
        ("assets/*.txt", "no-such-folder", "no-such-folder"),
    ] {
        on_scratch(&project, &SHOP.replacen(from, to, 1));
        project.run(&["up", "-d"]).refused(&["service `app`", words]);
    }
    // A component that needs what only Spin has.
    let text = "(component (import \"fermyon:spin/sqlite@2.0.0\" (instance)) (instance $i) \
                (export \"wasi:http/incoming-handler@0.2.0\" (instance $i)))";
    let needy = wat::parse_str(text).expect("it is right");
    let locked = json!({
        "spin_lock_version": 1,
        "triggers": [{ "trigger_type": "http", "trigger_config": { "component": "needy", "route": "/..." } }],
        "components": [{ "id": "needy", "source": { "digest": digest(&needy) } }],
    });
    layout(&project, locked.to_string().into_bytes(), LOCKED, vec![(MODULE, needy)]);
    project.run(&["up", "-d"]).refused(&["service `app`", "fermyon:spin/sqlite@2.0.0", "interfaces of Spin"]);
}
