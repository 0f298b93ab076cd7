//! Datagrams between guests of this process, through published ports, and to the host.

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::timeout;

use super::super::tests::{Guest, at, fabric, guest, kind, port, spec};
use super::*;
use crate::model::{InstanceName, Port, Protocol};
use crate::net::addresses::HOST;
use crate::net::stack::{Refused, StackSpec};

async fn bind(guest: &Guest, address: &str) -> Datagram {
    guest.stack.datagram(at(address)).await.expect("a socket")
}

async fn send(socket: &mut Datagram, text: &str, to: SocketAddr) -> Result<(), NetError> {
    timeout(Duration::from_secs(10), poll_fn(|cx| socket.poll_send(cx, text.as_bytes(), to)))
        .await
        .expect("sent in time")
}

async fn says(socket: &mut Datagram, text: &str, to: SocketAddr) {
    send(socket, text, to).await.expect("it is sent");
}

async fn hears(socket: &mut Datagram, text: &str) -> SocketAddr {
    let received = timeout(Duration::from_secs(10), poll_fn(|cx| socket.poll_receive(cx))).await;
    let (bytes, from) = received.expect("a datagram in time").expect("a datagram");
    assert_eq!(String::from_utf8_lossy(&bytes), text);
    from
}

/// After everything that could bring something had its turn.
async fn hears_nothing(socket: &mut Datagram) {
    let received = timeout(Duration::from_millis(100), poll_fn(|cx| socket.poll_receive(cx))).await;
    assert!(received.is_err(), "{received:?}");
}

fn address_of(guest: &Guest) -> IpAddr {
    guest.stack.addresses().next().expect("an address")
}

fn refusal(result: Result<(), NetError>, guest: &mut Guest) -> Refused {
    assert!(matches!(result, Err(NetError::Refused(_))), "{result:?}");
    guest.refusals.try_recv().expect("it is told")
}

#[tokio::test]
async fn guests_send_and_answer_each_other() {
    let fabric = fabric();
    let (web, dns) = (guest(&fabric, "web", &["front"]), guest(&fabric, "dns", &["front"]));
    let mut server = bind(&dns, "0.0.0.0:5353").await;
    let mut client = bind(&web, "0.0.0.0:0").await;
    assert_ne!(client.local().port(), 0);
    says(&mut client, "ping", SocketAddr::new(address_of(&dns), 5353)).await;
    let from = hears(&mut server, "ping").await;
    assert_eq!(from, SocketAddr::new(address_of(&web), client.local().port()));
    says(&mut server, "", from).await;
    assert_eq!(hears(&mut client, "").await, SocketAddr::new(address_of(&dns), 5353));
    // Where nobody listens it is lost, as it is for a kernel.
    says(&mut client, "lost", SocketAddr::new(address_of(&dns), 5354)).await;
    hears_nothing(&mut server).await;
}

#[tokio::test]
async fn loopback_is_the_instance_itself() {
    let fabric = fabric();
    let (web, other) = (guest(&fabric, "web", &["front"]), guest(&fabric, "other", &["front"]));
    let mut private = bind(&web, "127.0.0.1:9000").await;
    let mut client = bind(&web, "0.0.0.0:0").await;
    says(&mut client, "own", at("127.0.0.1:9000")).await;
    let from = hears(&mut private, "own").await;
    assert_eq!(from, SocketAddr::new(at("127.0.0.1:0").ip(), client.local().port()));
    says(&mut private, "answer", from).await;
    hears(&mut client, "answer").await;
    // Nobody else gets there, and it gets nowhere else.
    let mut stranger = bind(&other, "0.0.0.0:0").await;
    says(&mut stranger, "lost", SocketAddr::new(address_of(&web), 9000)).await;
    says(&mut stranger, "lost", at("127.0.0.1:9000")).await;
    hears_nothing(&mut private).await;
    let out = send(&mut private, "no", SocketAddr::new(address_of(&other), stranger.local().port())).await;
    assert_eq!(kind(out), io::ErrorKind::InvalidInput);

    let mut both = bind(&web, "[::]:7").await;
    says(&mut client, "four", at("127.0.0.1:7")).await;
    assert!(hears(&mut both, "four").await.is_ipv4());
    let mut six = bind(&web, "[::1]:0").await;
    says(&mut six, "six", at("[::1]:7")).await;
    let from = hears(&mut both, "six").await;
    says(&mut both, "back", from).await;
    hears(&mut six, "back").await;
}

