//! What a guest was not given it does not get, whatever it tries: paths, links, renames, descriptors, environment, the host, the
//! bridge's gateway, neighbours of other projects. Real guests on the real host; the attempts must fail *and* leave no trace.
//!
//! Redirects are in `https`, datagrams and name servers in `datagrams`, layers of images in the unit tests of `image::export`.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::support::project::free_port;
use crate::support::{Engine, Guest, Project};

/// What lies where no guest may look.
const SECRET: &str = "the host's own";

/// A service with two mounts (4: `./in`, writable; 5: `./kept`, read-only) beside a file it was not given.
fn burglar(attempts: &[&str]) -> Project {
    let command = serde_json::to_string(attempts).expect("texts");
    let project = Project::wasm(&format!(
        "services:\n  job:\n    image: ./burglar.wasm\n    command: {command}\n    volumes: [\"./in:/in\", \"./kept:/kept:ro\"]\n"
    ))
    .guest(Guest::Burglar);
    project.write("secret", SECRET);
    project.write("in/own", "its own");
    project.write("kept/note", "from the host");
    project
}

/// What came of each attempt.
fn outcomes(project: &Project) -> BTreeMap<String, String> {
    project.up();
    assert_eq!(project.becomes("job", "exited").code, 0, "{}", project.logs("job"));
    let lines = project.logs("job");
    let parted = lines.lines().filter_map(|line| line.rsplit_once(": "));
    parted.map(|(attempt, outcome)| (attempt.to_owned(), outcome.to_owned())).collect()
}

/// All attempts must fail; those that show the guest can do its own work must not.
#[track_caller]
fn all_fail(project: &Project, attempts: &[&str], own: &[&str]) {
    let outcomes = outcomes(project);
    for attempt in attempts {
        let outcome = outcomes.get(*attempt).unwrap_or_else(|| panic!("`{attempt}` was not tried: {outcomes:?}"));
        assert!(outcome.starts_with("error "), "`{attempt}` should have failed: {outcome}");
    }
    for attempt in own {
        let outcome = outcomes.get(*attempt).map(String::as_str);
        assert!(outcome.is_some_and(|outcome| outcome.starts_with("got ")), "`{attempt}`: {outcome:?}");
    }
    assert_eq!(fs::read_to_string(project.folder().join("secret")).expect("it is there"), SECRET);
    assert_eq!(fs::read_to_string(project.folder().join("kept/note")).expect("it is there"), "from the host");
}

#[test]
fn no_path_leads_out_of_a_mount() {
    let attempts = [
        "read 4 ../secret",
        "read 4 ./../secret",
        "read 4 a/../../secret",
        "read 4 own/../../secret",
        "read 4 .//..//secret",
        "read 4 ../in/../secret",
        "read 4 /etc/passwd",
        "read 4 //etc/passwd",
        "read 3 /etc/passwd",
        "read 3 etc/passwd",
        "read 3 ../../../../../../../../etc/passwd",
        "read 3 ../../../../../../../../proc/self/environ",
        "read 3 proc/self/environ",
        "read 5 ../secret",
        "list 4 ..",
        "list 3 ..",
        "list 3 /",
        "list 4 ../kept",
        "write 4 ../planted text",
        "write 3 ../planted text",
        "write 3 /tmp/planted text",
    ];
    let own = ["read 4 own", "read 5 note", "write 4 new text"];
    let project = burglar(&[attempts.as_slice(), own.as_slice()].concat());
    all_fail(&project, &attempts, &own);
    assert!(!project.folder().join("planted").exists());
    assert!(project.folder().join("in/new").exists(), "what it may do it can do");
}

#[test]
fn links_of_a_mount_lead_nowhere_outside() {
    let attempts = [
        "read 4 file",
        "read 4 absolute",
        "read 4 folder/secret",
        "read 4 folder/folder/../secret",
        "read 4 chain",
        "write 4 file text",
        "write 4 missing text",
        "list 4 folder",
    ];
    let own = ["read 4 inside"];
    let project = burglar(&[attempts.as_slice(), own.as_slice()].concat());
    let folder = project.folder().join("in");
    for (target, name) in [
        ("../secret", "file"),
        ("/etc/passwd", "absolute"),
        ("..", "folder"),
        ("file", "chain"),
        ("../planted", "missing"),
        ("own", "inside"),
    ] {
        symlink(target, folder.join(name)).expect("a link");
    }
    all_fail(&project, &attempts, &own);
    assert!(!project.folder().join("planted").exists());
}

