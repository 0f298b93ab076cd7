//! One-offs: `run` detached, of one image or file alone, and of whoever dies over it.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::sources::image;
use crate::support::engine::import;
use crate::support::leaks::walk;
use crate::support::project::free_port;
use crate::support::remotes::{Readers, Registry};
use crate::support::{Engine, Guest, Project, eventually, holds};

fn nobody_supervises(project: &Project) {
    eventually("a supervisor that holds nothing ends", || {
        holds(project.supervisors().is_empty(), format!("{:?}", project.supervisors()))
    });
}

/// Folders of guests that are there.
fn guests(project: &Project) -> usize {
    fs::read_dir(project.root().join("data/instances")).map_or(0, |entries| entries.count())
}

fn bytes(guest: Guest) -> Vec<u8> {
    fs::read(guest.path()).expect("the guest is built")
}

#[test]
fn a_detached_one_off_that_is_not_kept_goes_with_its_end() {
    let Some(engine) = Engine::answering() else { return };
    let project = Project::on(
        &engine,
        r#"
services:
  linux: { image: "${PEER}" }
  wasm:  { image: ./peer.wasm }
"#,
    )
    .guest(Guest::Peer);
    let names = || engine.ids(&project.name).into_keys().collect::<Vec<_>>();
    for service in ["linux", "wasm"] {
        let name = format!("{}-brief", project.name);
        project.run(&["run", "-d", "--rm", "--name", &name, service, "say", "hi"]).well();
        eventually(&format!("the one-off of {service} goes"), || holds(names().is_empty(), names().join(" ")));
        nobody_supervises(&project);

        // One that goes on is there until it is ended, by whomever.
        let outcome = project.run(&["run", "-d", "--rm", "--name", &name, service, "sleep", "600"]).well();
        assert!(!outcome.stdout.trim().is_empty(), "its id or name: {outcome}");
        assert_eq!(names(), std::slice::from_ref(&name), "{service}");
        engine.call("POST", &format!("/containers/{name}/kill"));
        eventually(&format!("the one-off of {service} goes"), || holds(names().is_empty(), names().join(" ")));
        nobody_supervises(&project);
    }
    assert_eq!(guests(&project), 0, "a guest's files go with it");

    // Without the flag it stays, as a container does, until everything goes.
    project.run(&["run", "-d", "--name", &format!("{}-kept", project.name), "linux", "say", "hi"]).well();
    assert_eq!(names().len(), 1);
    project.run(&["run", "-d", "wasm", "say", "hi"]).well();
    project.run(&["down", "--remove-orphans"]).well();
    assert_eq!(names(), Vec::<String>::new());
}

#[test]
fn a_detached_guest_that_fails_to_start_leaves_nothing() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    let project = Project::wasm("services: { api: { image: ./peer.wasm } }").guest(Guest::Peer);
    let publish = format!("{port}:80");
    project.run(&["run", "-d", "--rm", "-p", &publish, "api", "serve", "80"]).refused(&[&port.to_string()]);
    nobody_supervises(&project);
    assert_eq!(guests(&project), 0);
}

#[test]
fn a_client_that_dies_leaves_no_supervisor_and_no_guest() {
    let project =
        Project::wasm("services: { api: { image: ./peer.wasm, command: [sleep, \"600\"] } }").guest(Guest::Peer);
    // Compiled anew, so that there is a while in which it is made.
    let cache = project.root().join("cache").display().to_string();
    let project = project.with("WCOMPOSE_CACHE_DIR", cache);
    let socket = |project: &Project| {
        let mut found = false;
        walk(&project.root().join("run"), &mut |_, kind| {
            found |= std::os::unix::fs::FileTypeExt::is_socket(&kind);
        });
        found
    };
    type Moment<'m> = (&'m str, &'m dyn Fn(&Project) -> bool);
    let moments: [Moment<'_>; 3] = [
        ("there is a supervisor", &socket),
        ("it is being made", &|project| socket(project) && guests(project) > 0),
        ("it runs", &|project| project.run(&["stats", "--no-stream"]).stdout.contains("api")),
    ];
    for (moment, came) in moments {
        let client = project.start(&["run", "-T", "api"]);
        eventually(moment, || holds(came(&project), "not yet"));
        client.signal(Signal::KILL);
        client.end();
        nobody_supervises(&project);
        assert_eq!(guests(&project), 0, "{moment}");
        fs::remove_dir_all(project.root().join("cache")).expect("it was compiled to");
    }
}

