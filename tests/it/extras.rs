//! What guests get beside WASI: values kept by `wasi:keyvalue`, configuration, log lines, and components joined with them.

use serde_json::json;

use crate::support::layout::{CONFIG, LAYER, layer, layout};
use crate::support::project::free_port;
use crate::support::{Engine, Guest, Project};

/// A keeper on the host's port, with this in its service.
fn keeper(more: &str) -> (Project, u16) {
    let port = free_port();
    let compose = format!("services:\n  one:\n    image: ./keeper.wasm\n    ports: [\"${{PORT}}:8080\"]\n{more}");
    (Project::wasm(&compose).guest(Guest::Keeper).with("PORT", port), port)
}

#[test]
fn values_stay_from_one_request_to_the_next() {
    let (project, port) = keeper("");
    project.up();
    assert_eq!(project.ask(port, "/default/set/color/blue"), "set");
    assert_eq!(project.ask(port, "/default/get/color"), "blue");
    project.ask_in_vain(port, "/other/get/color");
    assert_eq!(project.ask(port, "/default/increment/visits/2"), "2");
    assert_eq!(project.ask(port, "/default/increment/visits/3"), "5");
    assert_eq!(project.ask(port, "/default/many/a/b/c"), "b c");
    assert_eq!(project.ask(port, "/default/keys"), "b c color visits");
    assert_eq!(project.ask(port, "/default/delete/color"), "deleted");
    assert_eq!(project.ask(port, "/default/exists/color"), "false");
    project.run(&["restart"]).well();
    assert_eq!(project.ask(port, "/default/get/b"), "b", "they outlive a restart of the guest");
}

#[test]
fn values_of_one_service_are_not_anothers() {
    let (project, port) = keeper("  two: { image: ./keeper.wasm, ports: [\"${TWO}:8080\"] }\n");
    let two = free_port();
    let project = project.with("TWO", two);
    project.up();
    assert_eq!(project.ask(port, "/default/set/color/blue"), "set");
    project.ask_in_vain(two, "/default/get/color");
}

#[test]
fn configuration_is_what_the_file_says() {
    let (project, port) = keeper("    x-wasm: { config: { greeting: hello, \"limit\": 3 } }\n");
    project.up();
    assert_eq!(project.ask(port, "/config/greeting"), "hello");
    assert_eq!(project.ask(port, "/configs"), "greeting=hello limit=3");
    project.ask_in_vain(port, "/config/other");
}

#[test]
fn log_lines_carry_their_level() {
    let (project, port) = keeper("");
    project.up();
    assert_eq!(project.ask(port, "/log/orders/paid"), "logged");
    project.logged("one", "INFO orders: paid");
    project.logged("one", "ERROR paid");
}

#[test]
fn values_live_in_a_redis_of_the_project() {
    let Some(engine) = Engine::with_images(&["redis:alpine"]) else { return };
    let port = free_port();
    let project = Project::on(
        &engine,
        r#"
services:
  one:
    image: ./keeper.wasm
    ports: ["${PORT}:8080"]
    x-wasm: { keyvalue: { redis: "redis://:secret@cache/1" } }
    depends_on: [cache]
  cache: { image: "redis:alpine", command: ["redis-server", "--requirepass", "secret"] }
"#,
    )
    .guest(Guest::Keeper)
    .with("PORT", port);
    project.up();
    assert_eq!(project.ask(port, "/default/set/color/blue"), "set");
    assert_eq!(project.ask(port, "/default/get/color"), "blue");
    assert_eq!(project.ask(port, "/shop/increment/visits/2"), "2");
    assert_eq!(project.ask(port, "/shop/many/a/b*/c"), "b* c");
    assert_eq!(project.ask(port, "/shop/keys"), "b* c visits");
    assert_eq!(project.ask(port, "/default/exists/shop:visits"), "true", "a bucket is a prefix of keys");
    project.edit("x-wasm:", "environment: { ANOTHER: instance }\n    x-wasm:");
    project.up();
    assert_eq!(project.ask(port, "/shop/get/visits"), "2", "they outlive the guest");
}

