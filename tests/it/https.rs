//! Outgoing `https` of guests: to servers that prove who they are, and to no others.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::project::free_port;
use crate::support::{Engine, Guest, Project};

/// An authority of the scenario's own.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(Vec::new()).expect("no names are fine names");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(parameters, key) }
    }

    /// A certificate and its key, as PEM.
    fn certify(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let parameters = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        (parameters.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }

    /// A server on this host that is `name` and answers every request with this, its head included. Where it listens.
    fn serve(&self, name: &str, answer: &str) -> u16 {
        let (certificate, key) = self.certify(name);
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .expect("the key fits");
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let answer = answer.to_owned();
        // It ends with the test's process; a connection that fails is what some scenarios are about.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(config.clone()).expect("the settings are right");
                let mut stream = StreamOwned::new(connection, stream);
                let mut request = [0; 4096];
                if stream.read(&mut request).is_ok() {
                    let _ = stream.write_all(answer.as_bytes());
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            }
        });
        port
    }
}

fn answer(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}", text.len())
}

/// A relay that may reach the host by two names, with a file of authorities.
fn relay(authority: &Authority) -> (Project, u16) {
    let port = free_port();
    let project = Project::wasm(
        r#"
services:
  relay:
    image: ./relay.wasm
    ports: ["${PORT}:8080"]
    extra_hosts: ["api.test:host-gateway", "other.test:host-gateway"]
"#,
    )
    .guest(Guest::Relay)
    .with("PORT", port);
    project.write("authority.pem", &authority.pem);
    let file = project.folder().join("authority.pem").display().to_string();
    (project.with("SSL_CERT_FILE", file), port)
}

#[test]
fn a_guest_asks_a_server_that_proves_its_name() {
    let authority = Authority::new();
    let (project, port) = relay(&authority);
    let server = authority.serve("api.test", &answer("in private"));
    project.up();
    assert_eq!(project.ask(port, &format!("/fetch/https/api.test/{server}/")), "in private");
}

#[test]
fn a_certificate_for_another_name_is_refused_and_the_log_says_why() {
    let authority = Authority::new();
    let (project, port) = relay(&authority);
    let server = authority.serve("api.test", &answer("in private"));
    project.up();
    let error = project.ask_in_vain(port, &format!("/fetch/https/other.test/{server}/"));
    assert!(error.contains("TlsCertificateError"), "{error}");
    project.logged("relay", &format!("https://other.test:{server} was not asked"));
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused_and_the_log_says_what_to_do() {
    let (project, port) = relay(&Authority::new());
    let server = Authority::new().serve("api.test", &answer("in private"));
    project.up();
    let error = project.ask_in_vain(port, &format!("/fetch/https/api.test/{server}/"));
    assert!(error.contains("TlsCertificateError"), "{error}");
    project.logged("relay", "SSL_CERT_FILE");
}

#[test]
fn a_server_that_speaks_no_tls_is_told_apart() {
    let (project, port) = relay(&Authority::new());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    project.up();
    let error = project.ask_in_vain(port, &format!("/fetch/https/api.test/{server}/"));
    assert!(error.contains("TlsProtocolError"), "{error}");
}

#[test]
fn a_redirect_leads_nowhere_that_is_not_granted() {
    let authority = Authority::new();
    let (project, port) = relay(&authority);
    let there = authority.serve("other.test", &answer("moved here"));
    let redirect = |to: &str| {
        authority.serve("api.test", &format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"))
    };
    let granted = redirect(&format!("https://other.test:{there}/"));
    let metadata = redirect("http://169.254.169.254/latest/");
    let loopback = redirect(&format!("https://127.0.0.1:{there}/"));
    let outside = redirect("https://example.com/");
    project.up();
    assert_eq!(project.ask(port, &format!("/fetch/https/api.test/{granted}/")), "moved here");
    for (server, target) in [(metadata, "169.254.169.254"), (outside, "example.com")] {
        let error = project.ask_in_vain(port, &format!("/fetch/https/api.test/{server}/"));
        assert!(error.contains("HttpRequestDenied"), "{error}");
        project.logged("relay", target);
    }
    // The guest's own loopback, where nothing listens: not the host's.
    let error = project.ask_in_vain(port, &format!("/fetch/https/api.test/{loopback}/"));
    assert!(error.contains("ConnectionRefused"), "{error}");
}

#[test]
fn a_guest_asks_a_linux_service_that_speaks_tls() {
    let Some(engine) = Engine::with_images(&["nginx:alpine"]) else { return };
    let authority = Authority::new();
    let port = free_port();
    let project = Project::on(
        &engine,
        r#"
services:
  relay: { image: ./relay.wasm, ports: ["${PORT}:8080"] }
  vault:
    image: nginx:alpine
    configs: [{ source: site, target: /etc/nginx/conf.d/default.conf }]
    volumes: ["./server.pem:/server.pem:ro", "./server.key:/server.key:ro"]
configs:
  site:
    content: |
      server {
        listen 443 ssl;
        ssl_certificate /server.pem;
        ssl_certificate_key /server.key;
        location / { return 200 "sealed"; }
      }
"#,
    )
    .guest(Guest::Relay)
    .with("PORT", port);
    let (certificate, key) = authority.certify("vault");
    project.write("authority.pem", &authority.pem);
    project.write("server.pem", &certificate.pem());
    project.write("server.key", &key.serialize_pem());
    let file = project.folder().join("authority.pem").display().to_string();
    let project = project.with("SSL_CERT_FILE", file);
    project.up();
    assert_eq!(project.ask(port, "/fetch/https/vault/443/"), "sealed");
}
