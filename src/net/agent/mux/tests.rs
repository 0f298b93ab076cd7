//! Channels against an agent that is played here, frame by frame: what it hears, and what becomes of what it says.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::super::Agent;
use super::window::{OVERHEAD, WINDOW};
use super::*;
use crate::net::agent::{Acceptor as AnyAcceptor, Datagrams as AnyDatagrams};
use crate::net::carrier::Stream;

/// Beyond every silence that is waited out.
const LIMIT: Duration = Duration::from_secs(100);

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an endpoint")
}

/// The agent's side.
struct Far {
    from: ReadHalf<DuplexStream>,
    to: WriteHalf<DuplexStream>,
    cutter: Cutter,
    heard: VecDeque<Vec<u8>>,
}

/// What a frame about a channel is: its kind, its channel, the rest.
type Heard = (char, u32, Vec<u8>);

impl Far {
    async fn say(&mut self, frame: &[u8]) {
        let mut frames = Frames::default();
        frames.plain(frame);
        self.to.write_all(&frames.0).await.expect("somebody reads");
    }

    /// A frame about a channel.
    async fn tell(&mut self, kind: char, number: u32, rest: &[u8]) {
        self.say(&[&[kind as u8], number.to_le_bytes().as_slice(), rest].concat()).await;
    }

    /// A channel is open, between these ends.
    async fn open(&mut self, number: u32, own: &str, other: &str) {
        let ends = [address(own), address(other)].concat();
        self.tell('O', number, &[[0; 4].as_slice(), &ends].concat()).await;
    }

    async fn hear(&mut self) -> Option<Vec<u8>> {
        while self.heard.is_empty() {
            let mut piece = [0; 4096];
            let length = timeout(LIMIT, self.from.read(&mut piece)).await.expect("something in time").ok()?;
            if length == 0 {
                return None;
            }
            let fed: Result<(), ()> = self.cutter.feed(&piece[..length], |frame| {
                self.heard.push_back(frame.to_vec());
                Ok(())
            });
            fed.expect("nothing fails");
        }
        self.heard.pop_front()
    }

    async fn about(&mut self) -> Heard {
        let frame = self.hear().await.expect("a frame");
        let (&[kind, a, b, c, d], rest) = frame.split_first_chunk::<5>().expect("a frame about a channel");
        (char::from(kind), u32::from_le_bytes([a, b, c, d]), rest.to_vec())
    }

    /// The number that a connection is asked for by, which is then open.
    async fn accept(&mut self) -> u32 {
        let (kind, number, _) = self.about().await;
        assert_eq!(kind, 'C');
        self.open(number, "172.18.0.3:40000", "172.18.0.2:80").await;
        number
    }
}

/// An address as frames have it.
fn address(text: &str) -> Vec<u8> {
    let mut frames = Frames::default();
    frames.datagram(0, at(text), b"");
    frames.0.split_off(7)
}

fn lines() -> (Incoming, Outgoing, Far) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (reader, writer) = tokio::io::split(near);
    let pieces = futures_util::stream::unfold(reader, |mut reader| async move {
        let mut piece = vec![0; 1000];
        match reader.read(&mut piece).await {
            Ok(0) => None,
            Ok(length) => Some((Ok(Bytes::copy_from_slice(&piece[..length])), reader)),
            Err(error) => Some((Err(error), reader)),
        }
    });
    let (from, to) = tokio::io::split(far);
    (Box::pin(pieces), Box::pin(writer), Far { from, to, cutter: Cutter::default(), heard: VecDeque::new() })
}

async fn agent() -> (Agent, Far) {
    let (incoming, outgoing, mut far) = lines();
    far.say(b"H\x01\x02abnameserver 127.0.0.11\n").await;
    far.say(b"R").await;
    let agent = Agent::carrying(incoming, outgoing, "ab", LIMIT).await.expect("an agent");
    assert_eq!(far.hear().await.expect("a welcome")[0], b'W');
    (agent, far)
}

