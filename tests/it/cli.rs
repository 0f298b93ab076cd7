//! What commands print: shapes that people and scripts rely on.

use serde_json::Value;

use crate::support::project::free_port;
use crate::support::{Engine, Guest, Project};

const ONE: &str = r#"
services:
  one:
    image: ./peer.wasm
    command: [serve, "80"]
    ports: ["127.0.0.1:${PORT}:80"]
"#;

fn one() -> (Project, u16) {
    let port = free_port();
    (Project::wasm(ONE).guest(Guest::Peer).with("PORT", port), port)
}

#[test]
fn ps_prints_composes_columns() {
    let (project, port) = one();
    project.up();
    project.ask(port, "/say/hi");
    let table = project.run(&["ps"]).well().stdout;
    let (head, row) = table.split_once('\n').expect("a head and a row");
    let columns: Vec<&str> = head.split_whitespace().collect();
    assert_eq!(columns, ["NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"]);
    for words in [&format!("{}-one-1", project.name), "peer.wasm", "Up", &format!("127.0.0.1:{port}->80/tcp")] {
        assert!(row.contains(words), "{words} in:\n{table}");
    }
}

#[test]
fn ps_as_json_has_composes_keys_in_their_order() {
    let (project, port) = one();
    project.up();
    project.ask(port, "/say/hi");
    let line = project.run(&["ps", "--format", "json"]).well().stdout;
    let row: Value = serde_json::from_str(line.trim()).expect("one object a line");
    let keys: Vec<&str> = row.as_object().expect("an object").keys().map(String::as_str).collect();
    let expected = "Command CreatedAt ExitCode Health ID Image Labels LocalVolumes Mounts Name Names Networks Ports \
                    Project Publishers RunningFor Service Size State Status";
    assert_eq!(keys, expected.split_whitespace().collect::<Vec<_>>());
    assert_eq!(row["Publishers"][0]["PublishedPort"], port);
    assert_eq!(row["Project"], project.name.as_str());
    let id = project.run(&["ps", "-q"]).well().stdout;
    assert!(id.trim().starts_with(row["ID"].as_str().expect("an id")), "{id}");
}

#[test]
fn progress_goes_to_standard_error_and_results_to_standard_output() {
    let (project, port) = one();
    let outcome = project.up();
    assert_eq!(outcome.stdout, "", "{outcome}");
    assert!(outcome.stderr.contains(&format!("{}-one-1", project.name)), "{outcome}");
    project.ask(port, "/say/hi");
    let outcome = project.run(&["down"]).well();
    assert_eq!(outcome.stdout, "", "{outcome}");
}

#[test]
fn a_dry_run_prints_the_plan_and_does_nothing() {
    let Some(engine) = Engine::answering() else { return };
    let compose = r#"
services:
  web: { image: "${PEER}", command: [serve, "80"], depends_on: [one] }
  one: { image: ./peer.wasm, command: [serve, "80"] }
"#;
    let project = Project::on(&engine, compose).guest(Guest::Peer);
    let outcome = project.run(&["up", "--dry-run"]).well();
    let plan = outcome.stdout + &outcome.stderr;
    for words in ["network", "one-1", "web-1", "not found"] {
        assert!(plan.contains(words), "{words} in:\n{plan}");
    }
    assert!(plan.find("one-1") < plan.find("web-1"), "dependencies first:\n{plan}");
    assert_eq!(project.left(), Vec::<String>::new());
}

#[test]
fn a_dry_run_builds_and_pulls_no_image() {
    let Some(engine) = Engine::answering() else { return };
    let compose = r#"
services:
  web: { build: ./web }
  far: { image: "registry.invalid/far:1" }
"#;
    let project = Project::on(&engine, compose);
    project.write("web/Dockerfile", "FROM scratch\nCMD [\"/web\"]\n");
    let plan = project.run(&["up", "--dry-run"]).well().stdout;
    let built = format!("{}-web", project.name);
    assert!(plan.contains(&format!("build image {built} (not found)\n")), "{plan}");
    assert!(plan.contains("pull image registry.invalid/far:1 (not found)\n"), "{plan}");
    assert!(plan.contains(&format!("start {built}-1")), "{plan}");
    assert!(!engine.has_image(&built), "{built} was built");
}

#[test]
fn what_has_no_dry_run_does_nothing_either() {
    let (project, port) = one();
    project.run(&["up", "-d"]).well();
    for command in ["stop", "restart", "start"] {
        let outcome = project.run(&[command, "--dry-run"]);
        assert_ne!(outcome.code, 0, "{outcome}");
        assert!(outcome.stderr.contains("has no dry run"), "{outcome}");
    }
    assert_eq!(project.ask(port, "/say/hi"), "hi");
}

#[test]
fn config_prints_the_resolved_file_and_asks_no_engine() {
    let (project, port) = one();
    let text = project.run(&["config"]).well().stdout;
    assert!(text.starts_with(&format!("name: {}\n", project.name)), "{text}");
    let published = text.lines().find_map(|line| line.trim().strip_prefix("published: "));
    assert_eq!(published.map(|port| port.trim_matches(['\'', '"'])), Some(port.to_string().as_str()), "{text}");
    assert_eq!(project.run(&["config", "--services"]).well().stdout, "one\n");
    assert_eq!(project.run(&["config", "-q"]).well().stdout, "");
}

#[test]
fn version_names_itself() {
    let (project, _) = one();
    let version = env!("CARGO_PKG_VERSION");
    assert!(project.run(&["version"]).well().stdout.contains(version));
    assert_eq!(project.run(&["version", "--short"]).well().stdout.trim(), version);
}

#[test]
fn several_files_are_merged_and_env_files_read() {
    let port = free_port();
    let project = Project::wasm(ONE).guest(Guest::Peer);
    project.write(".env", &format!("PORT={port}\n"));
    project.write("more.yaml", "services: { one: { environment: { MORE: \"yes\" }, env_file: one.env } }");
    project.write("one.env", "FROM_FILE=too\n");
    project.run(&["-f", "compose.yaml", "-f", "more.yaml", "up", "-d"]).well();
    assert_eq!(project.ask(port, "/env/MORE"), "yes");
    assert_eq!(project.ask(port, "/env/FROM_FILE"), "too");
}

#[test]
fn profiles_leave_services_out_until_asked_for() {
    let port = free_port();
    let compose =
        format!("{ONE}  extra:\n    image: ./peer.wasm\n    command: [serve, \"81\"]\n    profiles: [more]\n");
    let project = Project::wasm(&compose).guest(Guest::Peer).with("PORT", port);
    project.up();
    assert!(!project.ps().contains_key("extra"));
    project.run(&["--profile", "more", "up", "-d"]).well();
    assert_eq!(project.ask(port, "/get/extra/81/say/hi"), "hi");
    project.run(&["--profile", "more", "down"]).well();
}

#[test]
fn commands_about_nothing_are_calm() {
    let (project, _) = one();
    for arguments in [&["ps"][..], &["logs"], &["stop"], &["down"]] {
        project.run(arguments).well();
    }
    assert_ne!(project.run(&["start"]).code, 0);
}
