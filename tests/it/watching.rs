//! `watch`: what compose's `develop.watch` asks for, on both kinds.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::support::project::free_port;
use crate::support::{Engine, Guest, Project, Running, eventually, holds};

/// Runs a command in a container: what it writes.
fn inside(container: &str, command: &[&str]) -> String {
    let output = Command::new("docker").args(["exec", container]).args(command).output().expect("docker runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn watched(project: &Project, arguments: &[&str]) -> Running {
    let watch = project.start(arguments);
    watch.says("Watch enabled");
    watch
}

fn ended(watch: Running) {
    watch.signal(Signal::INT);
    let outcome = watch.end();
    assert_eq!(outcome.code, 130, "{outcome}");
}

#[test]
fn an_image_is_built_again_and_the_one_before_is_pruned() {
    let Some(engine) = Engine::with_images(&["busybox"]) else { return };
    let project = Project::on(
        &engine,
        r#"
services:
  web:
    build:
      context: .
      dockerfile_inline: "FROM busybox\nCOPY version /version\nCMD [\"sleep\", \"600\"]"
    stop_signal: SIGKILL
    develop: { watch: [{ path: ./version, action: rebuild }] }
"#,
    );
    let (container, image) = (format!("{}-web-1", project.name), format!("{}-web", project.name));
    let id = || engine.get(&format!("/images/{image}/json"))["Id"].as_str().unwrap_or_default().to_owned();
    let there = |id: &str| engine.has_image(id);
    let rebuild = |text: &str| {
        project.write("version", text);
        eventually("the service is built again", || {
            let version = inside(&container, &["cat", "/version"]);
            holds(version == text, version)
        });
    };
    project.write("version", "one");
    let watch = watched(&project, &["watch"]);
    let first = id();
    rebuild("two");
    eventually("the image that was replaced goes", || holds(!there(&first), &first));
    let second = id();
    assert_ne!(second, first);
    ended(watch);

    let watch = watched(&project, &["watch", "--prune=false"]);
    rebuild("three");
    watch.says("successfully built");
    ended(watch);
    assert!(there(&second), "kept when that is asked for");
    assert_ne!(engine.call("DELETE", &format!("/images/{second}")).0, 404);
}

#[test]
fn files_are_synced_at_the_beginning_and_a_command_runs_as_declared() {
    let Some(engine) = Engine::with_images(&["busybox"]) else { return };
    let project = Project::on(
        &engine,
        r#"
services:
  web:
    image: busybox
    command: [sleep, "600"]
    stop_signal: SIGKILL
    tmpfs: /out
    develop:
      watch:
        - { path: ./src, action: sync, target: /app, initial_sync: true, ignore: [gen/] }
        - path: ./conf
          action: sync+exec
          target: /etc/app
          exec:
            command: [sh, -c, 'echo "$$(id -u) $$(pwd) $$WHO $$NUMBER" >> /out/ran']
            user: "1000"
            working_dir: /usr
            environment: { WHO: me, NUMBER: 7 }
"#,
    );
    project.write("src/deep/a.txt", "one");
    project.write("src/gen/b.txt", "ignored");
    project.write("conf/main", "one");
    let watch = watched(&project, &["watch"]);
    let container = format!("{}-web-1", project.name);
    let read = |path: &str| inside(&container, &["cat", path]);
    eventually("what is there arrives", || holds(read("/app/deep/a.txt") == "one", read("/app/deep/a.txt")));
    assert_eq!(read("/app/gen/b.txt"), "");
    assert_eq!(read("/etc/app/main"), "", "only where that is asked for");
    project.write("conf/main", "two");
    eventually("the command ran", || holds(read("/out/ran") == "1000 /usr me 7\n", read("/out/ran")));
    assert_eq!(read("/etc/app/main"), "two", "after the files were there");
    ended(watch);
}

#[test]
fn files_are_synced_into_a_guest_and_its_volumes() {
    let port = free_port();
    let project = Project::wasm(
        r#"
services:
  api:
    image: ./peer.wasm
    command: [serve, "80"]
    ports: ["${PORT}:80"]
    volumes: ["data:/data", "./tools:/tools:ro"]
    develop:
      watch:
        - { path: ./src, action: sync, target: /app, initial_sync: true }
        - { path: ./conf, action: sync+restart, target: /data/conf }
        - path: ./made
          action: sync+exec
          target: /app/made
          exec: { command: [/tools/tool.wasm, write, /data/ran, yes] }
volumes: { data: }
"#,
    )
    .guest(Guest::Peer)
    .guest(Guest::PeerModule)
    .with("PORT", port);
    fs::create_dir_all(project.folder().join("tools")).expect("a folder");
    fs::copy(project.folder().join("module.wasm"), project.folder().join("tools/tool.wasm")).expect("a copy");
    project.write("src/a.txt", "one");
    project.write("src/deep/b.txt", "one");
    project.write("conf/main", "one");
    project.write("made/x", "one");
    let watch = watched(&project, &["watch"]);
    let read = |path: &str| {
        let answer = crate::support::http::get(port, &format!("/read/{}", path.replace('/', "%2F")));
        answer.map_or_else(|error| error.to_string(), |(_, body)| body)
    };
    let reads = |path: &str, text: &str| {
        eventually(&format!("{path} is there"), || holds(read(path) == text, read(path)));
    };
    reads("/app/a.txt", "one");
    project.write("src/a.txt", "two");
    reads("/app/a.txt", "two");
    fs::remove_dir_all(project.folder().join("src/deep")).expect("it was written");
    eventually("the file goes", || holds(read("/app/deep/b.txt") != "one", "it is there"));
    project.write("conf/main", "two");
    reads("/data/conf/main", "two");
    watch.says("restarted");
    project.write("made/x", "two");
    reads("/data/ran", "yes");
    reads("/app/made/x", "two");
    ended(watch);
    assert_eq!(project.service("api").state, "running");
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

#[test]
fn what_builds_and_pulls_write_can_be_left_out() {
    let Some(engine) = Engine::with_images(&["busybox"]) else { return };
    let project = Project::on(
        &engine,
        r#"
services:
  web:
    build: { context: ., dockerfile_inline: "FROM busybox\nRUN echo a-$$((40 + 2))-detail\nCMD [\"true\"]", no_cache: true }
  job:
    command: [say, hi]
    x-wasm: { build: { command: "echo b-$$((40 + 2))-detail; cp module.wasm out.wasm", output: ./out.wasm } }
"#,
    )
    .guest(Guest::PeerModule);
    let loud = project.run(&["--progress", "plain", "up", "-d", "--build"]).well();
    assert!(loud.stderr.contains("a-42-detail") && loud.stderr.contains("b-42-detail"), "{loud}");
    let quiet = project.run(&["--progress", "plain", "up", "-d", "--build", "--quiet-build"]).well();
    assert!(!quiet.stderr.contains("-42-detail"), "{quiet}");
    assert!(quiet.stderr.contains("Built"), "that it was built is told: {quiet}");
    let quiet = project.run(&["--progress", "plain", "run", "--build", "--quiet-build", "--rm", "-T", "job"]).well();
    assert!(!quiet.stderr.contains("-42-detail"), "{quiet}");
    assert_eq!(quiet.stdout, "hi\n");
}