#[test]
fn links_a_guest_makes_lead_nowhere_outside() {
    let attempts = ["read 4 up/secret", "read 4 file", "write 4 file text", "read 4 deep/secret", "read 4 absolute"];
    let own = ["symlink 4 own inside", "read 4 inside"];
    // Whether a link may be made does not matter, only where it leads.
    let make =
        ["symlink 4 .. up", "symlink 4 ../secret file", "symlink 4 up/../.. deep", "symlink 4 /etc/passwd absolute"];
    let project = burglar(&[make.as_slice(), own.as_slice(), attempts.as_slice()].concat());
    all_fail(&project, &attempts, &own);
}

#[test]
fn nothing_is_carried_across_mounts_by_renaming() {
    let attempts = [
        "rename 5 note 4 note",
        "rename 5 note 3 note",
        "rename 4 own 5 own",
        "rename 4 ../secret 4 mine",
        "rename 4 own 4 ../planted",
        "rename 3 ../../../../../../../../etc/passwd 4 mine",
        "rename 4 .. 3 all",
    ];
    let own = ["rename 4 own 4 other", "read 4 other"];
    let project = burglar(&[attempts.as_slice(), own.as_slice()].concat());
    all_fail(&project, &attempts, &own);
    assert!(!project.folder().join("planted").exists() && !project.folder().join("kept/own").exists());
}

#[test]
fn a_hard_link_makes_nothing_writable() {
    let attempts = [
        "link 5 note 4 alias",
        "link 5 note 3 alias",
        "link 4 ../secret 4 alias",
        "link 4 own 5 alias",
        "link 4 own 4 ../planted",
        "write 5 note text",
    ];
    let own = ["link 4 own 4 twin", "read 4 twin"];
    let more = ["write 4 alias text", "write 3 alias text"];
    let project = burglar(&[attempts.as_slice(), own.as_slice(), more.as_slice()].concat());
    all_fail(&project, &attempts, &own);
    assert!(!project.folder().join("planted").exists());
}

#[test]
fn a_guest_has_no_descriptors_but_its_own() {
    let project = burglar(&["descriptors", "write 9 x text", "read 100 x"]);
    let outcomes = outcomes(&project);
    assert_eq!(outcomes["descriptors"], "got 0,1,2,3,4,5", "three streams, the root, two mounts");
    assert_eq!((outcomes["write 9 x text"].as_str(), outcomes["read 100 x"].as_str()), ("error 8", "error 8"));
}

#[test]
fn files_that_stay_open_end_at_the_limit_and_the_log_says_so() {
    let project = burglar(&["open 4 own 2000", "read 4 own"]);
    project.edit("    command", "    ulimits: { nofile: 50 }\n    command");
    let outcomes = outcomes(&project);
    assert_eq!(outcomes["open 4 own 2000"], "got 50");
    assert_eq!(outcomes["read 4 own"], "error 33");
    assert_eq!(project.logs("job").matches("50 files open").count(), 1, "once");
}

#[test]
fn the_environment_of_the_host_stays_there() {
    let project =
        Project::wasm("services: { job: { image: ./module.wasm, command: [env], environment: { OWN: \"1\" } } }")
            .guest(Guest::PeerModule)
            .with("WCOMPOSE_TEST_SECRET", SECRET)
            .with("AWS_SECRET_ACCESS_KEY", SECRET);
    project.up();
    project.becomes("job", "exited");
    assert_eq!(project.logs("job").trim_end(), "OWN=1");
}

/// A steerable guest that may reach the internet, if there is any.
const GRANTED: &str = r#"
services:
  one: { image: ./peer.wasm, command: [serve, "80"], ports: ["${PORT}:80"], x-wasm: { egress: ["*"] } }
"#;

fn granted() -> (Project, u16) {
    let port = free_port();
    let project = Project::wasm(GRANTED).guest(Guest::Peer).with("PORT", port);
    project.up();
    (project, port)
}

/// The address this host has in its own network, if it has one.
fn address_of_host() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the kernel only chooses the way.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