async fn connected(agent: &Agent, far: &mut Far) -> (Stream, u32) {
    let (conn, number) = tokio::join!(agent.connect(at("172.18.0.2:80")), far.accept());
    (conn.expect("a connection").io, number)
}

async fn is_gone(agent: &Agent) {
    let mut events = agent.events().expect("events");
    assert_eq!(timeout(LIMIT, events.recv()).await.expect("in time"), Some(AgentEvent::Gone));
}

#[tokio::test]
async fn a_stranger_is_no_agent() {
    for said in [b"H\x01\x02xynameserver".as_slice(), b"H\x02\x02ab", b"R", b"OCI runtime exec failed"] {
        let (incoming, outgoing, mut far) = lines();
        far.say(said).await;
        let error = Agent::carrying(incoming, outgoing, "ab", LIMIT).await.expect_err("not ours");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{said:?}");
    }
    let (incoming, outgoing, far) = lines();
    drop(far);
    let error = Agent::carrying(incoming, outgoing, "ab", LIMIT).await.expect_err("nobody");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_connection_carries_both_ways_and_each_way_has_its_end() {
    let (agent, mut far) = agent().await;
    assert_eq!(agent.resolver(), "nameserver 127.0.0.11\n");
    let (conn, number) = tokio::join!(agent.connect(at("172.18.0.2:80")), far.accept());
    let conn = conn.expect("a connection");
    assert_eq!((conn.local, conn.peer), (at("172.18.0.3:40000"), at("172.18.0.2:80")));
    let mut io = conn.io;
    io.write_all(b"question").await.expect("it is taken");
    io.shutdown().await.expect("it is taken");
    assert_eq!(far.about().await, ('D', number, b"question".to_vec()));
    assert_eq!(far.about().await, ('F', number, Vec::new()));
    // The other way is open still.
    far.tell('D', number, b"ans").await;
    far.tell('D', number, b"wer").await;
    far.tell('F', number, &[0; 4]).await;
    let mut answer = String::new();
    timeout(LIMIT, io.read_to_string(&mut answer)).await.expect("in time").expect("an answer");
    assert_eq!(answer, "answer");
    drop(io);
    assert_eq!(far.about().await, ('Z', number, Vec::new()));
}

#[tokio::test]
async fn what_was_written_is_sent_before_the_channel_closes_and_its_number_is_kept_until_then() {
    let (agent, mut far) = agent().await;
    let (mut io, number) = connected(&agent, &mut far).await;
    io.write_all(b"last words").await.expect("it is taken");
    drop(io);
    assert_eq!(far.about().await, ('D', number, b"last words".to_vec()));
    assert_eq!(far.about().await.0, 'Z');
    // What the agent sent before it heard of that is nobody's any more.
    far.tell('D', number, b"late").await;
    let (other, another) = connected(&agent, &mut far).await;
    assert_ne!(number, another);
    far.tell('Z', number, &[]).await;
    drop(other);
    assert_eq!(far.about().await, ('Z', another, Vec::new()));
    far.tell('Z', another, &[]).await;
    let (mut again, reused) = connected(&agent, &mut far).await;
    assert!([number, another].contains(&reused), "{reused}");
    far.tell('D', reused, b"new").await;
    let mut bytes = [0; 3];
    again.read_exact(&mut bytes).await.expect("three bytes");
    assert_eq!(&bytes, b"new");
}

#[tokio::test]
async fn a_writer_waits_at_the_end_of_its_window() {
    let (agent, mut far) = agent().await;
    let (mut io, number) = connected(&agent, &mut far).await;
    let mut written = 0;
    while let Ok(wrote) = timeout(Duration::from_millis(100), io.write(&[7; 5000])).await {
        written += wrote.expect("it is taken");
    }
    assert_eq!(written, WINDOW);
    let mut came = 0;
    while came < WINDOW {
        let (kind, _, bytes) = far.about().await;
        assert_eq!(kind, 'D');
        came += bytes.len();
    }
    far.tell('K', number, &3_u32.to_le_bytes()).await;
    assert_eq!(timeout(LIMIT, io.write(b"more")).await.expect("in time").expect("it is taken"), 3);
    assert_eq!(far.about().await, ('D', number, b"mor".to_vec()));
}

#[tokio::test]
async fn a_slow_reader_holds_up_nobody_else() {
    let (agent, mut far) = agent().await;
    let (mut slow, slow_number) = connected(&agent, &mut far).await;
    let (mut fast, fast_number) = connected(&agent, &mut far).await;
    // The slow one gets as much as may wait for it, and leaves it there.
    for _ in 0..WINDOW / 4096 {
        far.tell('D', slow_number, &[1; 4096]).await;
    }
    let total = 50 * WINDOW;
    let reading = async {
        let mut bytes = vec![0; total];
        fast.read_exact(&mut bytes).await.expect("bytes");
        assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == (at / 4096) as u8), "in their order");
    };
    let writing = async {
        let mut credit = WINDOW;
        for number in 0..total / 4096 {
            while credit < 4096 {
                let (kind, channel, count) = far.about().await;
                assert_eq!((kind, channel), ('K', fast_number), "only who reads gives credit");
                credit += u32::from_le_bytes(count.try_into().expect("a number")) as usize;
            }
            credit -= 4096;
            far.tell('D', fast_number, &[number as u8; 4096]).await;
        }
    };
    timeout(LIMIT, async { tokio::join!(reading, writing) }).await.expect("in time");
    let mut kept = vec![0; WINDOW];
    slow.read_exact(&mut kept).await.expect("all of it is there");
    assert!(kept.iter().all(|byte| *byte == 1));
}

