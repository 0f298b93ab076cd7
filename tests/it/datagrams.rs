//! Datagrams, name servers and IPv6: the same for Linux and Wasm services, and no way out for guests.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::project::free_port;
use crate::support::{Engine, Guest, Project, eventually};

/// A steerable service and a UDP server of each kind.
const FOUR: &str = r#"
services:
  linux:     { image: "${PEER}", command: [serve, "80"], ports: ["${LINUX}:80"] }
  linux-udp: { image: "${PEER}", command: [udp, "5353"] }
  wasm:      { image: ./peer.wasm, command: [serve, "80"], ports: ["${WASM}:80"] }
  wasm-udp:  { image: ./peer.wasm, command: [udp, "5353"], ports: ["${UDP}:5353/udp"] }
"#;

/// A project with the ports of its services.
struct Site {
    project: Project,
    linux: u16,
    wasm: u16,
    udp: u16,
}

fn site(engine: &Engine, compose: &str) -> Site {
    let (linux, wasm, udp) = (free_port(), free_port(), free_port());
    let project = Project::on(engine, compose).guest(Guest::Peer);
    let project = project.with("LINUX", linux).with("WASM", wasm).with("UDP", udp);
    Site { project, linux, wasm, udp }
}

/// Asks a UDP server at the host's loopback until it answers; the answer comes from where it was asked.
fn ask_published(address: &str, port: u16, text: &str) -> String {
    eventually(&format!("an answer from {address}:{port}"), || {
        let ask = || {
            let socket = UdpSocket::bind((address, 0))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            socket.connect((address, port))?;
            socket.send(text.as_bytes())?;
            let mut buffer = [0; 1024];
            let length = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        ask().map_err(|error: std::io::Error| error.to_string())
    })
}

/// The address a container has on a network.
fn address(engine: &Engine, container: &str, network: &str, field: &str) -> String {
    let shown = engine.get(&format!("/containers/{container}/json"));
    shown["NetworkSettings"]["Networks"][network][field].as_str().expect("an address").to_owned()
}

#[test]
fn datagrams_are_sent_and_answered_between_both_kinds() {
    let Some(engine) = Engine::answering() else { return };
    let Site { project, linux, wasm, udp } = site(&engine, FOUR);
    project.up();
    for (port, own) in [(linux, "linux"), (wasm, "wasm")] {
        let own = project.ask(port, &format!("/lookup/{own}"));
        for server in ["linux-udp", "wasm-udp"] {
            assert_eq!(project.ask(port, &format!("/ask/{server}/5353/hi")), format!("{own} said hi"), "of {server}");
        }
    }
    // Not the loopback, which is the guest itself.
    assert_eq!(ask_published("127.0.0.1", udp, "hello"), "198.19.255.254 said hello");
}

#[test]
fn datagrams_need_no_engine() {
    let (wasm, udp) = (free_port(), free_port());
    let compose = r#"
services:
  wasm:     { image: ./peer.wasm, command: [serve, "80"], ports: ["${WASM}:80"] }
  wasm-udp: { image: ./peer.wasm, command: [udp, "5353"], ports: ["${UDP}:5353/udp"] }
"#;
    let project = Project::wasm(compose).guest(Guest::Peer).with("WASM", wasm).with("UDP", udp);
    project.up();
    let own = project.ask(wasm, "/lookup/wasm");
    assert_eq!(project.ask(wasm, "/ask/wasm-udp/5353/hi"), format!("{own} said hi"));
    assert_eq!(ask_published("127.0.0.1", udp, "one"), "198.19.255.254 said one");
    for server in ["127.0.0.11", "8.8.8.8"] {
        assert_eq!(project.ask(wasm, &format!("/dns/{server}/wasm/A")), format!("code 0 {own}"));
        assert_eq!(project.ask(wasm, &format!("/dns-over-tcp/{server}/wasm/A")), format!("code 0 {own}"));
    }
    let rows = project.run(&["ps", "--format", "json", "wasm-udp"]).well().stdout;
    let row: Value = serde_json::from_str(rows.trim()).expect("one row");
    assert_eq!(row["Publishers"][0]["Protocol"], "udp", "{row}");
    project.run(&["down"]).well();
    UdpSocket::bind(("0.0.0.0", udp)).expect("the port is free again");
}

#[test]
fn name_servers_answer_guests_for_the_projects_names() {
    let Some(engine) = Engine::answering() else { return };
    let Site { project, linux, wasm, .. } = site(&engine, FOUR);
    project.up();
    let address = project.ask(linux, "/lookup/linux");
    for server in ["127.0.0.11", "8.8.8.8"] {
        for deed in ["dns", "dns-over-tcp"] {
            let ask = |name: &str, kind: &str| project.ask(wasm, &format!("/{deed}/{server}/{name}/{kind}"));
            assert_eq!(ask("linux", "A"), format!("code 0 {address}"), "{deed} {server}");
            assert_eq!(ask("linux", "AAAA"), "code 0", "there is none");
            assert_eq!(ask("linux", "15"), "code 0", "no mail");
            assert_eq!(ask("nobody", "A"), "code 3");
            assert_eq!(ask("secret.evil.example", "A"), "code 5");
        }
    }
    // As Docker's own server tells Linux services.
    assert_eq!(project.ask(linux, "/dns/127.0.0.11/linux/A"), format!("code 0 {address}"));
    let told = project.logged("wasm", "secret.evil.example");
    assert_eq!(told.matches("look up secret.evil.example").count(), 1, "{told}");
}

#[test]
fn a_network_with_ipv6_has_it_for_both_kinds() {
    let Some(engine) = Engine::answering() else { return };
    // Other runs have other networks.
    let id = std::process::id();
    let subnet = format!("fd{:02x}:{:x}::", id % 251, 0x1000 + id % 0xe000);
    let Site { project, linux, wasm, .. } = site(
        &engine,
        &r#"
services:
  linux:     { image: "${PEER}", command: [serve6, "80"], ports: ["${LINUX}:80"] }
  linux-udp: { image: "${PEER}", command: [udp6, "5353"] }
  wasm:      { image: ./peer.wasm, command: [serve6, "80"], ports: ["${WASM}:80"] }
  wasm-udp:  { image: ./peer.wasm, command: [udp6, "5353"] }
networks:
  default:
    enable_ipv6: true
    ipam: { config: [{ subnet: "SUBNET/64" }] }
"#
        .replace("SUBNET", &subnet),
    );
    project.up();
    let network = format!("{}_default", project.name);
    let six = |service: &str| address(&engine, &format!("{}-{service}-1", project.name), &network, "GlobalIPv6Address");
    for service in ["linux", "wasm", "linux-udp", "wasm-udp"] {
        assert!(six(service).starts_with(&subnet[..4]), "{service} has {}", six(service));
        let known = project.ask(wasm, &format!("/lookup/{service}"));
        assert!(known.lines().any(|line| line == six(service)), "{service}: {known}");
        assert_eq!(project.ask(wasm, &format!("/dns/127.0.0.11/{service}/AAAA")), format!("code 0 {}", six(service)));
    }
    for (port, own, other) in [(linux, "linux", "wasm"), (wasm, "wasm", "linux")] {
        assert_eq!(project.ask(port, &format!("/get/{}/80/caller", six(other))), six(own));
        for server in ["linux-udp", "wasm-udp"] {
            let answer = project.ask(port, &format!("/ask/{}/5353/hi", six(server)));
            assert_eq!(answer, format!("{} said hi", six(own)), "of {server}");
        }
    }
}

#[test]
fn a_network_in_process_has_ipv6_where_the_file_says_so() {
    let port = free_port();
    let compose = r#"
services:
  one:   { image: ./peer.wasm, command: [serve6, "80"], ports: ["${PORT}:80"] }
  two:   { image: ./peer.wasm, command: [serve6, "80"] }
  udp:   { image: ./peer.wasm, command: [udp6, "5353"] }
  plain: { image: ./peer.wasm, command: [serve, "80"], networks: [plain] }
networks: { default: { enable_ipv6: true }, plain: {} }
"#;
    let project = Project::wasm(compose).guest(Guest::Peer).with("PORT", port);
    project.up();
    let six = |service: &str| {
        let known = project.ask(port, &format!("/lookup/{service}"));
        known.lines().find(|line| line.contains(':')).expect("an IPv6 address").to_owned()
    };
    assert_eq!(project.ask(port, &format!("/get/{}/80/caller", six("two"))), six("one"));
    assert_eq!(project.ask(port, &format!("/ask/{}/5353/hi", six("udp"))), format!("{} said hi", six("one")));
    assert_eq!(project.ask(port, "/dns/127.0.0.11/two/AAAA"), format!("code 0 {}", six("two")));
}

#[test]
fn a_published_port_serves_clients_of_both_families() {
    let (four, six) = (free_port(), free_port());
    let compose = r#"
services:
  four: { image: ./peer.wasm, command: [serve, "80"], ports: ["${FOUR}:80"] }
  six:  { image: ./peer.wasm, command: [serve6, "80"], ports: ["${SIX}:80"] }
"#;
    let project = Project::wasm(compose).guest(Guest::Peer).with("FOUR", four).with("SIX", six);
    project.up();
    for port in [four, six] {
        for host in ["127.0.0.1", "::1", "127.0.0.1"] {
            let answer = eventually(&format!("an answer from {host}:{port}"), || {
                let ask = || {
                    let mut stream = TcpStream::connect((host, port))?;
                    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                    stream.write_all(b"GET /say/hi HTTP/1.1\r\n\r\n")?;
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).map(|_| answer)
                };
                ask().map_err(|error: std::io::Error| error.to_string())
            });
            assert!(answer.ends_with("\r\n\r\nhi"), "{host}:{port}: {answer}");
        }
    }
    assert_eq!(project.service("four").state, "running");
    assert_eq!(project.service("six").state, "running");
}

