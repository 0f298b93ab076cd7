//! Guests from other languages than Rust, built by the compilers people use and run as they come out of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::engine::skip;
use crate::support::project::free_port;
use crate::support::python::Python;
use crate::support::{Project, places};

/// The first of these programs that runs.
fn first(programs: &[&str], argument: &str) -> Option<PathBuf> {
    let runs =
        |program: &&&str| Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success());
    programs.iter().find(runs).map(PathBuf::from)
}

fn source(path: &str) -> PathBuf {
    places::repository().join("tests/it/guests").join(path)
}

/// Where a guest is built; those built before are taken as they are by whoever has no compilers.
fn built(name: &str, build: impl FnOnce(&Path)) -> PathBuf {
    let folder = places::repository().join("target/guests/it/languages/release");
    let file = folder.join(name);
    if !places::prebuilt() {
        fs::create_dir_all(&folder).expect("a writable folder");
        build(&file);
    }
    file
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn clang() -> Option<PathBuf> {
    let found = first(&["clang-19", "clang"], "--version");
    if (found.is_none() || !Path::new("/usr/include/wasm32-wasi/stdio.h").is_file()) && !places::prebuilt() {
        skip("there is no clang with wasi-libc (Debian: clang-19 lld-19 libclang-rt-19-dev-wasm32 wasi-libc)");
        return None;
    }
    Some(found.unwrap_or_default())
}

/// Go with `wasip1`, which began with 1.21.
fn go() -> Option<PathBuf> {
    let unpacked = places::repository().join("target/tools/go/usr/lib/go-1.24/bin/go");
    if unpacked.is_file() || places::prebuilt() {
        return Some(unpacked);
    }
    let knows = |output: std::process::Output| String::from_utf8_lossy(&output.stdout).contains("wasip1/wasm");
    if Command::new("go").args(["tool", "dist", "list"]).output().is_ok_and(knows) {
        return Some("go".into());
    }
    skip(
        "there is no Go 1.21 or newer (../shared/tools/unpack-debian trixie target/tools/go golang-1.24-go golang-1.24-src)",
    );
    None
}

/// A guest from Python.
fn python(guest: Python) -> Option<PathBuf> {
    guest
        .path()
        .map_err(|error| skip(&format!("componentize-py does not work here (Debian: python3 python3-venv): {error}")))
        .ok()
}

/// A project with a note to be copied.
fn with_note(service: &str, guest: &Path) -> Project {
    let project = Project::wasm(&format!(
        "services: {{ job: {{ image: ./guest.wasm, {service} environment: {{ WORD: hello }}, volumes: [\"./in:/in:ro\", \"./out:/out\"] }} }}"
    ));
    fs::copy(guest, project.folder().join("guest.wasm")).expect("it was built");
    project.write("in/note", "kept");
    project.write("out/.keep", "");
    project
}

/// Runs a guest that copies a note and ends with 3, the number of its arguments.
fn copies_a_note(guest: &Path, language: &str) {
    ends(&with_note("command: [one, two],", guest), language, 3);
}

fn ends(project: &Project, language: &str, code: i64) {
    project.up();
    assert_eq!(project.becomes("job", "exited").code, code, "{}", project.logs("job"));
    assert_eq!(project.logs("job").trim_end(), format!("{language} says hello"));
    assert_eq!(fs::read_to_string(project.folder().join("out/note")).expect("the copy"), "kept");
}

#[test]
fn a_module_from_c_runs() {
    let Some(clang) = clang() else { return };
    let guest = built("c.wasm", |file| {
        let (target, source) = ("--target=wasm32-wasi", source("c/main.c"));
        run(Command::new(&clang).args([target, "-O2", "-o"]).arg(file).arg(source));
    });
    copies_a_note(&guest, "C");
}

#[test]
fn a_component_from_c_runs() {
    let Some(clang) = clang() else { return };
    let guest = built("c-component.wasm", |file| {
        // Rust brings the linker that makes components, with the adapter from preview 1.
        let rustc = Command::new("rustc").args(["--print", "target-libdir"]).output().expect("rustc runs").stdout;
        let libraries = PathBuf::from(String::from_utf8_lossy(&rustc).trim());
        let linker = libraries.with_file_name("bin").join("wasm-component-ld");
        let linker = format!("-fuse-ld={}", linker.display());
        let source = source("c/main.c");
        run(Command::new(&clang).args(["--target=wasm32-wasi", "-O2", &linker, "-o"]).arg(file).arg(source));
    });
    // Its exit code is 1 for any failure of `main`, as `wasi:cli/run` has no other; `exit-with-code` is not in the adapter.
    let kind = fs::read(&guest).expect("it was built");
    assert_eq!(&kind[..8], b"\0asm\x0d\0\x01\0", "a component");
    ends(&with_note("", &guest), "C", 1);
}

#[test]
fn a_module_from_go_runs() {
    let Some(go) = go() else { return };
    let guest = built("go.wasm", |file| {
        let root = go.parent().and_then(Path::parent).filter(|root| root.join("VERSION").is_file());
        let mut build = Command::new(&go);
        build.args(["build", "-o"]).arg(file).arg(".").current_dir(source("go"));
        build.envs([("GOOS", "wasip1"), ("GOARCH", "wasm"), ("GOTOOLCHAIN", "local"), ("GOFLAGS", "-buildvcs=false")]);
        build.env("GOCACHE", places::repository().join("target/tools/go-cache"));
        if let Some(root) = root {
            build.env("GOROOT", root);
        }
        run(&mut build);
    });
    copies_a_note(&guest, "Go");
}

#[test]
fn a_command_from_python_runs() {
    let Some(guest) = python(Python::Command) else { return };
    ends(&with_note("command: [one, two],", &guest), "Python", 0);
    ends(&with_note("command: [one],", &guest), "Python", 1);
}

#[test]
fn a_handler_from_python_answers_and_outlives_its_errors() {
    let Some(guest) = python(Python::Handler) else { return };
    for reuse in [false, true] {
        let port = free_port();
        let project = Project::wasm(
            "services: { web: { image: ./guest.wasm, environment: { WORD: hello }, ports: [\"${PORT}:8080\"], x-wasm: { http: { reuse: \"${REUSE}\" } } } }",
        )
        .with("PORT", port)
        .with("REUSE", reuse);
        fs::copy(&guest, project.folder().join("guest.wasm")).expect("it was built");
        project.up();
        assert_eq!(project.ask(port, "/say/good-day"), "good-day");
        assert_eq!(project.ask(port, "/env/WORD"), "hello");
        assert!(project.ask_in_vain(port, "/raise").contains("the guest failed"));
        assert!(project.logs("web").contains("ValueError: asked to"), "{}", project.logs("web"));
        assert_eq!(project.ask(port, "/say/again"), "again");
    }
}