#[test]
fn a_supervisor_that_something_runs_in_outlives_its_clients() {
    let project =
        Project::wasm("services: { api: { image: ./peer.wasm, command: [serve, \"80\"] } }").guest(Guest::Peer);
    project.up();
    let client = project.start(&["logs", "-f"]);
    client.says("listening");
    client.signal(Signal::KILL);
    client.end();
    let outcome = project.run(&["run", "-T", "api", "say", "hi"]).well();
    assert_eq!(outcome.stdout, "hi\n");
    assert_eq!(project.service("api").state, "running", "the one-off's end is not the supervisor's");
}

#[test]
fn a_file_runs_in_the_background_until_it_is_taken_down() {
    let port = free_port();
    let project = Project::wasm("").guest(Guest::Peer).guest(Guest::PeerModule);
    let publish = format!("{port}:80");
    let arguments =
        ["run", "--image", "peer.wasm", "-d", "-e", "WHO=me", "-p", &publish, "--allow-egress", "example.com:1"];
    let outcome = project.run(&[arguments.as_slice(), &["--", "serve", "80"]].concat()).well();
    let name = outcome.stdout.trim().to_owned();
    assert_eq!(project.ask(port, "/env/WHO"), "me");
    assert!(outcome.stderr.contains(&format!("-p {name} down")), "how it is ended: {outcome}");
    let logs = project.run(&["-p", &name, "logs"]).well();
    assert!(logs.stdout.contains("listening"), "{logs}");
    let rows = project.run(&["-p", &name, "ps", "-a"]).well();
    assert!(rows.stdout.contains("serve 80"), "{rows}");
    project.run(&["-p", &name, "down"]).well();
    assert!(crate::support::http::get(port, "/say/hi").is_err(), "the port is free");
    nobody_supervises(&project);
    assert_eq!(guests(&project), 0);

    project.run(&["run", "--rm", "-d", "--image", "module.wasm", "--", "say", "hi"]).well();
    nobody_supervises(&project);
    assert_eq!(guests(&project), 0);
}

/// What one image does, wherever it comes from.
fn deeds(project: &Project, reference: &str) {
    let port = free_port().to_string();
    let run = |flags: &[&str], arguments: &[&str]| {
        project.run(&[&["run", "--image", reference], flags, &["--"], arguments].concat()).well().stdout
    };
    assert_eq!(run(&[], &["args"]), "/app.wasm\nargs\n", "{reference}");
    assert_eq!(run(&["-e", "WHO=me"], &["env", "WHO"]), "me\n");
    project.write("in/note", "mounted");
    assert_eq!(run(&["-v", "./in:/in"], &["read", "/in/note"]), "mounted\n");
    let publish = format!("{port}:80");
    let serving = project.start(&["run", "--image", reference, "-e", "WHO=you", "-p", &publish, "--", "serve", "80"]);
    assert_eq!(project.ask(port.parse().expect("a number"), "/env/WHO"), "you");
    serving.signal(Signal::INT);
    assert_eq!(serving.end_within(Duration::from_secs(30)).code, 130);
    assert_eq!(guests(project), 0, "nothing of it stays");
}

#[test]
fn an_image_of_a_registry_or_a_layout_runs_without_a_compose_file() {
    let Some(registry) = Registry::serve(Readers::Anybody) else { return };
    let (parts, manifest) = image(&bytes(Guest::Peer));
    parts.iter().for_each(|part| drop(registry.blob("app", part)));
    registry.tag("app", &manifest);
    let project = Project::wasm("");
    let reference = format!("{}/app:1", registry.name());
    project.run(&["run", "--quiet", "--image", &reference, "--", "say", "hi"]).well();
    deeds(&project, &reference);
    crate::sources::layout_of(&project, &bytes(Guest::Peer));
    deeds(&project, "./layout");
}

#[test]
fn an_image_of_the_engine_runs_without_a_compose_file() {
    let Some(engine) = Engine::answering() else { return };
    let project = Project::on(&engine, "").guest(Guest::Peer);
    let repository = format!("{}-app", project.name);
    import(&engine.socket, &repository, "1", "app.wasm", &bytes(Guest::Peer));
    deeds(&project, &format!("{repository}:1"));
    project.run(&["run", "--image", engine.peer(), "--", "say", "hi"]).refused(&[engine.peer()]);
}