#[test]
fn the_host_is_reached_by_none_of_its_names() {
    let host = TcpListener::bind("0.0.0.0:0").expect("a port");
    host.set_nonblocking(true).expect("a socket");
    let target = host.local_addr().expect("an address").port();
    let (project, port) = granted();
    let mut names: Vec<String> =
        ["127.0.0.1", "localhost", "0.0.0.0", "127.1", "127.0.0.2", "[::1]", "[::ffff:127.0.0.1]", "[::]"]
            .map(str::to_owned)
            .to_vec();
    names.extend(["2130706433", "0x7f.1", "host.docker.internal"].map(str::to_owned));
    names.extend(address_of_host());
    for name in &names {
        let name = name.trim_matches(['[', ']']);
        project.ask_in_vain(port, &format!("/send/{name}/{target}/hello"));
    }
    let reached = host.accept();
    assert!(reached.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{reached:?}");
}

#[test]
fn private_ranges_and_metadata_stay_closed_under_a_wildcard() {
    let (project, port) = granted();
    for (name, address) in [
        ("169.254.169.254", "169.254.169.254"),
        ("fd00:ec2::254", "fd00:ec2::254"),
        ("10.0.0.1", "10.0.0.1"),
        ("172.16.0.1", "172.16.0.1"),
        ("192.168.1.1", "192.168.1.1"),
        ("100.64.0.1", "100.64.0.1"),
        ("64:ff9b::a9fe:a9fe", "64:ff9b::a9fe:a9fe"),
        // Names that a resolver reads as such an address: what they resolve to counts.
        ("169.254.43518", "169.254.169.254"),
        ("10.1", "10.0.0.1"),
        ("0xa9.0xfe.0xa9.0xfe", "169.254.169.254"),
    ] {
        project.ask_in_vain(port, &format!("/send/{name}/80/hello"));
        let told = format!(
            "refused to connect to {}",
            if address.contains(':') { format!("[{address}]") } else { address.into() }
        );
        project.logged("one", &told);
    }
}

#[test]
fn the_gateway_of_the_bridge_is_the_host_and_stays_closed() {
    let Some(engine) = Engine::answering() else { return };
    let host = TcpListener::bind("0.0.0.0:0").expect("a port");
    host.set_nonblocking(true).expect("a socket");
    let target = host.local_addr().expect("an address").port();
    let port = free_port();
    let linux = "  linux: { image: \"${PEER}\", command: [serve, \"80\"] }\n";
    let project = Project::on(&engine, &format!("{GRANTED}{linux}")).guest(Guest::Peer).with("PORT", port);
    project.up();
    assert_eq!(project.ask(port, "/get/linux/80/say/hi"), "hi", "the network itself works");
    let network = engine.get(&format!("/networks/{}_default", project.name));
    let gateway = network["IPAM"]["Config"][0]["Gateway"].as_str().expect("a gateway").to_owned();
    let bridge = engine.get("/networks/bridge");
    let bridge = bridge["IPAM"]["Config"][0]["Gateway"].as_str().unwrap_or("172.17.0.1").to_owned();
    for address in [&gateway, &bridge] {
        project.ask_in_vain(port, &format!("/send/{address}/{target}/hello"));
        project.logged("one", &format!("refused to connect to {address}:{target}"));
    }
    let reached = host.accept();
    assert!(reached.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{reached:?}");
}

#[test]
fn an_external_network_does_not_open_other_projects() {
    let Some(engine) = Engine::answering() else { return };
    let name = format!("wcompose-it-external-{}", std::process::id());
    engine.post("/networks/create", &json!({ "Name": name, "CheckDuplicate": true }));
    let external = format!("networks: {{ shared: {{ external: true, name: {name} }} }}\n");
    let other = Project::on(
        &engine,
        &format!(
            "services: {{ theirs: {{ image: \"${{PEER}}\", command: [serve, \"80\"], networks: [shared] }} }}\n{external}"
        ),
    );
    let port = free_port();
    let ours = Project::on(
        &engine,
        &format!(
            r#"
services:
  one:   {{ image: ./peer.wasm, command: [serve, "80"], networks: [shared], ports: ["${{PORT}}:80"], x-wasm: {{ egress: ["*"] }} }}
  linux: {{ image: "${{PEER}}", command: [serve, "80"], networks: [shared] }}
{external}"#
        ),
    )
    .guest(Guest::Peer)
    .with("PORT", port);
    other.up();
    ours.up();
    assert_eq!(ours.ask(port, "/get/linux/80/say/hi"), "hi", "the network itself works");
    let inspected = engine.get(&format!("/containers/{}-theirs-1/json", other.name));
    let address = inspected["NetworkSettings"]["Networks"][&name]["IPAddress"].as_str().expect("an address").to_owned();
    ours.ask_in_vain(port, &format!("/get/{address}/80/say/hi"));
    ours.logged("one", &format!("refused to connect to {address}:80"));
    ours.ask_in_vain(port, "/get/theirs/80/say/hi");
    for project in [&ours, &other] {
        project.run(&["down", "-t", "0"]).well();
    }
    engine.call("DELETE", &format!("/networks/{name}"));
}
