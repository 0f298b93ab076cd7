//! What changes while a project runs: modules, and numbers of replicas.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::sources::{image, image_with};
use crate::support::http::{self, Connection};
use crate::support::project::free_port;
use crate::support::remotes::{Readers, Registry};
use crate::support::{Engine, Guest, Project, eventually, holds};

/// The version every guest is compiled with; others are written over it.
const VERSION: &[u8] = b"version 000";

/// Between two requests of a client: the machine is to do more than answer.
const PAUSE: Duration = Duration::from_millis(2);

/// A component that answers over HTTP.
const API: &str = "services: { api: { image: ./relay.wasm, ports: [\"${PORT}:8080\"] } }";

/// A compiled guest of another version.
fn version(guest: Guest, number: u32) -> Vec<u8> {
    let mut bytes = fs::read(guest.path()).expect("the guest is built");
    let written = format!("version {number:03}");
    let places: Vec<usize> = (0..bytes.len() - VERSION.len()).filter(|at| bytes[*at..].starts_with(VERSION)).collect();
    assert!(!places.is_empty(), "the guest knows its version");
    for at in places {
        bytes[at..at + VERSION.len()].copy_from_slice(written.as_bytes());
    }
    bytes
}

/// Puts a module in the place of another as compilers do: written beside it, then renamed.
fn put(project: &Project, name: &str, bytes: &[u8]) {
    let folder = project.folder();
    fs::write(folder.join(".new-module"), bytes).expect("a writable folder");
    fs::rename(folder.join(".new-module"), folder.join(name)).expect("a writable folder");
}

/// Waits until this version answers.
fn answers(port: u16, number: u32) {
    let wanted = format!("version {number:03}");
    eventually(&format!("{wanted} answers"), || match http::get(port, "/version") {
        Ok((200, body)) => holds(body == wanted, body),
        other => Err(format!("{other:?}")),
    });
}

/// Has a version put there, and waits until it answers.
fn reload(project: &Project, port: u16, guest: Guest, name: &str, number: u32) {
    put(project, name, &version(guest, number));
    answers(port, number);
}

/// Clients that ask all the time, and what went wrong.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Served>>,
    errors: Arc<Mutex<Vec<String>>>,
}

/// What one client saw.
#[derive(Debug, Default)]
struct Served {
    requests: usize,
    /// Most versions that answered in one turn.
    versions: usize,
}

impl Load {
    fn new() -> Self {
        Self { stop: Arc::default(), clients: Vec::new(), errors: Arc::default() }
    }

    /// One more client: `turn` asks once, or more often over one connection, and says what answered.
    fn client(&mut self, name: &'static str, mut turn: impl FnMut() -> io::Result<Vec<String>> + Send + 'static) {
        let (stop, errors) = (self.stop.clone(), self.errors.clone());
        self.clients.push(thread::spawn(move || {
            let mut served = Served::default();
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(PAUSE);
                match turn() {
                    Ok(answers) => {
                        served.requests += answers.len();
                        served.versions = served.versions.max(answers.iter().collect::<BTreeSet<_>>().len());
                    }
                    Err(error) => {
                        errors.lock().expect("no panic while it is held").push(format!("{name}: {error}"));
                        thread::sleep(Duration::from_millis(50));
                    }
                }
            }
            served
        }));
    }

    fn errors(&self) -> Vec<String> {
        self.errors.lock().expect("no panic while it is held").clone()
    }

    fn end(self) -> Vec<Served> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().map(|client| client.join().expect("a client ends")).collect()
    }
}

/// Many requests over one connection, so that reloads fall into it.
fn kept(port: u16, requests: usize) -> impl FnMut() -> io::Result<Vec<String>> + Send + 'static {
    move || {
        let mut connection = Connection::open(port)?;
        let mut ask = |_| {
            thread::sleep(PAUSE);
            connection.get("/version")
        };
        (0..requests).map(&mut ask).collect()
    }
}

