//! WasmEdge's socket extension: guests built on its published crates, with nothing in them that knows this host.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::support::project::free_port;
use crate::support::{Engine, Guest, Project, eventually, http};

/// One run of the `edge` guest, with this in its service.
fn job(command: &str) -> String {
    format!("  job: {{ image: ./edge.wasm, command: [{command}] }}\n")
}

fn edge(services: &str) -> Project {
    Project::wasm(&format!("services:\n{services}")).guest(Guest::Edge)
}

/// What a one-off printed, once it ended well.
fn printed(project: &Project) -> String {
    let row = project.becomes("job", "exited");
    let logs = project.logs("job");
    assert_eq!(row.code, 0, "{logs}");
    logs.trim_end().to_owned()
}

/// Sends to a published port, and reads to the end.
fn exchange(port: u16, sent: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut writer = stream.try_clone()?;
    let bytes = sent.to_vec();
    let writing = std::thread::spawn(move || writer.write_all(&bytes).and_then(|()| writer.shutdown(Shutdown::Write)));
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    writing.join().expect("the writer does not panic")?;
    Ok(answer)
}

#[test]
fn a_blocking_server_answers_connections_one_after_the_other() {
    for verb in ["echo", "std-echo"] {
        let port = free_port();
        let server = format!("  server: {{ image: ./edge.wasm, command: [{verb}, \"80\"], ports: [\"{port}:80\"] }}\n");
        let project = edge(&server);
        project.up();
        // More than any buffer on the way holds, so that both directions wait for each other.
        let sent: Vec<u8> = (0..1_000_000_u32).map(|number| (number / 7) as u8).collect();
        for _ in 0..3 {
            let answer = exchange(port, &sent).expect("an answer");
            assert!(answer == sent, "{verb}: {} of {} bytes came back as they were", answer.len(), sent.len());
        }
    }
}

#[test]
fn guests_reach_each_other_by_name_through_getaddrinfo() {
    let server = "  server: { image: ./edge.wasm, command: [echo, \"7\"] }\n";
    let project = edge(&format!("{server}{}", job("send, server, \"7\", hello")));
    project.up();
    assert_eq!(printed(&project), "hello");
}

#[test]
fn datagrams_come_back_to_the_port_they_came_from() {
    let server = "  server: { image: ./edge.wasm, command: [udp-echo, \"7\"] }\n";
    let client = "  job: { image: ./edge.wasm, command: [udp-send, server, \"7\", hello], depends_on: [server] }\n";
    let project = edge(&format!("{server}{client}"));
    project.up();
    assert_eq!(printed(&project), "hello");
}

#[test]
fn names_are_the_same_through_getaddrinfo_and_through_a_name_server() {
    let named = |name: &str, more: &str| {
        format!("  {name}:\n    image: ./edge.wasm\n    command: [look-up, server]\n    depends_on: [server]\n{more}")
    };
    let server = "  server: { image: ./edge.wasm, command: [echo, \"7\"] }\n";
    let at = |server: &str| format!("    environment: {{ DNS_SERVER: \"{server}\" }}\n");
    let services = [
        server.to_owned(),
        named("plain", ""),
        named("engines", &at("127.0.0.11:53")),
        named("public", &at("8.8.8.8:53")),
    ];
    let project = edge(&services.concat());
    project.up();
    let answers: Vec<String> = ["plain", "engines", "public"]
        .iter()
        .map(|service| {
            let row = project.becomes(service, "exited");
            let logs = project.logs(service);
            assert_eq!(row.code, 0, "{service}: {logs}");
            logs.trim().to_owned()
        })
        .collect();
    assert!(answers[0].parse::<std::net::Ipv4Addr>().is_ok(), "an address: {answers:?}");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[test]
fn a_refused_connection_is_told_by_polling_and_so_error() {
    let project = edge(&job("refused, localhost, \"9\""));
    project.up();
    let told = printed(&project);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[1..], ["1 event", "ConnectionRefused"], "{told}");
}

#[test]
fn a_target_that_the_file_does_not_grant_is_refused_and_told() {
    let project = edge(&job("refused, 169.254.169.254, \"80\""));
    project.up();
    let told = printed(&project);
    assert!(told.contains("PermissionDenied"), "the guest: {told}");
    assert!(told.contains("refused to connect to 169.254.169.254:80"), "its log: {told}");
}