#[tokio::test]
async fn a_reset_is_an_error_of_its_own_channel() {
    let (agent, mut far) = agent().await;
    let (mut broken, number) = connected(&agent, &mut far).await;
    let (mut whole, other) = connected(&agent, &mut far).await;
    far.tell('D', number, b"rest").await;
    far.tell('E', number, &32_u32.to_le_bytes()).await;
    far.tell('F', number, &104_u32.to_le_bytes()).await;
    let mut rest = [0; 4];
    broken.read_exact(&mut rest).await.expect("what came before");
    assert_eq!(broken.read(&mut rest).await.expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(broken.write(b"x").await.expect_err("nobody reads").kind(), io::ErrorKind::BrokenPipe);
    whole.write_all(b"well").await.expect("it is taken");
    assert_eq!(far.about().await, ('D', other, b"well".to_vec()));
}

#[tokio::test]
async fn a_refused_connection_is_the_connectors_error() {
    let (agent, mut far) = agent().await;
    let refusing = async {
        let (kind, number, _) = far.about().await;
        assert_eq!(kind, 'C');
        far.tell('O', number, &111_u32.to_le_bytes()).await;
        assert_eq!(far.about().await, ('Z', number, Vec::new()));
    };
    let (conn, ()) = tokio::join!(agent.connect(at("172.18.0.2:81")), refusing);
    assert_eq!(conn.expect_err("it is refused").kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn connections_come_in_their_order_into_places_that_were_offered() {
    let (agent, mut far) = agent().await;
    let listening = async {
        let (kind, number, _) = far.about().await;
        assert_eq!(kind, 'L');
        far.open(number, "0.0.0.0:8080", "0.0.0.0:0").await;
        number
    };
    let (acceptor, listener) = tokio::join!(agent.listen(at("0.0.0.0:8080")), listening);
    let mut acceptor = acceptor.expect("a listener");
    assert_eq!(acceptor.local_addr().expect("an address"), at("0.0.0.0:8080"));
    let accept = async |acceptor: &mut AnyAcceptor| poll_fn(|cx| acceptor.poll_accept(cx)).await;
    assert!(timeout(Duration::from_millis(50), accept(&mut acceptor)).await.is_err(), "nobody came yet");
    let mut places = Vec::new();
    for _ in 0..8 {
        let (kind, number, place) = far.about().await;
        assert_eq!((kind, number), ('N', listener));
        places.push(u32::from_le_bytes(place.try_into().expect("a number")));
    }
    far.open(places[0], "172.18.0.3:8080", "172.18.0.2:1").await;
    far.open(places[1], "[::ffff:172.18.0.3]:8080", "[::ffff:172.18.0.2]:2").await;
    for port in [1, 2] {
        let conn = timeout(LIMIT, accept(&mut acceptor)).await.expect("in time").expect("a connection");
        assert_eq!((conn.local, conn.peer), (at("172.18.0.3:8080"), SocketAddr::new([172, 18, 0, 2].into(), port)));
    }
    // With the listener go the places.
    drop(acceptor);
    let mut closed = Vec::new();
    while !closed.contains(&listener) || !places[2..].iter().all(|place| closed.contains(place)) {
        let (kind, number, _) = far.about().await;
        if kind == 'Z' {
            closed.push(number);
        }
    }
}

#[tokio::test]
async fn datagrams_keep_their_bounds_and_their_senders() {
    let (agent, mut far) = agent().await;
    let binding = async {
        let (kind, number, _) = far.about().await;
        assert_eq!(kind, 'U');
        far.open(number, "[::]:53", "0.0.0.0:0").await;
        number
    };
    let (socket, number) = tokio::join!(agent.datagrams(at("[::]:53")), binding);
    let socket = socket.expect("a socket");
    let send = async |socket: &AnyDatagrams, bytes: &[u8], to| poll_fn(|cx| socket.poll_send(cx, bytes, to)).await;
    let longest = vec![9; 65_507];
    for bytes in [b"one".as_slice(), b"", &longest] {
        send(&socket, bytes, at("172.18.0.2:5")).await.expect("it is taken");
        let expected = [address("[::ffff:172.18.0.2]:5"), bytes.to_vec()].concat();
        assert_eq!(far.about().await, ('D', number, expected), "as a dual-stack socket speaks it");
        let owed = (bytes.len() + OVERHEAD) as u32;
        far.tell('K', number, &owed.to_le_bytes()).await;
    }
    far.tell('E', number, &113_u32.to_le_bytes()).await;
    far.tell('D', number, &[address("[::ffff:172.18.0.2]:5"), longest.clone()].concat()).await;
    let mut scratch = Vec::new();
    let received = timeout(LIMIT, poll_fn(|cx| socket.poll_receive(&mut scratch, cx))).await.expect("in time");
    assert_eq!(received.expect("a datagram"), (longest.into(), at("172.18.0.2:5")));
    let error = send(&socket, b"x", at("172.18.0.2:5")).await.expect_err("the one before was not sent");
    assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
}

#[tokio::test]
async fn garbage_is_passed_over_and_an_overrun_is_the_end() {
    let (agent, mut far) = agent().await;
    let (mut io, number) = connected(&agent, &mut far).await;
    for garbage in [b"".as_slice(), b"?", b"D", b"K\x05\0\0\0", b"O\xff\xff\xff\xff\0\0\0\0", b"Z\x63\0\0\0", &[0; 900]]
    {
        far.say(garbage).await;
    }
    far.tell('D', 77, b"of a channel that is none").await;
    far.tell('D', number, b"well").await;
    let mut bytes = [0; 4];
    io.read_exact(&mut bytes).await.expect("it goes on");
    // What was read is not told yet, so that it is no room for more.
    for _ in 0..WINDOW / 4096 - 1 {
        far.tell('D', number, &[0; 4096]).await;
    }
    far.tell('D', number, &[0; 4092]).await;
    far.tell('D', number, b"x").await;
    is_gone(&agent).await;
    let mut all = Vec::new();
    let error = timeout(LIMIT, io.read_to_end(&mut all)).await.expect("in time").expect_err("the agent is gone");
    assert_eq!((error.kind(), all.len()), (io::ErrorKind::BrokenPipe, WINDOW - 4));
}

#[tokio::test]
async fn the_end_of_the_streams_ends_everything() {
    let (agent, mut far) = agent().await;
    let (io, _) = connected(&agent, &mut far).await;
    let (mut reader, mut writer) = tokio::io::split(io);
    let fill = async move {
        let mut error = None;
        while error.is_none() {
            error = writer.write(&[0; 4096]).await.err();
        }
        error.map(|error| error.kind())
    };
    let cut = async {
        while far.about().await.0 != 'C' {}
        drop(far);
    };
    let mut byte = [0; 1];
    let (read, filled, opened, ()) =
        timeout(LIMIT, async { tokio::join!(reader.read(&mut byte), fill, agent.connect(at("172.18.0.2:80")), cut) })
            .await
            .expect("nobody waits for ever");
    assert_eq!(read.expect_err("gone").kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(filled, Some(io::ErrorKind::BrokenPipe));
    assert_eq!(opened.expect_err("gone").kind(), io::ErrorKind::BrokenPipe);
    is_gone(&agent).await;
    assert_eq!(agent.listen(at("0.0.0.0:1")).await.expect_err("gone").kind(), io::ErrorKind::BrokenPipe);
    timeout(LIMIT, agent.exit(3)).await.expect("it has ended");
}

#[tokio::test]
async fn channels_end_with_the_last_of_the_agent() {
    let (agent, mut far) = agent().await;
    let (mut io, _) = connected(&agent, &mut far).await;
    drop(agent);
    let error = timeout(LIMIT, io.read(&mut [0; 1])).await.expect("in time").expect_err("gone");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(far.hear().await, None);
}

#[tokio::test]
async fn lines_signals_health_and_the_exit_code_travel_as_well() {
    let (agent, mut far) = agent().await;
    let (stdout, stderr) = agent.output().expect("its output");
    assert!(agent.output().is_none(), "it is taken once");
    assert_eq!(stdout.try_write(b"a line\n").expect("room"), 7);
    assert_eq!(far.about().await, ('D', 0, b"a line\n".to_vec()));
    assert_eq!(stderr.try_write(&vec![b'x'; WINDOW + 1]).expect("room"), WINDOW);
    assert_eq!(stderr.try_write(b"more").expect_err("it is full").kind(), io::ErrorKind::WouldBlock);
    let mut events = agent.events().expect("events");
    far.say(b"T\x0f").await;
    assert_eq!(timeout(LIMIT, events.recv()).await.expect("in time"), Some(AgentEvent::Terminate));
    assert_eq!(stdout.try_write(b"bye\n").expect("room"), 4);
    agent.set_health(true);
    drop((stdout, stderr));
    let ending = async {
        let mut heard = Vec::new();
        loop {
            let frame = far.hear().await.expect("a frame");
            heard.push(frame[0]);
            if frame == b"X\x07" {
                break;
            }
            if frame == b"A\x01" {
                continue;
            }
        }
        drop(far);
        heard
    };
    let (heard, ()) = tokio::join!(ending, agent.exit(7));
    assert_eq!(heard.iter().filter(|kind| **kind == b'Z').count(), 2, "everything else comes before: {heard:?}");
    assert!(heard.contains(&b'A') && heard.iter().filter(|kind| **kind == b'D').count() >= 2);
    assert_eq!(timeout(LIMIT, events.recv()).await.expect("in time"), Some(AgentEvent::Gone));
}

#[tokio::test(start_paused = true)]
async fn a_silent_agent_is_asked_and_then_given_up() {
    let (agent, mut far) = agent().await;
    assert_eq!(far.hear().await, Some(b"P".to_vec()), "asked after some time");
    is_gone(&agent).await;
}