#[tokio::test]
async fn each_datagram_is_decided_about() {
    let fabric = fabric();
    let mut web = guest(&fabric, "web", &["front"]);
    let hidden = guest(&fabric, "db", &["back"]);
    let mut listener = bind(&hidden, "0.0.0.0:53").await;
    let mut socket = bind(&web, "0.0.0.0:0").await;
    for to in [
        SocketAddr::new(address_of(&hidden), 53),
        at("169.254.169.254:80"),
        at("172.17.0.1:53"),
        at("10.0.0.1:53"),
        at("93.184.216.34:53"),
        at("255.255.255.255:67"),
        at("224.0.0.251:5353"),
        SocketAddr::new(HOST, 53),
    ] {
        for _ in 0..2 {
            let result = send(&mut socket, "let me out", to).await;
            assert!(matches!(result, Err(NetError::Refused(_))), "{to}: {result:?}");
        }
        assert_eq!(web.refusals.try_recv().expect("a refusal").what, format!("connect to {to}"));
        assert!(web.refusals.try_recv().is_err(), "told once");
    }
    hears_nothing(&mut listener).await;
    let host = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    says(&mut socket, "lost", host.local_addr().expect("an address")).await;
    assert!(host.try_recv(&mut [0; 8]).is_err(), "the host's loopback is not the guest's");
}

#[tokio::test]
async fn a_rebound_name_opens_nothing() {
    let fabric = fabric();
    let (mut spec, refusals) = spec("web", &["front"]);
    spec.egress = vec!["rebound.example".into(), "*".into()];
    let mut web = Guest { stack: fabric.join(spec), refusals };
    let mut socket = bind(&web, "[::]:0").await;
    for (address, kind) in [
        ("10.0.0.1:53", "a private address"),
        ("169.254.169.254:80", "a link-local address"),
        ("[fe80::1]:53", "a link-local address"),
        ("[fd00::1]:53", "a private address"),
    ] {
        web.stack.inner.memory.resolved("rebound.example", &[at(address).ip()]);
        let refused = refusal(send(&mut socket, "x", at(address)).await, &mut web);
        assert_eq!(refused.why, format!("`rebound.example` resolved to {kind}"));
    }
    // Loopback is the guest itself whatever resolves to it.
    web.stack.inner.memory.resolved("rebound.example", &[at("127.0.0.1:0").ip()]);
    let own = SocketAddr::new(at("127.0.0.1:0").ip(), socket.local().port());
    says(&mut socket, "to myself", own).await;
    hears(&mut socket, "to myself").await;
}

#[tokio::test]
async fn the_host_answers_where_the_file_grants_it_and_strangers_are_not_heard() {
    let fabric = fabric();
    let (mut spec, refusals) = spec("web", &["front"]);
    spec.extra_hosts = vec![("host.docker.internal".into(), "host-gateway".into())];
    let web = Guest { stack: fabric.join(spec), refusals };
    let host = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = web.stack.lookup("host.docker.internal").await.expect("an address")[0];
    let service = SocketAddr::new(address, host.local_addr().expect("an address").port());
    let mut socket = bind(&web, "0.0.0.0:0").await;
    // Who waits already hears what comes by a socket that is made later.
    says(&mut socket, "ping", service).await;
    let mut buffer = [0; 16];
    let (length, from) = host.recv_from(&mut buffer).await.expect("a datagram");
    assert_eq!(&buffer[..length], b"ping");
    let stranger = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    stranger.send_to(b"stranger", from).await.expect("it is sent");
    host.send_to(b"pong", from).await.expect("it is sent");
    assert_eq!(hears(&mut socket, "pong").await, service);
    hears_nothing(&mut socket).await;
}