#[test]
fn an_address_of_a_redis_that_is_none_is_told_at_its_place() {
    let (project, _) = keeper("    x-wasm: { keyvalue: { redis: \"http://cache\" } }\n");
    project.run(&["config", "-q"]).refused(&["`http://cache` is no address of a Redis", "compose.yaml:5:"]);
}

/// Exits with what `acme:auth/checks` says.
const APP: &str = r#"(component
  (import "wasi:cli/exit@0.2.0" (instance $exit (export "exit" (func (param "status" (result))))))
  (import "acme:auth/checks@1.0.0" (instance $checks (export "fails" (func (result u32)))))
  (core func $exit (canon lower (func $exit "exit")))
  (core func $fails (canon lower (func $checks "fails")))
  (core module $app
    (import "host" "exit" (func $exit (param i32)))
    (import "host" "fails" (func $fails (result i32)))
    (func (export "run") (result i32) (call $exit (call $fails)) i32.const 0))
  (core instance $host (export "exit" (func $exit)) (export "fails" (func $fails)))
  (core instance $app (instantiate $app (with "host" (instance $host))))
  (func $run (result (result)) (canon lift (core func $app "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $command)))"#;

/// `acme:auth/checks`, with an answer.
fn auth(answer: u32) -> String {
    format!(
        r#"(component
  (core module $m (func (export "fails") (result i32) i32.const {answer}))
  (core instance $i (instantiate $m))
  (func $fails (result u32) (canon lift (core func $i "fails")))
  (instance $e (export "fails" (func $fails)))
  (export "acme:auth/checks@1.0.0" (instance $e)))"#
    )
}

#[test]
fn a_plug_takes_the_place_of_an_import_and_a_changed_one_is_noticed() {
    let project = Project::wasm("services: { job: { image: ./app.wat, x-wasm: { plug: [./auth.wat] } } }");
    project.write("app.wat", APP);
    project.write("auth.wat", &auth(1));
    project.up();
    assert_eq!(project.becomes("job", "exited").code, 1);
    project.write("auth.wat", &auth(0));
    project.up();
    assert_eq!(project.becomes("job", "exited").code, 0, "the instance was made again");
}

#[test]
fn an_import_that_nothing_plugs_is_named() {
    let project = Project::wasm("services: { job: { image: ./app.wat } }");
    project.write("app.wat", APP);
    project.run(&["up", "-d"]).refused(&["`acme:auth/checks@1.0.0`"]);
    project.edit("image: ./app.wat", "image: ./app.wat, x-wasm: { plug: [./auth.wat] }");
    project.write("auth.wat", &auth(0).replace("acme:auth", "acme:other"));
    project.run(&["up", "-d"]).refused(&["fits no import of", "`acme:other/checks@1.0.0`", "`acme:auth/checks@1.0.0`"]);
}

#[test]
fn a_module_out_of_an_image_or_an_artifact_is_plugged_as_well() {
    let app = wat::parse_str(APP).expect("it is right");
    let on_scratch = json!({ "os": "wasi", "architecture": "wasm", "config": { "Entrypoint": ["/app.wasm"] } });
    for (config, kind, layers) in [
        (on_scratch, CONFIG, vec![(LAYER, layer(&[("app.wasm", &app)]))]),
        (json!({}), "application/vnd.wasm.config.v0+json", vec![("application/wasm", app.clone())]),
    ] {
        let project = Project::wasm("services: { job: { image: ./layout, platform: wasi/wasm } }");
        layout(&project, config.to_string().into_bytes(), kind, layers);
        project.run(&["up", "-d"]).refused(&["`acme:auth/checks@1.0.0`"]);
        project.edit("platform:", "x-wasm: { plug: [./auth.wat] }, platform:");
        project.write("auth.wat", &auth(1));
        project.up();
        assert_eq!(project.becomes("job", "exited").code, 1, "{kind}");
        project.write("auth.wat", &auth(0).replace("acme:auth", "acme:other"));
        project.run(&["up", "-d"]).refused(&["service `job`", "fits no import of", "`acme:other/checks@1.0.0`"]);
    }
}
