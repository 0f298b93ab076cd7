//! Questions of guests to name servers, by datagram and by stream.

use std::future::poll_fn;
use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::sync::mpsc;

use super::super::tests::{at, fabric, guest, spec};
use super::*;
use crate::net::stack::{Fabric, Families, Refused};

fn asks(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message.to_vec().expect("a message")
}

/// What is said to a question by datagram and by stream, which must agree: the code and the addresses.
async fn told(stack: &Stack, server: SocketAddr, name: &str, kind: RecordType) -> (ResponseCode, Vec<IpAddr>) {
    let question = asks(name, kind);
    let mut socket = stack.datagram(at("0.0.0.0:0")).await.expect("a socket");
    poll_fn(|cx| socket.poll_send(cx, &question, server)).await.expect("it is sent");
    let received = timeout(PATIENCE * 2, poll_fn(|cx| socket.poll_receive(cx))).await.expect("an answer in time");
    let (bytes, from) = received.expect("an answer");
    assert_eq!(from, server);

    let mut conn = stack.connect(server).await.expect("a connection");
    conn.io.write_all(&framed(&question)).await.expect("it is read");
    let mut answers = [bytes.to_vec(), one_read_each(&mut conn).await].map(|bytes| {
        let message = Message::from_vec(&bytes).expect("a message");
        assert_eq!((message.metadata.id, message.metadata.message_type), (4711, MessageType::Response));
        let mut addresses: Vec<IpAddr> = message.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
        addresses.sort();
        (message.metadata.response_code, addresses)
    });
    assert_eq!(answers[0], answers[1]);
    std::mem::take(&mut answers[0])
}

/// An answer as old guests read it: its length with one read, its bytes with another.
async fn one_read_each(conn: &mut Conn) -> Vec<u8> {
    let mut length = [0; 2];
    assert_eq!(conn.io.read(&mut length).await.expect("a length"), 2);
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    assert_eq!(conn.io.read(&mut answer).await.expect("an answer"), answer.len());
    answer
}

/// Two guests on a network with IPv6, and what `web` has in `x-wasm.egress`.
fn pair(fabric: &Arc<Fabric>, egress: &[&str]) -> (Stack, Stack, mpsc::Receiver<Refused>) {
    let join = |service: &str, egress: &[&str]| {
        let (mut spec, refusals) = spec(service, &["front"]);
        spec.networks[0].families = Families::Both;
        spec.egress = egress.iter().map(ToString::to_string).collect();
        (fabric.join(spec), refusals)
    };
    let ((web, refusals), (db, _)) = (join("web", egress), join("db", &[]));
    (web, db, refusals)
}

#[tokio::test]
async fn both_name_servers_know_the_projects_names() {
    let fabric = fabric();
    let (web, db, mut refusals) = pair(&fabric, &[]);
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = db.addresses().partition(IpAddr::is_ipv4);
    assert_eq!((v4.len(), v6.len()), (1, 1));
    for server in [dns::ENGINE, dns::PUBLIC] {
        for name in ["db", "DB."] {
            assert_eq!(told(&web, server, name, RecordType::A).await, (ResponseCode::NoError, v4.clone()));
            assert_eq!(told(&web, server, name, RecordType::AAAA).await, (ResponseCode::NoError, v6.clone()));
        }
        assert_eq!(told(&web, server, "db", RecordType::MX).await, (ResponseCode::NoError, Vec::new()));
        assert_eq!(told(&web, server, "nobody", RecordType::A).await, (ResponseCode::NXDomain, Vec::new()));
        let localhost = told(&web, server, "localhost", RecordType::A).await;
        assert_eq!(localhost, (ResponseCode::NoError, vec![Ipv4Addr::LOCALHOST.into()]));
    }
    assert!(refusals.try_recv().is_err(), "nothing of it is a way out");
}

#[tokio::test]
async fn names_of_the_world_outside_are_refused_and_told_once() {
    let fabric = fabric();
    let (web, _db, mut refusals) = pair(&fabric, &["other.example"]);
    for server in [dns::ENGINE, dns::PUBLIC] {
        assert_eq!(told(&web, server, "secret.evil.example", RecordType::A).await.0, ResponseCode::Refused);
        assert_eq!(told(&web, server, "secret.evil.example", RecordType::TXT).await.0, ResponseCode::NotImp);
    }
    assert_eq!(refusals.try_recv().expect("a refusal").what, "look up secret.evil.example");
    assert!(refusals.try_recv().is_err(), "told once");
}

#[tokio::test]
async fn a_name_that_resolves_to_the_machine_itself_opens_nothing() {
    let fabric = fabric();
    // Resolved by the machine, as any granted name: to its loopback.
    let (mut spec, mut refusals) = spec("web", &["front"]);
    spec.egress = vec!["rebound.example".into()];
    spec.extra_hosts = vec![("rebound.example".into(), "169.254.169.254".into())];
    let web = fabric.join(spec);
    let (code, addresses) = told(&web, dns::ENGINE, "rebound.example", RecordType::A).await;
    assert_eq!((code, addresses.len()), (ResponseCode::NoError, 1));
    let to = SocketAddr::new(addresses[0], 80);
    assert!(matches!(web.connect(to).await, Err(NetError::Refused(_))));
    let mut socket = web.datagram(at("0.0.0.0:0")).await.expect("a socket");
    let sent = poll_fn(|cx| socket.poll_send(cx, b"x", to)).await;
    assert!(matches!(sent, Err(NetError::Refused(_))), "{sent:?}");
    assert_eq!(refusals.try_recv().expect("a refusal").what, format!("connect to {to}"));
}

#[tokio::test]
async fn a_connection_answers_many_questions_and_ends_with_nonsense() {
    let fabric = fabric();
    let (web, _db, _refusals) = pair(&fabric, &[]);
    let mut conn = web.connect(dns::ENGINE).await.expect("a connection");
    for _ in 0..3 {
        conn.io.write_all(&framed(&asks("db", RecordType::A))).await.expect("it is read");
        one_read_each(&mut conn).await;
    }
    conn.io.write_all(&framed(b"nonsense")).await.expect("it is read");
    assert_eq!(conn.io.read(&mut [0; 8]).await.expect("an end"), 0);
    // The connections of one guest are bounded; what ended makes room.
    let mut open = Vec::new();
    let refused = loop {
        match web.connect(dns::ENGINE).await {
            Ok(conn) => open.push(conn),
            Err(error) => break error,
        }
        assert!(open.len() <= CONNECTIONS);
    };
    assert!(matches!(refused, NetError::Io(_)), "{refused}");
    drop(open);
    timeout(PATIENCE, async {
        while web.connect(dns::ENGINE).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("there is room again");
}

#[tokio::test]
async fn what_a_guest_listens_on_does_not_take_its_questions() {
    let fabric = fabric();
    let web = guest(&fabric, "web", &["front"]);
    let mut own = web.stack.datagram(at("0.0.0.0:53")).await.expect("a socket");
    assert_eq!(told(&web.stack, dns::ENGINE, "web", RecordType::A).await.0, ResponseCode::NoError);
    let heard = timeout(Duration::from_millis(50), poll_fn(|cx| own.poll_receive(cx))).await;
    assert!(heard.is_err());
}
