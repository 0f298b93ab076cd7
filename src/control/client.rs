//! A view's side: a [`Session`] that cannot be told from a local one. It never lets one of its channels hold up another: a view
//! that reads no updates still gets its log lines, and gets a fresh snapshot when it reads updates again.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::protocol::{self, Frames, FromClient, FromServer, VERSION};
use crate::event::Snapshot;
use crate::session::{LogInterest, LogLine, Reply, Request, Session, Update};

/// Updates and lines a view may be behind before it loses some.
const QUEUE: usize = 1024;
/// Requests under way to the connection.
const REQUESTS: usize = 16;
/// How long a supervisor may take to answer the hello.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects to a project's supervisor; `None` when none runs. The session lives until the view drops its channels or the
/// supervisor ends.
pub async fn connect(path: &Path, logs: LogInterest) -> io::Result<Option<Session>> {
    let context = |error| failed(path, error);
    let Some(stream) = dial(path).await? else { return Ok(None) };
    let (reader, mut writer) = stream.into_split();
    let mut frames = Frames::new(BufReader::new(reader));
    let greeting = greet(&mut frames, &mut writer, logs);
    let snapshot = match tokio::time::timeout(PATIENCE, greeting).await {
        Ok(Ok(Some(snapshot))) => snapshot,
        Ok(Ok(None)) => return Ok(None),
        Ok(Err(error)) => return Err(context(error)),
        Err(_) => return Err(context(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"))),
    };
    let (updates, update_receiver) = mpsc::channel(QUEUE);
    let (lines, line_receiver) = mpsc::channel(QUEUE);
    let (commands, requests) = mpsc::channel(REQUESTS);
    let pump = Pump {
        writer,
        is_silent: false,
        updates: Updates { sender: Some(updates), state: snapshot.clone(), lags: false },
        lines: Lines { sender: Some(lines), pending: VecDeque::new(), dropped: 0, ended: false },
        open: HashMap::new(),
        number: 0,
    };
    #[expect(clippy::disallowed_methods, reason = "the session's channels own the task: it ends when they do")]
    tokio::spawn(pump.run(frames, requests));
    Ok(Some(Session { snapshot, updates: update_receiver, logs: line_receiver, commands }))
}

/// A connection to a supervisor's socket; `None` when none listens there.
pub(super) async fn dial(path: &Path) -> io::Result<Option<UnixStream>> {
    match UnixStream::connect(path).await {
        Ok(stream) => Ok(Some(stream)),
        // A socket nobody listens on was left by a supervisor that died.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) => Err(failed(path, error)),
    }
}

/// An error of a connection to a supervisor, with the socket's path.
pub(super) fn failed(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("talk to the supervisor at `{}`: {error}", path.display()))
}

/// Hello both ways, then the snapshot; `None` when the supervisor ended meanwhile.
async fn greet(
    frames: &mut Frames<BufReader<OwnedReadHalf>>,
    writer: &mut OwnedWriteHalf,
    logs: LogInterest,
) -> io::Result<Option<Snapshot>> {
    let gone = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
        )
    };
    match protocol::send(writer, &FromClient::Hello { version: VERSION, logs }).await {
        Err(error) if gone(&error) => return Ok(None),
        sent => sent?,
    }
    loop {
        let frame = match frames.next().await {
            Err(error) if gone(&error) => return Ok(None),
            frame => frame?,
        };
        match frame {
            Some(FromServer::Hello { version: VERSION }) => {}
            Some(FromServer::Hello { version }) => {
                let why = format!("it speaks version {version} of the protocol, this program version {VERSION}");
                return Err(io::Error::other(why));
            }
            Some(FromServer::Snapshot(snapshot)) => return Ok(Some(*snapshot)),
            Some(FromServer::Refused(why)) => return Err(io::Error::other(why)),
            Some(
                FromServer::Update(_)
                | FromServer::Log(_)
                | FromServer::LogsEnded
                | FromServer::Reply { .. }
                | FromServer::Ended,
            ) => return Err(io::Error::new(io::ErrorKind::InvalidData, "it did not say hello")),
            None => return Ok(None),
        }
    }
}

/// Carries frames between the connection and a session's channels.
struct Pump {
    /// Kept open as long as anybody reads: its end tells the supervisor that the view is gone.
    writer: OwnedWriteHalf,
    /// The view can send nothing more.
    is_silent: bool,
    updates: Updates,
    lines: Lines,
    open: HashMap<u64, oneshot::Sender<Reply>>,
    number: u64,
}

impl Pump {
    async fn run(mut self, mut frames: Frames<BufReader<OwnedReadHalf>>, mut requests: mpsc::Receiver<Request>) {
        let lost = loop {
            if self.is_abandoned() {
                return;
            }
            tokio::select! {
                frame = frames.next() => match frame {
                    Ok(Some(FromServer::Ended)) => break None,
                    Ok(Some(frame)) => self.take(frame),
                    Ok(None) => break Some("the supervisor was lost: it ended without saying so".to_owned()),
                    Err(error) => break Some(format!("the supervisor was lost: {error}")),
                },
                request = requests.recv(), if !self.is_silent => match request {
                    Some(request) => self.request(request).await,
                    None => self.is_silent = true,
                },
                () = self.updates.wants_resync() => self.updates.resync(),
                () = self.lines.wants_more() => self.lines.hand_on(),
                () = self.updates.closed() => self.updates.sender = None,
                () = self.lines.closed() => self.lines.sender = None,
            }
        };
        self.open.clear();
        drop(requests);
        // Whoever reads on gets what was kept for it, then the end.
        self.lines.ended = true;
        let Self { updates, mut lines, .. } = self;
        let last_updates = updates.end(lost);
        let last_lines = async {
            while lines.sender.is_some() {
                lines.wants_more().await;
                lines.hand_on();
            }
        };
        tokio::join!(last_updates, last_lines);
    }

