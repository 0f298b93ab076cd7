//! Client and server together, over a real socket, with a supervisor played by the test.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use indexmap::IndexMap;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::control::protocol::WINDOW;
use crate::control::server::{listen, serve};
use crate::control::stream;
use crate::control::visitors::Visitors;
use crate::event::{Event, Failure, Phase, Stamped};
use crate::model::InstanceName;
use crate::session::stream::{Ending, Errand, Open, Said};
use crate::session::{Attach, Command, LogMode, LogStream};

/// A served socket; `attach` is the supervisor's end.
struct Served {
    folder: TempDir,
    attach: mpsc::Receiver<Attach>,
    commands: mpsc::Receiver<Request>,
    opened: mpsc::Receiver<Open>,
    tasks: JoinSet<()>,
}

/// The supervisor's ends of one session.
struct Backstage {
    updates: mpsc::Sender<Update>,
    logs: mpsc::Sender<LogLine>,
    interest: LogInterest,
}

impl Served {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = listen(&folder.path().join("s")).unwrap();
        let (sender, attach) = mpsc::channel(1);
        let (requests, commands) = mpsc::channel(4);
        let mut tasks = JoinSet::new();
        let (errands, opened) = mpsc::channel(4);
        tasks.spawn(serve(listener, sender, requests, errands, Visitors::default()));
        Self { folder, attach, commands, opened, tasks }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    async fn session(&mut self, logs: LogInterest) -> (Session, Backstage) {
        let path = self.path();
        let answer = async {
            let Attach { logs: interest, reply } = self.attach.recv().await.unwrap();
            let (updates, update_receiver) = mpsc::channel(4);
            let (logs, line_receiver) = mpsc::channel(4);
            let (commands, _) = mpsc::channel(1);
            let session = Session { snapshot: snapshot(), updates: update_receiver, logs: line_receiver, commands };
            reply.send(session).unwrap();
            Backstage { updates, logs, interest }
        };
        let (session, backstage) = tokio::join!(connect(&path, logs), answer);
        (session.unwrap().unwrap(), backstage)
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        version: crate::event::VERSION,
        project: "p".into(),
        directory: "/p".into(),
        files: Vec::new(),
        supervisor: 7,
        phase: Phase::Starting,
        instances: IndexMap::new(),
    }
}

fn phase(phase: Phase) -> Update {
    Update::Event(Stamped { at: jiff::Timestamp::UNIX_EPOCH, event: Event::PhaseChanged { phase } })
}

fn line(number: usize) -> LogLine {
    LogLine {
        at: jiff::Timestamp::UNIX_EPOCH,
        instance: InstanceName::new("a".into(), 1),
        stream: LogStream::Stdout,
        text: number.to_string(),
        dropped: 0,
    }
}

fn stop() -> Command {
    Command::Stop { services: vec!["a".into()], timeout: None }
}

#[tokio::test]
async fn a_session_is_what_the_supervisor_gave() {
    let mut served = Served::new();
    let interest = LogInterest { mode: LogMode::Kept, tail: Some(3), ..LogInterest::default() };
    let (mut session, backstage) = served.session(interest.clone()).await;
    assert_eq!((&session.snapshot, &backstage.interest), (&snapshot(), &interest));

    backstage.updates.send(phase(Phase::Running)).await.unwrap();
    backstage.logs.send(line(1)).await.unwrap();
    assert_eq!(session.updates.recv().await, Some(phase(Phase::Running)));
    assert_eq!(session.logs.recv().await, Some(line(1)));

    drop(backstage.logs);
    assert_eq!(session.logs.recv().await, None, "kept lines end while the session goes on");
    backstage.updates.send(phase(Phase::Stopping)).await.unwrap();
    assert_eq!(session.updates.recv().await, Some(phase(Phase::Stopping)));

    drop(session);
    // A view that goes takes its session along.
    backstage.updates.closed().await;
}

#[tokio::test]
async fn requests_are_answered_each_by_its_own_reply() {
    let mut served = Served::new();
    let (session, backstage) = served.session(LogInterest::default()).await;
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        let (reply, outcome) = oneshot::channel();
        session.commands.send(Request { command: stop(), reply }).await.unwrap();
        outcomes.push(outcome);
    }
    let mut requests = Vec::new();
    for _ in 0..3 {
        requests.push(served.commands.recv().await.unwrap());
    }
    assert_eq!(requests[0].command, stop());
    let failure = Failure { service: Some("a".into()), message: "no".into(), hint: None };
    let third_request = requests.pop().unwrap();
    requests.pop().unwrap().reply.send(Reply::Refused("later".into())).unwrap();
    requests.pop().unwrap().reply.send(Reply::Settled { failures: vec![failure.clone()] }).unwrap();
    drop(third_request);
    drop(backstage);
    let mut replies = Vec::new();
    for outcome in outcomes {
        replies.push(outcome.await.ok());
    }
    let settled = Reply::Settled { failures: vec![failure] };
    assert_eq!(replies, [Some(settled), Some(Reply::Refused("later".into())), None]);
}

