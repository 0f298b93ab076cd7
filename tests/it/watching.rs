//! `watch`: what compose's `develop.watch` asks for, on both kinds.

use std::fs;

use crate::support::project::free_port;
use crate::support::{Engine, Guest, Project, eventually, holds};

/// A container that files are brought into, by these rules.
fn synced(engine: &Engine, rules: &str) -> Project {
    let compose = r#"
services:
  web:
    image: busybox
    command: [sleep, "600"]
    stop_signal: SIGKILL
    tmpfs: /out
    develop:
      watch: [RULES]
"#;
    Project::on(engine, &compose.replace("RULES", rules))
}

/// What is in a file of its container; nothing where there is none.
fn read(engine: &Engine, project: &Project, path: &str) -> String {
    engine.exec(&format!("{}-web-1", project.name), &["cat", path]).stdout
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
    let image = format!("{}-web", project.name);
    let id = || engine.get(&format!("/images/{image}/json"))["Id"].as_str().unwrap_or_default().to_owned();
    let there = |id: &str| engine.has_image(id);
    let rebuild = |text: &str| {
        project.write("version", text);
        eventually("the service is built again", || {
            let version = read(&engine, &project, "/version");
            holds(version == text, version)
        });
    };
    project.write("version", "one");
    let watch = project.watch(&["watch"]);
    let first = id();
    rebuild("two");
    eventually("the image that was replaced goes", || holds(!there(&first), &first));
    let second = id();
    assert_ne!(second, first);
    watch.interrupted();

    let watch = project.watch(&["watch", "--prune=false"]);
    rebuild("three");
    watch.says("successfully built");
    watch.interrupted();
    assert!(there(&second), "kept when that is asked for");
    assert_ne!(engine.call("DELETE", &format!("/images/{second}")).0, 404);
}

#[test]
fn files_are_synced_at_the_beginning_and_a_command_runs_as_declared() {
    let Some(engine) = Engine::with_images(&["busybox"]) else { return };
    let rules = r#"
        { path: ./src, action: sync, target: /app, initial_sync: true, ignore: [gen/] },
        {
          path: ./conf,
          action: sync+exec,
          target: /etc/app,
          exec: {
            command: [sh, -c, 'echo "$$(id -u) $$(pwd) $$WHO $$NUMBER" >> /out/ran'],
            user: "1000",
            working_dir: /usr,
            environment: { WHO: me, NUMBER: 7 },
          },
        },
    "#;
    let project = synced(&engine, rules);
    project.write("src/deep/a.txt", "one");
    project.write("src/gen/b.txt", "ignored");
    project.write("conf/main", "one");
    let watch = project.watch(&["watch"]);
    let read = |path: &str| read(&engine, &project, path);
    eventually("what is there arrives", || holds(read("/app/deep/a.txt") == "one", read("/app/deep/a.txt")));
    assert_eq!(read("/app/gen/b.txt"), "");
    assert_eq!(read("/etc/app/main"), "", "only where that is asked for");
    project.write("conf/main", "two");
    eventually("the command ran", || holds(read("/out/ran") == "1000 /usr me 7\n", read("/out/ran")));
    assert_eq!(read("/etc/app/main"), "two", "after the files were there");
    watch.interrupted();
}

#[test]
fn files_are_synced_into_a_container_and_taken_away_again() {
    let Some(engine) = Engine::with_images(&["busybox"]) else { return };
    let rules = r#"
        { path: ./src, action: sync, target: /app, ignore: [gen/] },
        { path: ./conf, action: sync+restart, target: /etc/app },
    "#;
    let project = synced(&engine, rules);
    project.write("src/a.txt", "one");
    project.write("conf/main", "one");
    let watch = project.watch(&["watch"]);
    let read = |path: &str| read(&engine, &project, path);
    project.write("src/gen/b.txt", "ignored");
    project.write("src/deep/a.txt", "two");
    eventually("the file arrives", || holds(read("/app/deep/a.txt") == "two", read("/app/deep/a.txt")));
    assert_eq!(read("/app/gen/b.txt"), "");
    fs::remove_file(project.folder().join("src/deep/a.txt")).expect("it was written");
    eventually("the file goes", || holds(read("/app/deep/a.txt").is_empty(), read("/app/deep/a.txt")));

    let started = || engine.get(&format!("/containers/{}-web-1/json", project.name))["State"]["StartedAt"].clone();
    let before = started();
    project.write("conf/main", "two");
    eventually("it is restarted with the file", || {
        holds(started() != before && read("/etc/app/main") == "two", read("/etc/app/main"))
    });
    watch.interrupted();
}

#[test]
fn nothing_to_watch_is_said() {
    let project = Project::wasm("services: { one: { image: busybox } }");
    project.run(&["watch"]).refused(&["none of the selected services is configured for watch"]);
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
    let watch = project.watch(&["watch"]);
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
    watch.interrupted();
    assert_eq!(project.service("api").state, "running");
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