#[tokio::test]
async fn ports_are_taken_and_freed() {
    let fabric = fabric();
    let web = guest(&fabric, "web", &["front"]);
    let first = bind(&web, "0.0.0.0:53").await;
    let _listener = web.stack.listen(at("0.0.0.0:53")).await.expect("a listener is no datagram socket");
    assert_eq!(kind(web.stack.datagram(at("127.0.0.1:53")).await), io::ErrorKind::AddrInUse);
    assert_eq!(kind(web.stack.datagram(at("192.0.2.1:53")).await), io::ErrorKind::AddrNotAvailable);
    drop(first);
    let mut socket = bind(&web, "[::]:53").await;
    assert_eq!(kind(send(&mut socket, &"x".repeat(LONGEST + 1), at("127.0.0.1:53")).await), Errno::MSGSIZE.kind());
    says(&mut socket, &"x".repeat(LONGEST), at("127.0.0.1:53")).await;
    hears(&mut socket, &"x".repeat(LONGEST)).await;
    let mut four = bind(&web, "0.0.0.0:0").await;
    assert_eq!(kind(send(&mut four, "x", at("[::1]:53")).await), Errno::AFNOSUPPORT.kind());
}

#[tokio::test]
async fn a_guest_opens_no_more_sockets_than_its_limit() {
    let (limited, refusals) = spec("web", &["front"]);
    let fabric = fabric();
    let web = Guest { stack: fabric.join(StackSpec { sockets: 2, ..limited }), refusals };
    let (first, _second) = (bind(&web, "0.0.0.0:0").await, bind(&web, "0.0.0.0:0").await);
    assert_eq!(kind(web.stack.datagram(at("0.0.0.0:0")).await), Errno::MFILE.kind());
    drop(first);
    bind(&web, "0.0.0.0:0").await;
}

#[tokio::test]
async fn leaving_ends_who_waits() {
    let fabric = fabric();
    let web = guest(&fabric, "web", &["front"]);
    let mut socket = bind(&web, "0.0.0.0:53").await;
    let waiting = async {
        tokio::task::yield_now().await;
        fabric.leave(&web.stack.inner.instance);
    };
    let (received, ()) = tokio::join!(poll_fn(|cx| socket.poll_receive(cx)), waiting);
    assert_eq!(received.expect_err("an end").kind(), io::ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn a_published_port_hears_and_is_answered_on_either_family() {
    let fabric = fabric();
    let web = guest(&fabric, "web", &["front"]);
    let name = InstanceName::new("web".into(), 1);
    let ports = [Port { protocol: Protocol::Udp, ..port(None, 53, None) }];
    let bound = fabric.publish(&name, &ports).await.expect("a port");
    let mut server = bind(&web, "0.0.0.0:53").await;
    for host in bound.iter().map(|bound| bound.host) {
        let loopback = if host.is_ipv4() { "127.0.0.1" } else { "::1" };
        let client = UdpSocket::bind((loopback, 0)).await.expect("a port");
        client.connect((loopback, host.port())).await.expect("an address");
        client.send(b"ping").await.expect("it is sent");
        let from = hears(&mut server, "ping").await;
        assert_eq!(from.ip(), HOST, "no loopback: that is the guest itself");
        says(&mut server, "pong", from).await;
        let mut buffer = [0; 16];
        let length = timeout(Duration::from_secs(10), client.recv(&mut buffer)).await.expect("in time").expect("bytes");
        assert_eq!(&buffer[..length], b"pong");
    }
    // Whoever did not call is not reached by the address that stands for the host.
    let result = send(&mut server, "x", SocketAddr::new(HOST, 9)).await;
    assert!(matches!(result, Err(NetError::Refused(_))), "{result:?}");

    let held = bound[0].host.port();
    let same = [Port { protocol: Protocol::Udp, ..port(Some((held, held)), 53, None) }];
    let other = InstanceName::new("db".into(), 1);
    let error = fabric.publish(&other, &same).await.expect_err("taken").to_string();
    assert_eq!(error, format!("port 0.0.0.0:{held}/udp is taken by web-1"));
    fabric.unpublish(&name);
    let free = async {
        while std::net::UdpSocket::bind(("0.0.0.0", held)).is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), free).await.expect("the port is released, though the guest could still answer");
}
