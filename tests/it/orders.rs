//! `start`, `stop`, `restart` of containers alone, where no supervisor runs.

use std::collections::BTreeMap;

use crate::support::{Engine, Project};

const LINE: &str = r#"
services:
  db: { image: "${PEER}", command: [serve, "80"] }
  web: { image: "${PEER}", command: [serve, "80"], depends_on: [db] }
"#;

/// When each container was started and how often it ended: what tells that it was left alone.
fn runs(engine: &Engine, project: &Project) -> BTreeMap<String, String> {
    let ids = engine.ids(&project.name);
    let run = |(name, id): (&String, &String)| {
        let state = &engine.get(&format!("/containers/{id}/json"))["State"];
        let service = name.trim_start_matches(&project.name).trim_matches(['-', '1']).to_owned();
        (service, format!("{} {}", state["Status"], state["StartedAt"]))
    };
    ids.iter().map(run).collect()
}

#[test]
fn stop_start_and_restart_keep_the_order_of_dependencies() {
    let Some(engine) = Engine::answering() else { return };
    let project = Project::on(&engine, LINE);
    project.up();
    let since = engine.now();
    let outcome = project.run(&["stop"]).well();
    assert!(outcome.stderr.contains("web-1  Stopped"), "{outcome}");
    assert_eq!(engine.happened(&project.name, "die", &since), ["web", "db"]);
    let since = engine.now();
    project.run(&["start", "web"]).well();
    assert_eq!(engine.happened(&project.name, "start", &since), ["db", "web"], "with what it depends on");
    let since = engine.now();
    project.run(&["restart"]).well();
    assert_eq!(engine.happened(&project.name, "start", &since), ["db", "web"]);
    assert_eq!(project.supervisors(), Vec::<i32>::new());
}

#[test]
fn a_restart_starts_what_is_stopped_once_and_leaves_what_it_depends_on() {
    let Some(engine) = Engine::answering() else { return };
    let project = Project::on(&engine, LINE);
    project.up();
    project.run(&["stop"]).well();
    let since = engine.now();
    project.run(&["restart", "web"]).well();
    assert_eq!(engine.happened(&project.name, "start", &since), ["web"]);
    assert_eq!(engine.happened(&project.name, "die", &since), Vec::<String>::new());
    assert_eq!(project.service("db").state, "exited");
}

#[test]
fn to_stop_what_does_not_run_is_no_error_and_to_start_what_does_not_exist_is_one() {
    let Some(engine) = Engine::answering() else { return };
    let project = Project::on(&engine, LINE);
    project.run(&["stop", "web"]).well();
    project.run(&["start", "web"]).refused(&["has no containers to start"]);
    project.run(&["up", "-d", "db"]).well();
    project.run(&["stop", "web"]).well();
    project.run(&["start", "web"]).refused(&["\"web\" has no container to start"]);
    project.run(&["stop", "nobody"]).refused(&["no such service", "nobody"]);
    project.run(&["stop", "db"]).well();
    project.run(&["stop", "db"]).well();
}

#[test]
fn a_name_is_enough_to_stop_start_and_restart() {
    let Some(engine) = Engine::answering() else { return };
    let project = Project::on(&engine, LINE);
    project.up();
    std::fs::rename(project.folder().join("compose.yaml"), project.folder().join("elsewhere")).expect("a file");
    let since = engine.now();
    let named = |words: &[&str]| project.run(&[&["-p", &project.name], words].concat());
    named(&["stop"]).well();
    assert_eq!(engine.happened(&project.name, "die", &since), ["web", "db"], "the labels tell the order");
    let since = engine.now();
    named(&["start"]).well();
    assert_eq!(engine.happened(&project.name, "start", &since), ["db", "web"]);
    let before = runs(&engine, &project);
    named(&["restart", "db"]).well();
    let after = runs(&engine, &project);
    assert_eq!(before["web"], after["web"]);
    assert_ne!(before["db"], after["db"]);
    named(&["stop", "nobody"]).refused(&["no such service", "nobody", "`db`"]);
    std::fs::rename(project.folder().join("elsewhere"), project.folder().join("compose.yaml")).expect("a file");
}

#[test]
fn exec_and_cp_have_no_dry_run_and_do_nothing_under_it() {
    let Some(engine) = Engine::answering() else { return };
    let project = Project::on(&engine, "services: { db: { image: \"${PEER}\", command: [serve, \"80\"] } }");
    project.up();
    project.run(&["--dry-run", "exec", "db", "/peer", "write", "/data/made", "x"]).refused(&["no dry run"]);
    project.write("here", "text");
    project.run(&["--dry-run", "cp", "here", "db:/data/made"]).refused(&["no dry run"]);
    assert_eq!(project.run(&["exec", "db", "/peer", "list", "/data"]).well().stdout.trim(), "");
}
