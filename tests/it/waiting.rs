//! `up --wait`: back when everything is healthy, runs, or did its work; with an error when that cannot be.

use crate::support::{Engine, Guest, Project, now};

#[test]
fn containers_are_waited_for_until_they_are_healthy_and_a_one_shot_that_did_its_work_counts() {
    let Some(engine) = Engine::answering() else { return };
    let project = Project::on(
        &engine,
        r#"
services:
  job: { image: "${PEER}", command: [say, done] }
  db:
    image: ${PEER}
    command: [serve, "80"]
    healthcheck: { test: [CMD, /peer, check, "80"], interval: 300ms, start_period: 1m }
  web: { image: "${PEER}", command: [serve, "80"] }
"#,
    );
    let outcome = project.run(&["up", "--wait"]).well();
    assert!(outcome.stderr.contains("db-1  Healthy"), "{outcome}");
    let rows = project.ps();
    assert_eq!((rows["db"].health.as_str(), rows["job"].code, rows["web"].state.as_str()), ("healthy", 0, "running"));
    assert_eq!(project.supervisors(), Vec::<i32>::new(), "nobody has to stay for containers");
}

#[test]
fn guests_are_waited_for_until_they_are_healthy_and_a_one_shot_that_did_its_work_counts() {
    let project = Project::wasm(
        r#"
services:
  job: { image: ./module.wasm, command: [say, done] }
  server:
    image: ./peer.wasm
    command: [serve, "8080"]
    healthcheck: { test: ["CMD", "curl", "-f", "http://localhost:8080/say/well"], interval: 300ms }
"#,
    )
    .guest(Guest::Peer)
    .guest(Guest::PeerModule);
    project.run(&["up", "--wait"]).well();
    let rows = project.ps();
    assert_eq!((rows["server"].health.as_str(), rows["job"].code), ("healthy", 0));
}

#[test]
fn waiting_fails_with_what_ends_or_turns_unhealthy_and_says_which_it_is() {
    let Some(engine) = Engine::answering() else { return };
    let project = Project::on(
        &engine,
        r#"
services:
  well: { image: "${PEER}", command: [serve, "80"] }
  ends: { image: "${PEER}", command: [exit, "3"] }
  sick:
    image: ${PEER}
    command: [serve, "80"]
    healthcheck: { test: [CMD, /peer, check, "81"], interval: 200ms, retries: 2 }
"#,
    );
    let outcome = project.run(&["up", "--wait", "well", "ends"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("`ends` exited with code 3"), "{outcome}");
    assert!(!outcome.stderr.contains("`well`"), "{outcome}");
    assert_eq!(project.service("well").state, "running", "what works goes on");

    let outcome = project.run(&["up", "--wait", "sick"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("service `sick` runs but is unhealthy"), "{outcome}");
    assert_eq!(outcome.stderr.matches("error:").count(), 1, "one reason is enough:\n{outcome}");
}

#[test]
fn waiting_ends_in_time() {
    let project = Project::wasm(
        r#"
services:
  slow:
    image: ./peer.wasm
    command: [serve, "8080"]
    healthcheck: { test: ["CMD", "curl", "-f", "http://localhost:8081/"], interval: 1h, start_period: 1h }
"#,
    )
    .guest(Guest::Peer);
    let begun = now();
    let outcome = project.run(&["up", "--wait", "--wait-timeout", "1"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("not ready within 1s: `slow` is not healthy yet"), "{outcome}");
    assert!(begun.elapsed().as_secs() < 30, "{outcome}");
    assert_eq!(project.service("slow").state, "running");
}