#[tokio::test]
async fn a_view_that_sends_nothing_more_still_reads() {
    let mut served = Served::new();
    let (session, backstage) = served.session(LogInterest::default()).await;
    let Session { mut updates, commands, logs, .. } = session;
    drop((commands, logs));
    backstage.updates.send(phase(Phase::Running)).await.unwrap();
    assert_eq!(updates.recv().await, Some(phase(Phase::Running)));
}

#[tokio::test]
async fn a_view_that_reads_no_updates_gets_its_lines_and_replies_and_then_a_snapshot() {
    let mut served = Served::new();
    let (mut session, backstage) = served.session(LogInterest::default()).await;
    for _ in 0..QUEUE + 8 {
        backstage.updates.send(phase(Phase::Running)).await.unwrap();
    }
    backstage.logs.send(line(1)).await.unwrap();
    assert_eq!(session.logs.recv().await, Some(line(1)));
    let (reply, outcome) = oneshot::channel();
    session.commands.send(Request { command: stop(), reply }).await.unwrap();
    served.commands.recv().await.unwrap().reply.send(Reply::Settled { failures: Vec::new() }).unwrap();
    outcome.await.unwrap();

    backstage.updates.send(phase(Phase::Stopping)).await.unwrap();
    drop(backstage);
    let (mut seen, mut state, mut resyncs) = (0, session.snapshot, 0);
    while let Some(update) = session.updates.recv().await {
        match update {
            Update::Event(event) => state.apply(&event),
            Update::Resync(snapshot) => (state, resyncs) = (*snapshot, resyncs + 1),
            Update::Lost(why) => panic!("{why}"),
        }
        seen += 1;
    }
    assert_eq!(state, Snapshot { phase: Phase::Stopping, ..snapshot() });
    assert_eq!(resyncs, 1);
    assert!((QUEUE..QUEUE + 8).contains(&seen), "{seen} updates");
}

#[tokio::test]
async fn lines_nobody_reads_are_dropped_and_counted() {
    let mut served = Served::new();
    let (mut session, backstage) = served.session(LogInterest::default()).await;
    let sent = 3 * QUEUE;
    for number in 0..sent {
        backstage.logs.send(line(number)).await.unwrap();
    }
    drop(backstage);
    let (mut read, mut dropped, mut last) = (0, 0, None);
    while let Some(line) = session.logs.recv().await {
        (read, dropped, last) = (read + 1, dropped + line.dropped, Some(line.text));
    }
    assert_eq!(read + dropped as usize, sent);
    assert_eq!(last, Some((sent - 1).to_string()));
}