/// A connection for each request.
fn fresh(port: u16, path: &'static str) -> impl FnMut() -> io::Result<Vec<String>> + Send + 'static {
    move || match http::get(port, path)? {
        (200, body) => Ok(body.split(',').map(str::to_owned).collect()),
        (status, body) => Err(io::Error::other(format!("status {status}: {body}"))),
    }
}

#[test]
fn twenty_reloads_under_load_refuse_and_break_nothing() {
    let Some(engine) = Engine::answering() else { return };
    let (port, client) = (free_port(), free_port());
    let project = Project::on(
        &engine,
        r#"
services:
  api:    { image: ./relay.wasm, ports: ["${PORT}:8080"] }
  client: { image: "${PEER}", command: [serve, "80"], ports: ["${CLIENT}:80"], depends_on: [api] }
"#,
    )
    .guest(Guest::Relay)
    .with("PORT", port)
    .with("CLIENT", client);
    project.up();
    project.ask(port, "/version");
    project.ask(client, "/get/api/8080/version");
    let before = project.service("api").id;
    let watch = project.watch(&["watch", "--no-up"]);

    let mut load = Load::new();
    load.client("kept, from the host", kept(port, 1000));
    load.client("new, from the host", fresh(port, "/version"));
    load.client("slow, from the host", fresh(port, "/slow/300/done"));
    load.client("new, from a container", fresh(client, "/get/api/8080/version"));
    load.client("kept, from a container", fresh(client, "/again/api/8080/500/version"));
    for number in 1..=20 {
        reload(&project, port, Guest::Relay, "relay.wasm", number);
    }
    assert_eq!(load.errors(), Vec::<String>::new(), "over twenty reloads");
    assert_eq!(project.service("api").id, before, "it was the same instance all the while");
    watch.interrupted();

    project.up();
    assert_eq!(project.service("api").id, before, "a later `up` has no reason to make it anew");

    // `up` alone has the new one take over as well.
    put(&project, "relay.wasm", &version(Guest::Relay, 21));
    project.up();
    answers(port, 21);
    assert_eq!(load.errors(), Vec::<String>::new(), "over an `up`");
    assert_eq!(project.service("api").id, before);

    // Another instance in its place: these clients notice.
    project.run(&["up", "-d", "--force-recreate", "--no-deps", "api"]).well();
    answers(port, 21);
    assert_ne!(project.service("api").id, before);
    eventually("a recreation breaks something", || holds(!load.errors().is_empty(), "nothing yet"));
    let served = load.end();
    assert!(served.iter().all(|client| client.requests > 20), "every client was served: {served:?}");
    assert!(served[0].versions > 1 && served[4].versions > 1, "connections went over reloads: {served:?}");
}

#[test]
fn kept_instances_are_replaced_under_load() {
    let port = free_port();
    let project = Project::wasm(
        "services: { api: { image: ./relay.wasm, x-wasm: { http: { reuse: true } }, ports: [\"${PORT}:8080\"] } }",
    )
    .guest(Guest::Relay)
    .with("PORT", port);
    let up = project.watch(&["up", "--watch"]);
    let mut load = Load::new();
    load.client("kept", kept(port, 500));
    load.client("new", fresh(port, "/version"));
    for number in 1..=5 {
        reload(&project, port, Guest::Relay, "relay.wasm", number);
    }
    assert_eq!(load.errors(), Vec::<String>::new());
    load.end();
    up.says("Reloading service \"api\"");
    up.interrupted();
}

#[test]
fn a_module_that_is_none_leaves_the_old_one_and_is_told() {
    let port = free_port();
    let project = Project::wasm(API).guest(Guest::Relay).with("PORT", port);
    let up = project.watch(&["up", "--watch"]);
    put(&project, "relay.wasm", b"no module at all");
    up.says("goes on as it was");
    assert_eq!(project.ask(port, "/version"), "version 000");
    project.logged("api", "the old one goes on");
    reload(&project, port, Guest::Relay, "relay.wasm", 1);
    assert_eq!(project.service("api").state, "running");
    up.interrupted();
}

#[test]
fn a_program_is_restarted_behind_its_port() {
    let port = free_port();
    let compose = "services: { one: { image: ./peer.wasm, command: [serve, \"80\"], ports: [\"${PORT}:80\"] } }";
    let project = Project::wasm(compose).guest(Guest::Peer).with("PORT", port);
    let watch = project.watch(&["watch"]);
    let before = project.service("one").id;
    let mut load = Load::new();
    // Its end may cut off a request that it is at; a connection waits for the next one.
    load.client("new", move || std::net::TcpStream::connect(("127.0.0.1", port)).map(|_| Vec::new()));
    for number in 1..=3 {
        reload(&project, port, Guest::Peer, "peer.wasm", number);
    }
    assert_eq!(load.errors(), Vec::<String>::new());
    load.end();
    assert_eq!(project.service("one").id, before);
    watch.interrupted();
}

#[test]
fn new_images_of_a_service_take_over_under_load() {
    let Some(engine) = Engine::answering() else { return };
    let Some(registry) = Registry::serve(Readers::Anybody) else { return };
    let (port, client, program) = (free_port(), free_port(), free_port());
    let publish = |name: &str, guest: Guest, number: u32| {
        let (parts, manifest) = image(&version(guest, number));
        parts.iter().for_each(|part| drop(registry.blob(name, part)));
        registry.tag(name, &manifest);
    };
    let project = Project::on(
        &engine,
        r#"
services:
  api:    { image: "${REGISTRY}/api:1", platform: wasi/wasm, pull_policy: always, ports: ["${PORT}:8080"] }
  job:    { image: "${REGISTRY}/job:1", platform: wasi/wasm, pull_policy: always, command: [serve, "80"], ports: ["${PROGRAM}:80"] }
  client: { image: "${PEER}", command: [serve, "80"], ports: ["${CLIENT}:80"], depends_on: [api] }
"#,
    )
    .with("REGISTRY", registry.name())
    .with("PORT", port)
    .with("PROGRAM", program)
    .with("CLIENT", client);
    publish("api", Guest::Relay, 0);
    publish("job", Guest::Peer, 0);
    project.up();
    answers(port, 0);
    answers(program, 0);
    project.ask(client, "/get/api/8080/version");
    let before = (project.service("api").id, project.service("job").id);

    let mut load = Load::new();
    load.client("kept, from the host", kept(port, 1000));
    load.client("new, from the host", fresh(port, "/version"));
    load.client("slow, from the host", fresh(port, "/slow/300/done"));
    load.client("new, from a container", fresh(client, "/get/api/8080/version"));
    for number in 1..=10 {
        publish("api", Guest::Relay, number);
        project.up();
        answers(port, number);
    }
    assert_eq!(load.errors(), Vec::<String>::new(), "over ten images");
    let served = load.end();
    assert!(served.iter().all(|client| client.requests > 5), "every client was served: {served:?}");

    publish("job", Guest::Peer, 1);
    project.up();
    answers(program, 1);
    let inside = project.run(&["exec", "-T", "job", "/app.wasm", "version"]).well();
    assert_eq!(inside.stdout, "version 001\n", "the module among its files is the new one, too");
    assert_eq!((project.service("api").id, project.service("job").id), before, "the same instances all the while");
    project.up();
    assert_eq!((project.service("api").id, project.service("job").id), before);

    // What else is new in an image makes another instance.
    let (parts, manifest) = image_with(&version(Guest::Relay, 11), &["WHO=new"]);
    parts.iter().for_each(|part| drop(registry.blob("api", part)));
    registry.tag("api", &manifest);
    project.up();
    answers(port, 11);
    assert_ne!(project.service("api").id, before.0);
    assert_eq!(project.ask(port, "/env/WHO"), "new");
}

#[test]
fn who_connects_while_a_program_is_replaced_waits_for_the_next_one() {
    let Some(engine) = Engine::answering() else { return };
    let (linux, wasm, port) = (free_port(), free_port(), free_port());
    let project = Project::on(
        &engine,
        r#"
services:
  one:   { image: ./peer.wasm, command: [serve, "80"], ports: ["${PORT}:80"] }
  linux: { image: "${PEER}", command: [serve, "80"], ports: ["${LINUX}:80"] }
  wasm:  { image: ./asker.wasm, command: [serve, "80"], ports: ["${WASM}:80"] }
"#,
    )
    .guest(Guest::Peer)
    .with("PORT", port)
    .with("LINUX", linux)
    .with("WASM", wasm);
    put(&project, "asker.wasm", &version(Guest::Peer, 999));
    project.up();
    for asker in [linux, wasm] {
        assert_eq!(project.ask(asker, "/knock/one/80/3"), "3 times");
    }
    let watch = project.watch(&["watch", "--no-up", "one"]);
    let mut load = Load::new();
    load.client("from a container", fresh(linux, "/knock/one/80/100"));
    load.client("from a guest", fresh(wasm, "/knock/one/80/100"));
    for number in 1..=5 {
        reload(&project, port, Guest::Peer, "peer.wasm", number);
    }
    let before = project.service("one").id;
    for _ in 0..3 {
        project.run(&["restart", "one"]).well();
        answers(port, 5);
    }
    assert_eq!(load.errors(), Vec::<String>::new(), "over five modules and three restarts");
    let served = load.end();
    assert!(served.iter().all(|client| client.requests > 1), "{served:?}");
    assert_eq!(project.service("one").id, before);

    // A port whose program was stopped is closed, as that of one that ended by itself.
    project.run(&["stop", "one"]).well();
    for asker in [linux, wasm] {
        project.ask_in_vain(asker, "/knock/one/80/1");
    }
    watch.interrupted();
}

#[test]
fn a_module_is_built_again_when_its_sources_change() {
    let port = free_port();
    let project = Project::wasm(
        r#"
services:
  api:
    image: ./built.wasm
    ports: ["${PORT}:8080"]
    x-wasm:
      build: { command: "sed \"s/version 000/$$(cat src/version)/\" relay.wasm > built.wasm", watch: [./src] }
"#,
    )
    .guest(Guest::Relay)
    .with("PORT", port);
    project.write("src/version", "version 001");
    let up = project.watch(&["up", "--watch"]);
    answers(port, 1);
    project.write("src/version", "version 002");
    answers(port, 2);
    up.says("successfully built");
    up.interrupted();
}

#[test]
fn scale_changes_the_number_of_guests_and_of_containers() {
    let Some(engine) = Engine::answering() else { return };
    let port = free_port();
    let project = Project::on(
        &engine,
        r#"
services:
  front: { image: "${PEER}", command: [serve, "80"], ports: ["${PORT}:80"] }
  wasm:  { image: ./peer.wasm, command: [serve, "80"] }
  linux: { image: "${PEER}", command: [serve, "80"] }
"#,
    )
    .guest(Guest::Peer)
    .with("PORT", port);
    project.up();
    let count = |service: &str| project.run(&["ps", "-q", service]).well().stdout.lines().count();
    let addresses = |service: &str| project.ask(port, &format!("/lookup/{service}")).lines().count();
    let front = project.service("front").id;
    project.run(&["scale", "wasm=3", "linux=2"]).well();
    assert_eq!((count("wasm"), count("linux")), (3, 2));
    assert_eq!((addresses("wasm"), addresses("linux")), (3, 2));
    project.run(&["scale", "--no-deps", "wasm=1"]).well();
    assert_eq!((count("wasm"), count("linux")), (1, 2));
    eventually("the name leads to who is left", || holds(addresses("wasm") == 1, addresses("wasm")));
    assert_eq!(project.service("front").id, front, "the others are left alone");
    project.run(&["scale", "wasm=many"]).refused(&["SERVICE=N"]);
    project.run(&["scale", "gone=2"]).refused(&["no such service"]);
}

#[test]
fn up_scales_for_once() {
    let Some(engine) = Engine::answering() else { return };
    let project = Project::on(
        &engine,
        r#"
services:
  wasm:  { image: ./peer.wasm, command: [serve, "80"] }
  linux: { image: "${PEER}", command: [serve, "80"] }
"#,
    )
    .guest(Guest::Peer);
    let count = |service: &str| project.run(&["ps", "-q", service]).well().stdout.lines().count();
    project.run(&["up", "-d", "--scale", "wasm=3", "--scale", "linux=2"]).well();
    assert_eq!((count("wasm"), count("linux")), (3, 2));
    project.run(&["up", "-d", "--scale", "wasm=2"]).well();
    assert_eq!((count("wasm"), count("linux")), (2, 1), "what is not named has its declared number");
    project.up();
    assert_eq!((count("wasm"), count("linux")), (1, 1));
    project.run(&["up", "-d", "--scale", "gone=2"]).refused(&["no such service", "gone"]);
    project.run(&["up", "-d", "--scale", "wasm"]).refused(&["SERVICE=N"]);
}