    /// Whether nobody is left who could read or wish anything.
    fn is_abandoned(&self) -> bool {
        self.is_silent && self.updates.sender.is_none() && self.lines.sender.is_none() && self.open.is_empty()
    }

    fn take(&mut self, frame: FromServer) {
        match frame {
            FromServer::Update(update) => self.updates.push(update),
            FromServer::Log(line) => self.lines.push(line),
            FromServer::LogsEnded => self.lines.end(),
            FromServer::Reply { number, reply } => {
                if let (Some(sender), Some(reply)) = (self.open.remove(&number), reply) {
                    let _ = sender.send(reply);
                }
            }
            // Said once, at the beginning; the end is seen before this is called.
            FromServer::Hello { .. } | FromServer::Refused(_) | FromServer::Snapshot(_) | FromServer::Ended => {}
        }
    }

    async fn request(&mut self, Request { command, reply }: Request) {
        self.number += 1;
        let sent = match protocol::encode(&FromClient::Request { number: self.number, command }) {
            Ok(frame) => self.writer.write_all(&frame).await,
            Err(error) => {
                let _ = reply.send(Reply::Refused(format!("send the command to the supervisor: {error}")));
                return;
            }
        };
        // Where the connection broke, the reply is dropped here and the reader tells why.
        if sent.is_ok() {
            self.open.insert(self.number, reply);
        }
    }
}

/// Updates on their way to the view, and the state they lead to.
struct Updates {
    sender: Option<mpsc::Sender<Update>>,
    state: Snapshot,
    /// Some were lost: nothing more but a snapshot.
    lags: bool,
}

impl Updates {
    fn push(&mut self, update: Update) {
        match &update {
            Update::Event(event) => self.state.apply(event),
            Update::Resync(snapshot) => self.state = (**snapshot).clone(),
            Update::Lost(_) => {}
        }
        if let (false, Some(sender)) = (self.lags, &self.sender) {
            self.lags = matches!(sender.try_send(update), Err(mpsc::error::TrySendError::Full(_)));
        }
    }

    /// Waits until the view reads again; for ever, where it lost nothing.
    async fn wants_resync(&self) {
        match &self.sender {
            Some(sender) if self.lags => drop(sender.reserve().await),
            _ => std::future::pending().await,
        }
    }

    fn resync(&mut self) {
        if let Some(sender) = &self.sender {
            self.lags = sender.try_send(Update::Resync(Box::new(self.state.clone()))).is_err();
        }
    }

    async fn closed(&self) {
        closed(self.sender.as_ref()).await;
    }

    /// The last of them.
    async fn end(self, lost: Option<String>) {
        let Some(sender) = self.sender else { return };
        if self.lags {
            let _ = sender.send(Update::Resync(Box::new(self.state))).await;
        }
        if let Some(text) = lost {
            let _ = sender.send(Update::Lost(text)).await;
        }
    }
}

/// Log lines on their way to the view: the oldest are dropped, and counted, when it does not read.
struct Lines {
    sender: Option<mpsc::Sender<LogLine>>,
    pending: VecDeque<LogLine>,
    dropped: u64,
    /// There will be no more.
    ended: bool,
}

impl Lines {
    /// At once where there is room: whoever gets a later update finds the line there.
    fn push(&mut self, mut line: LogLine) {
        let Some(sender) = &self.sender else { return };
        if self.pending.is_empty() {
            match sender.try_send(line) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
                Err(mpsc::error::TrySendError::Full(back)) => line = back,
            }
        }
        if self.pending.len() == QUEUE {
            self.dropped += self.pending.pop_front().map_or(0, |line| line.dropped + 1);
        }
        self.pending.push_back(line);
    }

    fn end(&mut self) {
        self.ended = true;
        if self.pending.is_empty() {
            self.sender = None;
        }
    }

    /// Waits until there is room for the oldest line; for ever, where there is none to hand on.
    async fn wants_more(&self) {
        match &self.sender {
            Some(sender) if !self.pending.is_empty() => drop(sender.reserve().await),
            Some(_) if self.ended => {}
            Some(_) | None => std::future::pending().await,
        }
    }

    /// Hands the oldest line on.
    fn hand_on(&mut self) {
        let Some(sender) = &self.sender else { return };
        if let Some(mut line) = self.pending.pop_front() {
            line.dropped += std::mem::take(&mut self.dropped);
            // There is room, or nobody reads any more.
            let _ = sender.try_send(line);
        }
        if sender.is_closed() || (self.ended && self.pending.is_empty()) {
            self.sender = None;
        }
    }

    async fn closed(&self) {
        closed(self.sender.as_ref()).await;
    }
}

/// Waits until nobody receives any more; for ever, where that is known already.
async fn closed<T>(sender: Option<&mpsc::Sender<T>>) {
    match sender {
        Some(sender) => sender.closed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
