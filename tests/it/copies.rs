//! `cp` and its flags, on both kinds.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use crate::support::{Engine, Guest, Project};

/// Two replicas of each kind.
const BOTH: &str = r#"
services:
  linux:
    image: busybox
    command: [sleep, "600"]
    user: "0"
    stop_signal: SIGKILL
    deploy: { replicas: 2 }
  wasm:
    image: ./peer.wasm
    command: [sleep, "600"]
    deploy: { replicas: 2 }
"#;

fn both(engine: &Engine) -> Project {
    let project = Project::on(engine, BOTH).guest(Guest::Peer);
    project.up();
    project
}

/// What `cp` brings back of a file.
fn back(project: &Project, arguments: &[&str]) -> Option<String> {
    let _ = fs::remove_file(project.folder().join("back"));
    let outcome = project.run(&[&["cp"], arguments, &["back"]].concat());
    (outcome.code == 0).then(|| fs::read_to_string(project.folder().join("back")).expect("it came back"))
}

#[test]
fn one_replica_or_all_get_files_and_one_offs_only_when_asked() {
    let Some(engine) = Engine::with_images(&["busybox"]) else { return };
    let project = both(&engine);
    project.write("note", "noted");
    for service in ["linux", "wasm"] {
        let (one, each, all) =
            (format!("{service}:/tmp/one"), format!("{service}:/tmp/each"), format!("{service}:/tmp/all"));
        if service == "wasm" {
            fs::create_dir_all(project.folder().join("tmp")).expect("a writable folder");
            project.run(&["cp", "tmp", "wasm:/"]).well();
        }
        project.run(&["cp", "--index", "2", "note", &one]).well();
        assert_eq!(back(&project, &["--index", "2", &one]).as_deref(), Some("noted"), "{service}");
        assert_eq!(back(&project, &["--index", "1", &one]), None, "{service}: the other one has none");
        project.run(&["cp", "--index", "3", "note", &one]).refused(&[service]);
        project.run(&["cp", "note", &each]).well();
        for index in ["1", "2"] {
            assert_eq!(back(&project, &["--index", index, &each]).as_deref(), Some("noted"), "{service} {index}");
        }

        let name = format!("{}-once", project.name);
        let rest: &[&str] = if service == "linux" { &["sleep", "600"] } else { &[] };
        project.run(&[&["run", "-d", "--rm", "--name", &name, service], rest].concat()).well();
        let inside = |path: &str| match service {
            "linux" => engine.exec(&name, &["cat", path]).code == 0,
            _ => holders(&project, path) == 3,
        };
        if service == "wasm" {
            project.run(&["cp", "--all", "tmp", "wasm:/"]).well();
        }
        project.run(&["cp", "note", &each]).well();
        assert!(!inside("/tmp/each"), "{service}: a one-off is left alone");
        project.run(&["cp", "--all", "note", &all]).well();
        assert!(inside("/tmp/all"), "{service}: unless it is asked for");
        engine.call("POST", &format!("/containers/{name}/kill"));
    }
}

/// How many guests have a file in their root.
fn holders(project: &Project, path: &str) -> usize {
    let instances = fs::read_dir(project.root().join("data/instances")).expect("guests have files").flatten();
    instances.filter(|one| one.path().join("root").join(path.trim_start_matches('/')).is_file()).count()
}

#[test]
fn links_are_followed_when_that_is_asked_for() {
    let Some(engine) = Engine::with_images(&["busybox"]) else { return };
    let project = both(&engine);
    project.write("up/real/file", "content");
    symlink("real", project.folder().join("up/folder")).expect("a link");
    symlink("real/file", project.folder().join("up/link")).expect("a link");
    for service in ["linux", "wasm"] {
        let at = |path: &str| format!("{service}:{path}");
        project.run(&["cp", "up", &at("/up")]).well();
        // In: the link itself, or what it leads to, under the link's name.
        project.run(&["cp", "-L", "up/link", &at("/up/followed")]).well();
        assert_eq!(back(&project, &[&at("/up/followed")]).as_deref(), Some("content"), "{service}");
        project.run(&["cp", "-L", "up/folder", &at("/up/real")]).well();
        assert_eq!(back(&project, &[&at("/up/real/folder/file")]).as_deref(), Some("content"), "{service}");
        // Out.
        let out = format!("out-{service}");
        fs::create_dir(project.folder().join(&out)).expect("a folder");
        project.run(&["cp", &at("/up/link"), &out]).well();
        let link = fs::read_link(project.folder().join(&out).join("link")).expect("it is a link");
        assert_eq!(link.to_str(), Some("real/file"), "{service}");
        fs::remove_file(project.folder().join(&out).join("link")).expect("it is there");
        project.run(&["cp", "-L", &at("/up/link"), &out]).well();
        let metadata = fs::symlink_metadata(project.folder().join(&out).join("link")).expect("under the link's name");
        assert!(metadata.is_file(), "{service}");
        project.run(&["cp", "-L", &at("/up/folder"), &out]).well();
        assert_eq!(fs::read_to_string(project.folder().join(&out).join("folder/file")).expect("it came"), "content");
    }
}

#[test]
fn an_archive_copy_belongs_to_the_containers_user_and_keeps_modes_and_times() {
    let Some(engine) = Engine::with_images(&["busybox"]) else { return };
    let project = both(&engine);
    project.write("tool", "a tool");
    let path = project.folder().join("tool");
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o750);
    fs::set_permissions(&path, permissions).expect("our file");
    let file = fs::File::options().write(true).open(&path).expect("our file");
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).expect("our file");
    let container = format!("{}-linux-1", project.name);
    let stat =
        |path: &str| engine.exec(&container, &["stat", "-c", "%u %g %a %Y", path]).well().stdout.trim().to_owned();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(1234), Some(1235)).expect("we may do all");
    }
    let metadata = fs::metadata(&path).expect("our file");
    project.run(&["cp", "tool", "linux:/plain"]).well();
    assert_eq!(stat("/plain"), format!("{} {} 750 1000000000", metadata.uid(), metadata.gid()), "as it is here");
    project.run(&["cp", "-a", "tool", "linux:/archived"]).well();
    assert_eq!(stat("/archived"), "0 0 750 1000000000");

    // A guest has no users: its files are ours.
    project.run(&["cp", "--archive", "tool", "wasm:/archived"]).well();
    project.run(&["cp", "--archive", "wasm:/archived", "from-wasm"]).well();
    let metadata = fs::metadata(project.folder().join("from-wasm")).expect("it came back");
    assert_eq!((metadata.mode() & 0o777, metadata.mtime()), (0o750, 1_000_000_000));
}
