//! The supervisor's side. Each connection is a task with a session of its own; one whose client stops reading waits alone,
//! while its session drops what it cannot keep, as any slow view's does.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::protocol::{self, Frames, FromClient, FromServer, VERSION};
use crate::session::{Attach, LogInterest, Reply, Request, Session};

/// Connections at a time; further ones wait in the socket's backlog.
const CONNECTIONS: usize = 64;
/// Requests of one connection that are not answered yet; further ones are not read until then.
const OPEN_REQUESTS: usize = 16;
/// How long a client may take to say hello.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long clients may take to read the end once the supervisor ended.
const FAREWELL: Duration = Duration::from_secs(1);

/// A bound control socket. The file goes with it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

/// A request that was handed on, and where its outcome will come from.
type Open = (u64, oneshot::Receiver<Reply>);

impl Server {
    /// Binds the socket, in place of one a dead supervisor left. The caller holds the project's lock, and the folder is private.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        let server = Self { listener, path: path.to_owned() };
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(server)
    }

    /// Serves sessions until nobody takes `attach` any more, then lets the clients read the end.
    pub async fn serve(self, attach: mpsc::Sender<Attach>) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(converse(stream, attach.clone()));
                    }
                    // Out of descriptors, most likely: others may end meanwhile.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                Some(_) = connections.join_next() => {}
                () = attach.closed() => break,
            }
        }
        let ended = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FAREWELL, ended).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// One connection. Whatever goes wrong on it ends it: the client sees that, and nobody else is concerned.
async fn converse(stream: UnixStream, attach: mpsc::Sender<Attach>) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let peer = stream.peer_cred()?.uid();
    if peer != own && peer != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (reader, writer) = stream.into_split();
    let (mut frames, mut writer) = (Frames::new(BufReader::new(reader)), BufWriter::new(writer));
    let logs = match tokio::time::timeout(PATIENCE, frames.next()).await?? {
        Some(FromClient::Hello { version: VERSION, logs }) => logs,
        Some(FromClient::Hello { version, .. }) => {
            let text = format!(
                "the supervisor speaks version {VERSION} of the control protocol, this program version {version}"
            );
            return refuse(&mut writer, text).await;
        }
        Some(FromClient::Request { .. }) => return refuse(&mut writer, "a request came before the hello".into()).await,
        None => return Ok(()),
    };
    protocol::send(&mut writer, &FromServer::Hello { version: VERSION }).await?;
    let Some(session) = open(&attach, logs).await else {
        return refuse(&mut writer, "the supervisor is ending".into()).await;
    };
    // The session's own end tells when the supervisor is gone; nothing here may keep it from ending.
    drop(attach);
    let Session { snapshot, updates, logs, commands } = session;
    protocol::send(&mut writer, &FromServer::Snapshot(Box::new(snapshot))).await?;
    writer.flush().await?;
    let (open, opened) = mpsc::channel(OPEN_REQUESTS);
    tokio::select! {
        result = take_requests(frames, commands, open) => result,
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
    commands: mpsc::Sender<Request>,
    open: mpsc::Sender<Open>,
) -> io::Result<()> {
    while let Some(frame) = frames.next().await? {
        let FromClient::Request { number, command } = frame else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a second hello"));
        };
        let (reply, outcome) = oneshot::channel();
        // Where nobody takes it, `reply` is dropped, and that is the outcome.
        let _ = commands.send(Request { command, reply }).await;
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
    mut opened: mpsc::Receiver<Open>,
) -> io::Result<()> {
    let mut replies = FuturesUnordered::new();
    let (mut lives, mut logs_live) = (true, true);
    while lives || logs_live || !replies.is_empty() {
        let frame = tokio::select! {
            biased;
            Some((number, reply)) = replies.next(), if !replies.is_empty() => FromServer::Reply { number, reply },
            update = updates.recv(), if lives => match update {
                Some(update) => FromServer::Update(update),
                None => {
                    lives = false;
                    continue;
                }
            },
            Some((number, outcome)) = opened.recv(), if replies.len() < OPEN_REQUESTS => {
                replies.push(async move { (number, outcome.await.ok()) });
                continue;
            }
            line = logs.recv(), if logs_live => match line {
                Some(line) => FromServer::Log(protocol::fit(line)),
                None => {
                    logs_live = false;
                    FromServer::LogsEnded
                }
            },
        };
        protocol::send(writer, &frame).await?;
        if updates.is_empty() && logs.is_empty() {
            writer.flush().await?;
        }
    }
    protocol::send(writer, &FromServer::Ended).await?;
    writer.flush().await
}
