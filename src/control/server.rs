//! The supervisor's side. Each connection is a task with a session of its own; one whose client stops reading waits alone,
//! while its session drops what it cannot keep, as any slow view's does.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::protocol::{self, Frames, FromClient, FromServer, VERSION};
use super::visitors::Visitors;
use crate::session::stream::Open;
use crate::session::{Attach, LogInterest, Reply, Request, Session};

/// Connections at a time; further ones wait in the socket's backlog.
const CONNECTIONS: usize = 64;
/// Requests of one connection that are not answered yet; further ones are not read until then.
const OPEN_REQUESTS: usize = 16;
/// Log lines after which an event or a reply that waits is sent first.
const LINES_IN_A_ROW: usize = 256;
/// How long a client may take to say hello.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long clients may take to read the end once the supervisor ended.
const FAREWELL: Duration = Duration::from_secs(1);

/// A request that was handed on, and where its outcome will come from.
type Opened = (u64, oneshot::Receiver<Reply>);

/// Listens at `path`, in place of a socket that a dead supervisor left. Only the owner can connect.
/// Whoever calls this holds the project's lock, and the folder is private.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let context = |error: io::Error| io::Error::new(error.kind(), format!("listen at `{}`: {error}", path.display()));
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(context(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(context)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(context)?;
    Ok(listener)
}

/// Serves sessions until nobody takes `attaches` any more, then lets the clients read the end.
pub async fn serve(
    listener: UnixListener,
    attaches: mpsc::Sender<Attach>,
    requests: mpsc::Sender<Request>,
    errands: mpsc::Sender<Open>,
    visitors: Visitors,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let visit = visitors.enter();
                    let conversation = converse(stream, attaches.clone(), requests.clone(), errands.clone());
                    connections.spawn(async move {
                        let _visit = visit;
                        conversation.await
                    });
                }
                // Out of descriptors, most likely: others may end meanwhile.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
            () = attaches.closed() => break,
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(FAREWELL, ended).await;
}

/// One connection. Whatever goes wrong on it ends it: the client sees that, and nobody else is concerned.
async fn converse(
    stream: UnixStream,
    attaches: mpsc::Sender<Attach>,
    requests: mpsc::Sender<Request>,
    errands: mpsc::Sender<Open>,
) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let peer = stream.peer_cred()?.uid();
    if peer != own && peer != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (reader, writer) = stream.into_split();
    let (mut frames, mut writer) = (Frames::new(BufReader::new(reader)), BufWriter::new(writer));
    let logs = match tokio::time::timeout(PATIENCE, frames.next()).await?? {
        Some(FromClient::Hello { version: VERSION, logs }) => logs,
        Some(FromClient::Errand { version: VERSION, errand }) => {
            // The errand's own end tells when the supervisor is gone; nothing here may keep it from ending.
            drop((attaches, requests));
            return super::stream::serve(frames, writer, errand, errands).await;
        }
        Some(FromClient::Hello { version, .. } | FromClient::Errand { version, .. }) => {
            let text = format!(
                "it speaks version {VERSION} of the protocol, this program version {version}: take the project down with \
                 the program that started it, then up with this one"
            );
            return refuse(&mut writer, text).await;
        }
        Some(FromClient::Request { .. }) => return refuse(&mut writer, "a request came before the hello".into()).await,
        None => return Ok(()),
    };
    protocol::send(&mut writer, &FromServer::Hello { version: VERSION }).await?;
    // Where the supervisor is ending, the connection ends without a snapshot.
    let Some(session) = open(&attaches, logs).await else { return writer.flush().await };
    // The session's own end tells when the supervisor is gone; nothing here may keep it from ending.
    drop(attaches);
    let Session { snapshot, updates, logs, commands: _ } = session;
    protocol::send(&mut writer, &FromServer::Snapshot(Box::new(snapshot))).await?;
    writer.flush().await?;
    let (open, opened) = mpsc::channel(OPEN_REQUESTS);
    tokio::select! {
        result = take_requests(frames, requests, open) => result,
        result = tell(&mut writer, updates, logs, opened) => result,
    }
}

async fn open(attach: &mpsc::Sender<Attach>, logs: LogInterest) -> Option<Session> {
    let (reply, session) = oneshot::channel();
    attach.send(Attach { logs, reply }).await.ok()?;
    session.await.ok()
}

async fn refuse(writer: &mut (impl AsyncWrite + Unpin), text: String) -> io::Result<()> {
    protocol::send(writer, &FromServer::Refused(text)).await?;
    writer.flush().await
}

/// Hands requests on until the client goes.
async fn take_requests(
    mut frames: Frames<BufReader<OwnedReadHalf>>,
    requests: mpsc::Sender<Request>,
    open: mpsc::Sender<Opened>,
) -> io::Result<()> {
    while let Some(frame) = frames.next().await? {
        let FromClient::Request { number, command } = frame else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a second hello"));
        };
        let (reply, outcome) = oneshot::channel();
        // Where nobody takes it, `reply` is dropped, and that is the outcome.
        let _ = requests.send(Request { command, reply }).await;
        if open.send((number, outcome)).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Sends what the session brings until the supervisor ends.
async fn tell(
    writer: &mut (impl AsyncWrite + Unpin),
    mut updates: mpsc::Receiver<crate::session::Update>,
    mut logs: mpsc::Receiver<crate::session::LogLine>,
    mut opened: mpsc::Receiver<Opened>,
) -> io::Result<()> {
    let mut replies = FuturesUnordered::new();
    let (mut lives, mut logs_live, mut lines_in_a_row) = (true, true, 0);
    while lives || logs_live || !replies.is_empty() {
        // A flood of lines waits for what else there is.
        let mut waiting = None;
        if lines_in_a_row == LINES_IN_A_ROW {
            lines_in_a_row = 0;
            while replies.len() < OPEN_REQUESTS
                && let Ok(opened) = opened.try_recv()
            {
                replies.push(outcome(opened));
            }
            waiting = updates.try_recv().ok().map(FromServer::Update);
            if waiting.is_none() {
                waiting = replies.next().now_or_never().flatten();
            }
        }
        if let Some(frame) = waiting {
            protocol::send(writer, &frame).await?;
            continue;
        }
        // Lines stand before the events that ended them, a reply behind the events that led to it.
        let frame = tokio::select! {
            biased;
            line = logs.recv(), if logs_live => match line {
                Some(line) => FromServer::Log(protocol::fit(line)),
                None => {
                    logs_live = false;
                    FromServer::LogsEnded
                }
            },
            update = updates.recv(), if lives => match update {
                Some(update) => FromServer::Update(update),
                None => {
                    lives = false;
                    continue;
                }
            },
            Some(reply) = replies.next(), if !replies.is_empty() => reply,
            Some(opened) = opened.recv(), if replies.len() < OPEN_REQUESTS => {
                replies.push(outcome(opened));
                continue;
            }
        };
        lines_in_a_row = if matches!(frame, FromServer::Log(_)) { lines_in_a_row + 1 } else { 0 };
        protocol::send(writer, &frame).await?;
        if updates.is_empty() && logs.is_empty() {
            writer.flush().await?;
        }
    }
    protocol::send(writer, &FromServer::Ended).await?;
    writer.flush().await
}

/// The reply to a request, once there is one.
async fn outcome((number, reply): Opened) -> FromServer {
    FromServer::Reply { number, reply: reply.await.ok() }
}