#[tokio::test]
async fn a_flood_of_lines_holds_up_neither_updates_nor_replies() {
    let mut served = Served::new();
    let (mut session, backstage) = served.session(LogInterest::default()).await;
    let Backstage { updates, logs, .. } = backstage;
    let mut flood = JoinSet::new();
    flood.spawn(async move { while logs.send(line(0)).await.is_ok() {} });
    for _ in 0..3 {
        updates.send(phase(Phase::Running)).await.unwrap();
        assert_eq!(session.updates.recv().await, Some(phase(Phase::Running)));
        let (reply, outcome) = oneshot::channel();
        session.commands.send(Request { command: stop(), reply }).await.unwrap();
        served.commands.recv().await.unwrap().reply.send(Reply::Settled { failures: Vec::new() }).unwrap();
        outcome.await.unwrap();
    }
    assert!(flood.try_join_next().is_none(), "the flood goes on");
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_up_nobody_else() {
    let mut served = Served::new();
    // Connects, says hello, and never reads.
    let mut idle = UnixStream::connect(served.path()).await.unwrap();
    protocol::send(&mut idle, &FromClient::Hello { version: VERSION, logs: LogInterest::default() }).await.unwrap();
    let Attach { reply, .. } = served.attach.recv().await.unwrap();
    let (updates, update_receiver) = mpsc::channel(4);
    let (_logs, line_receiver) = mpsc::channel(4);
    let (commands, _requests) = mpsc::channel(4);
    reply.send(Session { snapshot: snapshot(), updates: update_receiver, logs: line_receiver, commands }).unwrap();
    // Its socket and its session fill up until nothing moves any more.
    while tokio::time::timeout(Duration::from_millis(200), updates.send(phase(Phase::Running))).await.is_ok() {}

    let (mut session, backstage) = served.session(LogInterest::default()).await;
    backstage.updates.send(phase(Phase::Running)).await.unwrap();
    assert_eq!(session.updates.recv().await, Some(phase(Phase::Running)));
}

#[tokio::test]
async fn an_orderly_end_closes_the_session_and_a_sudden_one_says_so() {
    let mut served = Served::new();
    let (mut session, backstage) = served.session(LogInterest::default()).await;
    drop(backstage);
    assert_eq!(session.updates.recv().await, None);

    let (mut session, _backstage) = served.session(LogInterest::default()).await;
    served.tasks.shutdown().await;
    assert!(matches!(session.updates.recv().await, Some(Update::Lost(_))));
    assert_eq!(session.updates.recv().await, None);
}

#[tokio::test]
async fn no_supervisor_a_dead_one_and_a_foreign_one_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    assert!(matches!(connect(&path, LogInterest::default()).await, Ok(None)));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    assert!(matches!(connect(&path, LogInterest::default()).await, Ok(None)));

    let listener = listen(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (attach, attached) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    let (requests, _commands) = mpsc::channel(1);
    let (errands, _opened) = mpsc::channel(1);
    tasks.spawn(serve(listener, attach, requests, errands, Visitors::default()));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    protocol::send(&mut stream, &FromClient::Hello { version: 99, logs: LogInterest::default() }).await.unwrap();
    let answer = Frames::new(BufReader::new(&mut stream)).next::<FromServer>().await.unwrap();
    insta::assert_debug_snapshot!(answer, @r#"
    Some(
        Refused(
            "it speaks version 1 of the protocol, this program version 99: take the project down with the program that started it, then up with this one",
        ),
    )
    "#);

    drop(attached);
    tasks.join_next().await.unwrap().unwrap();
    assert!(matches!(connect(&path, LogInterest::default()).await, Ok(None)));
}

impl Served {
    /// An errand, from both sides.
    async fn errand(&mut self) -> (stream_ends::Ends, Open) {
        let instance = InstanceName::new("a".into(), 1);
        let errand = Errand::CopyIn { instance, path: "/x".into() };
        let ends = stream::open(&self.path(), errand.clone()).await.unwrap().unwrap();
        let open = self.opened.recv().await.unwrap();
        assert_eq!(open.errand, errand);
        (ends, open)
    }
}

use crate::session::stream as stream_ends;

#[tokio::test]
async fn an_errand_carries_bytes_both_ways_beyond_its_window_and_then_its_end() {
    let mut served = Served::new();
    let (ends, open) = served.errand().await;
    let Open { mut input, said, .. } = open;
    let echo = async {
        while let Some(bytes) = input.recv().await {
            said.send(Said::Output(LogStream::Stderr, bytes)).await.unwrap();
        }
        said.send(Said::Ended(Ending::Exited(3))).await.unwrap();
    };
    let sent: Vec<u8> = (0..WINDOW * 3).map(|at| at as u8).collect();
    let stream_ends::Ends { input, signals: _open, said: mut heard } = ends;
    let send = async {
        for piece in sent.chunks(10_000) {
            input.send(bytes::Bytes::copy_from_slice(piece)).await.unwrap();
        }
        drop(input);
    };
    let hear = async {
        let mut got = Vec::new();
        loop {
            match heard.recv().await.unwrap() {
                Said::Output(stream, bytes) => {
                    assert_eq!(stream, LogStream::Stderr);
                    got.extend_from_slice(&bytes);
                }
                Said::Ended(ending) => break (got, ending),
            }
        }
    };
    let ((), (), (got, ending)) = tokio::join!(echo, send, hear);
    assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
    assert_eq!(ending, Ending::Exited(3));
}

#[tokio::test]
async fn a_signal_is_not_stuck_behind_input_that_nobody_reads_and_hanging_up_is_seen() {
    let mut served = Served::new();
    let (ends, mut open) = served.errand().await;
    // More than all that may be under way.
    let piece = bytes::Bytes::from(vec![0; 64 * 1024]);
    while tokio::time::timeout(Duration::from_millis(200), ends.input.send(piece.clone())).await.is_ok() {}
    ends.signals.send("SIGINT".into()).await.unwrap();
    assert_eq!(open.signals.recv().await.as_deref(), Some("SIGINT"));
    drop(ends);
    assert_eq!(open.signals.recv().await, None);
}