#[test]
fn a_guests_datagrams_reach_neither_the_host_nor_other_projects() {
    let Some(engine) = Engine::answering() else { return };
    let shared = Shared::new(&engine);
    let on_it = format!("\nnetworks: {{ default: {{ external: true, name: {} }} }}\n", shared.name);
    let linux_alone: String =
        FOUR.lines().filter(|line| !line.contains("wasm")).map(|line| format!("{line}\n")).collect();
    let Site { project: other, linux: stranger, .. } = site(&engine, &format!("{linux_alone}{on_it}"));
    let Site { project, linux, wasm, .. } = site(&engine, &format!("{FOUR}{on_it}"));
    other.up();
    project.up();
    let gateway = engine.get(&format!("/networks/{}", shared.name))["IPAM"]["Config"][0]["Gateway"].clone();
    let gateway = gateway.as_str().expect("a gateway").to_owned();
    let host = UdpSocket::bind("0.0.0.0:0").expect("a port");
    host.set_read_timeout(Some(Duration::from_millis(500))).expect("a time");
    let port = host.local_addr().expect("an address").port();
    let foreign = address(&engine, &format!("{}-linux-udp-1", other.name), &shared.name, "IPAddress");

    for (address, port) in [(gateway.as_str(), port), (&foreign, 5353), ("169.254.169.254", 80)] {
        project.ask_in_vain(wasm, &format!("/ask/{address}/{port}/out"));
        let told = project.logged("wasm", &format!("connect to {address}:{port}"));
        assert!(told.contains("egress"), "the line to add is told:\n{told}");
    }
    assert!(host.recv(&mut [0; 16]).is_err(), "nothing came to the host");
    // What a Linux service reaches there shows that somebody listened.
    assert!(project.ask(linux, &format!("/ask/{foreign}/5353/out")).ends_with("said out"));

    // Who comes from outside is answered, as a Linux service would.
    let own = address(&engine, &format!("{}-wasm-udp-1", project.name), &shared.name, "IPAddress");
    let caller = address(&engine, &format!("{}-linux-1", other.name), &shared.name, "IPAddress");
    assert_eq!(other.ask(stranger, &format!("/ask/{own}/5353/in")), format!("{caller} said in"));
}

/// A network outside all projects.
struct Shared {
    engine: Engine,
    name: String,
}

impl Shared {
    fn new(engine: &Engine) -> Self {
        let name = format!("wcompose-it-shared-{}", std::process::id());
        engine.post("/networks/create", &json!({ "Name": name }));
        Self { engine: engine.clone(), name }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.engine.call("DELETE", &format!("/networks/{}", self.name));
    }
}
