//! `up` in the foreground: whose output is shown, and which end of a service ends all.

use crate::support::{Engine, Guest, Outcome, Project};

/// One that says something and ends, one that ends later and otherwise, and one that serves.
const THREE: &str = "
services:
  first: { image: ./module.wasm, command: [exit, \"${FIRST}\"] }
  second: { image: ./module.wasm, command: [exit, \"${SECOND}\"], depends_on: { first: { condition: service_completed_successfully } } }
  server: { image: ./peer.wasm, command: [serve, \"80\"] }
";

fn three(first: u8, second: u8) -> Project {
    Project::wasm(THREE).guest(Guest::PeerModule).guest(Guest::Peer).with("FIRST", first).with("SECOND", second)
}

/// The exit code of an `up` that ends by itself; nothing runs any more.
fn code(project: &Project, flags: &[&str]) -> (i32, Outcome) {
    let outcome = project.run(&[&["up"], flags].concat());
    assert!(project.ps().values().all(|row| row.state != "running"), "everything was stopped: {outcome}");
    (outcome.code, outcome)
}

#[test]
fn the_first_end_ends_all_with_its_exit_code() {
    let (code, outcome) = code(&three(0, 7), &["--abort-on-container-exit"]);
    assert_eq!(code, 0, "{outcome}");
    assert!((outcome.stdout.clone() + &outcome.stderr).contains("Aborting on container exit..."), "{outcome}");
}

#[test]
fn the_first_failure_ends_all_with_its_exit_code() {
    let (code, outcome) = code(&three(0, 7), &["--abort-on-container-failure"]);
    assert_eq!(code, 7, "{outcome}");
}

#[test]
fn the_exit_code_is_that_of_the_service_that_was_named() {
    // It was stopped for the others.
    let (code, outcome) = code(&three(0, 7), &["--exit-code-from", "server"]);
    assert_eq!(code, 143, "{outcome}");
    let project = three(0, 0);
    project.run(&["up", "--exit-code-from", "nobody"]).refused(&["no such service", "nobody"]);
    project.run(&["up", "-d", "--exit-code-from", "first"]).refused(&["--detach"]);
}

#[test]
fn containers_end_all_as_guests_do() {
    let Some(engine) = Engine::answering() else { return };
    let project = Project::on(
        &engine,
        "services:\n  job: { image: \"${PEER}\", command: [exit, \"5\"] }\n  other: { image: \"${PEER}\", command: [serve, \"80\"] }\n",
    )
    .with("PEER", engine.peer());
    let (code, outcome) = code(&project, &["--abort-on-container-exit"]);
    assert_eq!(code, 5, "{outcome}");
}

#[test]
fn only_the_output_that_was_asked_for_is_shown() {
    let project = Project::wasm(
        "services:\n  a: { image: ./module.wasm, command: [env], environment: { SAID: said-by-a } }\n  b: { image: ./module.wasm, command: [env], environment: { SAID: said-by-b }, depends_on: [a] }\n  c: { image: ./module.wasm, command: [env], environment: { SAID: said-by-c }, attach: false }\n",
    )
    .guest(Guest::PeerModule);
    for (flags, shown) in [
        (&[][..], &["a", "b"][..]),
        (&["--attach", "c"], &["c"]),
        (&["--no-attach", "a"], &["b"]),
        (&["b"], &["b"]),
        (&["--attach-dependencies", "b"], &["a", "b"]),
        (&["--no-attach", "a", "--no-attach", "b"], &[]),
    ] {
        let outcome = project.run(&[&["up"], flags].concat()).well();
        for name in ["a", "b", "c"] {
            let said = outcome.stdout.contains(&format!("said-by-{name}"));
            assert_eq!(said, shown.contains(&name), "{flags:?}, `{name}`: {outcome}");
        }
        project.run(&["down"]).well();
    }
}
