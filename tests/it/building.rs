//! `build`: what is built, from what, and what is said of it.

use std::fs;

use crate::support::engine::text;
use crate::support::remotes::{Readers, Registry};
use crate::support::{Engine, Guest, Project};

const DOCKERFILE: &str = "FROM scratch\nLABEL of=REFERENCE\nARG ONE=none\nARG TWO=none\nARG THREE=none\nARG FOUR=none\n\
    LABEL said=\"$ONE $TWO $THREE $FOUR\"\nCOPY Dockerfile /\n";

/// A service to build, one that needs it, and one that is not built.
const SERVICES: &str = "
services:
  app:
    image: ${IMAGE}
    build: { context: ., args: { ONE: file, TWO: file } }
    depends_on: [base]
  base:
    image: ${IMAGE}-base
    build: .
  other:
    image: nothing.invalid/at-all
";

fn project(engine: &Engine, reference: &str) -> Project {
    let project = Project::on(engine, SERVICES).with("IMAGE", reference);
    // What another test builds at the same moment is no cache of this one's.
    project.write("Dockerfile", &DOCKERFILE.replace("REFERENCE", reference));
    project
}

/// The id of an image, and what its build was given.
fn image(engine: &Engine, reference: &str) -> Option<(String, String)> {
    let (status, found) = engine.call("GET", &format!("/images/{reference}/json"));
    (status == 200).then(|| (text(&found["Id"]), text(&found["Config"]["Labels"]["said"])))
}

fn remove(engine: &Engine, reference: &str) {
    for tag in [reference.to_owned(), format!("{reference}-base")] {
        engine.call("DELETE", &format!("/images/{tag}?force=1"));
    }
}

#[test]
fn builds_have_what_the_file_and_the_command_line_say() {
    let Some(engine) = Engine::answering() else { return };
    let Some(registry) = Registry::serve(Readers::Anybody) else { return };
    let reference = format!("{}/app:1", registry.name());
    let project = project(&engine, &reference).with("THREE", "environment");
    let told = project.run(&["--progress", "plain", "build", "app"]).well();
    assert!(told.stderr.contains(&format!("Image {reference}  Built")), "{told}");
    let first = image(&engine, &reference).expect("it is built");
    assert_eq!(first.1, "file file none none");
    assert_eq!(image(&engine, &format!("{reference}-base")), None, "nobody asked for what it depends on");

    project.run(&["build", "app"]).well();
    assert_eq!(image(&engine, &reference), Some(first.clone()), "nothing is new");
    project.run(&["build", "--no-cache", "app"]).well();
    assert_ne!(image(&engine, &reference).expect("it is built").0, first.0, "every step was done anew");

    let quiet = ["build", "-q", "--with-dependencies", "--build-arg", "TWO=given", "--build-arg", "THREE"];
    let said = project.run(&[&quiet[..], &["--build-arg", "FOUR=", "app"]].concat()).well();
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""));
    assert_eq!(image(&engine, &reference).expect("it is built").1, "file given environment ");
    assert_eq!(image(&engine, &format!("{reference}-base")).expect("it is built").1, "none given environment ");
    remove(&engine, &reference);
}

#[test]
fn what_was_built_is_pushed_where_that_is_asked_for() {
    let Some(engine) = Engine::answering() else { return };
    let Some(registry) = Registry::serve(Readers::Anybody) else { return };
    let reference = format!("{}/app:1", registry.name());
    let project = project(&engine, &reference);
    project.run(&["build", "--push", "app"]).well();
    registry.tagged("app", "1");
    remove(&engine, &reference);
}

#[test]
fn a_dry_run_builds_nothing() {
    let Some(engine) = Engine::answering() else { return };
    let reference = "wcompose-test-dry-run:1";
    let project = project(&engine, reference);
    let told = project.run(&["--dry-run", "build"]).well();
    assert_eq!(told.stdout.lines().count(), 2, "{told}");
    assert!(told.stdout.contains(&format!("build image {reference} (not found)\n")), "{told}");
    assert_eq!(image(&engine, reference), None);
}

#[test]
fn a_build_argument_without_a_name_is_an_error() {
    let Some(engine) = Engine::answering() else { return };
    let project = project(&engine, "wcompose-test-nameless:1");
    project.run(&["build", "--build-arg", "=value"]).refused(&["`=value` has no name"]);
}

#[test]
fn a_build_that_fails_is_told_with_its_last_words() {
    let Some(engine) = Engine::answering() else { return };
    let project = project(&engine, "wcompose-test-failing:1");
    project.write("Dockerfile", "FROM scratch\nCOPY no-such-file /\n");
    project.run(&["build", "app"]).refused(&["service `app`", "no-such-file"]);
}

#[test]
fn modules_are_built_without_an_engine() {
    let project = Project::wasm(
        "services:\n  job: {x-wasm: {build: {command: \"cp module.wasm out.wasm\", output: ./out.wasm}}}\n  other: {image: ./module.wasm}\n",
    )
    .guest(Guest::PeerModule);
    let nothing = project.run(&["build", "other"]).well();
    assert!(nothing.stderr.contains("No services to build"), "{nothing}");
    project.run(&["build"]).well();
    assert!(fs::exists(project.folder().join("out.wasm")).expect("a readable folder"));
}

#[test]
fn what_builds_cannot_do_is_refused() {
    let project = Project::wasm("services: { one: { image: ./peer.wasm } }");
    for (flags, words) in [
        (["--builder", "other"], "--builder"),
        (["--ssh", "default"], "--ssh"),
        (["--check", "one"], "docker build --check"),
        (["--print", "one"], "--print"),
        (["--sbom=true", "one"], "--sbom"),
        (["--provenance", "one"], "--provenance"),
        (["--pull", "nobody"], "no such service"),
    ] {
        project.run(&[&["build"], &flags[..]].concat()).refused(&[words]);
    }
    project.run(&["build", "--sbom=false", "--builder", "default"]).well();
}
