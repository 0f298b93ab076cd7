//! Compiled code: made once for everybody, there whole or not at all, and removed when nobody uses it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::json;

use crate::support::layout::{CONFIG, LAYER, digest, layer, layout};
use crate::support::leaks::walk;
use crate::support::{Outcome, Project, eventually, holds};

/// A module that takes a moment to compile and to store: so many functions of some length.
fn large(functions: usize) -> String {
    let mut text = String::from("(module (memory (export \"memory\") 1) (func (export \"_start\"))\n");
    for number in 0..functions {
        let _ = write!(text, "(func (param i64) (result i64) (local i64)");
        for step in 0..20 {
            let _ = write!(
                text,
                "(local.set 1 (i64.add (i64.mul (local.get 0) (i64.const {})) (i64.rotl (local.get 1) (i64.const {step}))))",
                number * 31 + step
            );
        }
        text.push_str("(local.get 1))\n");
    }
    text.push(')');
    text
}

/// A project of one job, and its cache.
fn project(cache: &Path, module: &str) -> Project {
    let project = Project::wasm("services: { job: { image: ./app.wat } }").with("WCOMPOSE_CACHE_DIR", cache.display());
    project.write("app.wat", module);
    project
}

fn cache() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("cache");
    (folder, cache)
}

fn files(cache: &Path) -> Vec<String> {
    let entries = fs::read_dir(cache.join("code")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn runs(project: &Project) {
    project.up();
    assert_eq!(project.becomes("job", "exited").code, 0);
}

fn prune(project: &Project, more: &[&str]) -> Outcome {
    project.run(&[["system", "prune"].as_slice(), more].concat())
}

#[test]
fn two_processes_that_compile_the_same_module_make_one_entry() {
    let (_folder, cache) = cache();
    let module = large(400);
    let projects: Vec<Project> = (0..3).map(|_| project(&cache, &module)).collect();
    thread::scope(|scope| projects.iter().for_each(|project| drop(scope.spawn(|| runs(project)))));
    let names = files(&cache);
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names[0].ends_with(".cwasm"));
}

#[test]
fn a_process_killed_while_it_stores_leaves_nothing_that_hurts() {
    let (_folder, cache) = cache();
    let module = large(400);
    for round in 0..12 {
        let project = project(&cache, &module);
        let running = project.start(&["up"]);
        thread::sleep(Duration::from_millis(60 * (round + 1)));
        running.signal(Signal::KILL);
        running.end();
        // Each round begins anew, until one was too late to be cut off.
        for name in files(&cache).iter().filter(|name| name.ends_with(".cwasm")) {
            let _ = fs::remove_file(cache.join("code").join(name));
        }
    }
    runs(&project(&cache, &module));
    let names = files(&cache);
    assert_eq!(names.len(), 1, "what was left unfinished is gone: {names:?}");
    assert!(names[0].ends_with(".cwasm"));
}

#[test]
fn pruning_removes_what_no_running_project_uses_and_says_how_much() {
    let (_folder, cache) = cache();
    let (idle, running) = (project(&cache, &large(3)), project(&cache, &large(5)));
    running.edit("./app.wat }", "./app.wat }, sleeper: { image: ./sleep.wat }");
    running.write("sleep.wat", r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))"#);
    runs(&idle);
    idle.run(&["down"]).well();
    runs(&running);
    eventually("three entries", || holds(files(&cache).len() == 3, files(&cache).len()));

    let young = prune(&idle, &["--force", "--filter", "until=1h"]).well();
    assert!(young.stdout.contains("Removed 0"), "{young}");
    let told = prune(&idle, &["--dry-run"]).well();
    assert!(told.stdout.contains("Would remove 1"), "{told}");
    assert_eq!(files(&cache).len(), 3);
    let unsure = prune(&idle, &[]);
    assert!(unsure.code == 1 && unsure.stderr.contains("y/N"), "{unsure}");
    assert_eq!(files(&cache).len(), 3, "no answer is no");
    let pruned = prune(&idle, &["-f"]).well();
    assert!(pruned.stdout.contains("Removed 1") && pruned.stdout.contains("Total reclaimed space: "), "{pruned}");
    assert!(pruned.stdout.contains("Kept 2"), "the running project's: {pruned}");
    assert_eq!(files(&cache).len(), 2);

    running.run(&["down"]).well();
    eventually("its supervisor lets go of them", || {
        prune(&idle, &["-f"]).well();
        holds(files(&cache).is_empty(), format!("{:?}", files(&cache)))
    });
    prune(&idle, &["--filter", "label=x", "-f"]).refused(&["label=x", "until"]);
}

#[test]
fn pruning_removes_what_is_left_of_images_and_they_run_again() {
    let (_folder, cache) = cache();
    let project = Project::wasm("services: { job: { image: ./layout, platform: wasi/wasm } }")
        .with("WCOMPOSE_CACHE_DIR", cache.display());
    let module = wat::parse_str(r#"(module (func (export "_start")))"#).expect("it is right");
    let config = json!({ "os": "wasi", "architecture": "wasm", "config": { "Entrypoint": ["/app.wasm"] } });
    let layer = layer(&[("app.wasm", &module)]);
    let blob = project.root().join("data/content/blobs/sha256").join(digest(&layer).trim_start_matches("sha256:"));
    layout(&project, config.to_string().into_bytes(), CONFIG, vec![(LAYER, layer)]);
    runs(&project);
    project.run(&["down"]).well();
    let young = prune(&project, &["-f"]).well();
    assert!(blob.exists() && !young.stdout.contains("blob"), "it may be on its way into a project: {young}");

    let hour = SystemTime::now() - Duration::from_secs(3600);
    let age = |folder: &Path| {
        walk(folder, &mut |path, _| {
            fs::File::open(path).and_then(|file| file.set_modified(hour)).expect("a file of ours");
        });
    };
    age(&project.root().join("data/content"));
    age(&cache.join("images"));
    let told = prune(&project, &["--dry-run"]).well();
    assert!(blob.exists() && told.stdout.contains("Would remove 3 blobs"), "{told}");
    let pruned = prune(&project, &["-f"]).well();
    for line in ["Removed 3 blobs", "Removed 1 unpacked image"] {
        assert!(pruned.stdout.contains(line), "{pruned}");
    }
    assert!(!blob.exists());
    runs(&project);
}