#[test]
fn an_event_loop_serves_a_hundred_connections_at_once() {
    let port = free_port();
    let compose = format!(
        "services:\n  api: {{ image: ./edge-http.wasm, command: [serve, \"8080\"], ports: [\"{port}:8080\"] }}\n"
    );
    let project = Project::wasm(&compose).guest(Guest::EdgeHttp);
    project.up();
    eventually("the server answers", || http::send(port, "POST", "/echo", "up").map(drop));
    let clients: Vec<_> = (0..100)
        .map(|number| {
            std::thread::spawn(move || {
                let body = format!("client {number}").repeat(100);
                for _ in 0..5 {
                    let answer = http::send(port, "POST", "/echo", &body).expect("an answer");
                    assert_eq!(answer, (200, body.clone()));
                }
                http::get(port, "/slow").expect("an answer").1
            })
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().expect("every request is answered"), "slow");
    }
}

#[test]
fn an_event_loop_asks_another_service_by_name() {
    let port = free_port();
    let compose = format!(
        "services:
  api: {{ image: ./edge-http.wasm, command: [serve, \"8080\"], ports: [\"{port}:8080\"] }}
  back: {{ image: ./edge-http.wasm, command: [serve, \"3000\"] }}
"
    );
    let project = Project::wasm(&compose).guest(Guest::EdgeHttp);
    project.up();
    let answer = eventually("the other answers", || {
        let (status, body) = http::get(port, "/get?back:3000/slow")?;
        if status == 200 { Ok(body) } else { Err(std::io::Error::other(format!("{status}: {body}"))) }
    });
    assert_eq!(answer, "slow");
}

#[test]
fn clients_of_databases_find_them_by_service_name() {
    let Some(engine) = Engine::with_images(&["postgres:16-alpine", "redis:7-alpine", "mysql:8"]) else { return };
    let project = Project::on(
        &engine,
        r#"
services:
  cache: { image: redis:7-alpine }
  store:
    image: postgres:16-alpine
    environment: { POSTGRES_PASSWORD: secret }
    healthcheck: { test: [CMD-SHELL, pg_isready -h 127.0.0.1 -U postgres], interval: 1s, retries: 60 }
  shop:
    image: mysql:8
    environment: { MYSQL_ROOT_PASSWORD: secret, MYSQL_DATABASE: shop }
    healthcheck: { test: [CMD-SHELL, mysqladmin ping -h 127.0.0.1 -psecret], interval: 1s, retries: 60 }
  redis:
    image: ./edge.wasm
    command: [redis, cache, "6379"]
    depends_on: [cache]
    restart: on-failure
  postgres:
    image: ./edge.wasm
    command: [postgres, store, "5432", postgres, secret, "select 40 + 2, 'rows'"]
    depends_on: { store: { condition: service_healthy } }
  mysql:
    image: ./edge-http.wasm
    command: [mysql, "mysql://root:secret@shop:3306/shop", "select 'a row'"]
    depends_on: { shop: { condition: service_healthy } }
"#,
    );
    let project = project.guest(Guest::Edge).guest(Guest::EdgeHttp);
    project.up();
    for (service, answer) in [("redis", "+OK $5 hello"), ("postgres", "42|rows"), ("mysql", "a row")] {
        project.becomes(service, "exited");
        project.logged(service, answer);
    }
}

#[test]
fn linux_services_reach_a_server_of_the_extension_and_the_other_way_round() {
    let Some(engine) = Engine::answering() else { return };
    let port = free_port();
    let project = Project::on(
        &engine,
        r#"
services:
  linux: { image: "${PEER}", command: [serve, "80"], ports: ["${PORT}:80"] }
  echo: { image: ./edge.wasm, command: [echo, "7"] }
  linux-echo: { image: "${PEER}", command: [echo, "7"] }
  job: { image: ./edge.wasm, command: [send, linux-echo, "7", hello], depends_on: [linux-echo] }
"#,
    );
    let project = project.guest(Guest::Edge).with("PORT", port);
    project.up();
    assert_eq!(project.ask(port, "/send/echo/7/hi"), "hi");
    assert_eq!(printed(&project), "hello");
}
