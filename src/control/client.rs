//! The other side: a session that cannot be told from a local one.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::protocol::{self, FromClient, FromServer, VERSION};
use crate::session::{LogInterest, LogLine, Reply, Request, Session, Update};

/// Updates and lines that may wait for the view.
const WAITING: usize = 1024;

/// Connects to a project's supervisor; `None` when none runs.
pub async fn connect(path: &Path, logs: LogInterest) -> io::Result<Option<Session>> {
    let context = |error: io::Error| {
        io::Error::new(error.kind(), format!("talk to the supervisor at `{}`: {error}", path.display()))
    };
    let stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(context(error)),
    };
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    protocol::write(&mut write, &FromClient::Hello { version: VERSION, logs }).await.map_err(context)?;
    let snapshot = match protocol::read(&mut read).await.map_err(context)? {
        Some(FromServer::Hello { version: VERSION, snapshot }) => *snapshot,
        Some(FromServer::Hello { version, .. }) => {
            return Err(context(io::Error::other(format!(
                "it speaks version {version} of the protocol, this program version {VERSION}"
            ))));
        }
        Some(FromServer::Refused { why }) => return Err(context(io::Error::other(why))),
        // It ended between our connect and its answer.
        None => return Ok(None),
        Some(_) => return Err(context(io::Error::new(io::ErrorKind::InvalidData, "it did not say hello"))),
    };
    let (update, updates) = mpsc::channel(WAITING);
    let (log, logs) = mpsc::channel(WAITING);
    let (commands, wishes) = mpsc::channel(16);
    let (sent, pending) = mpsc::unbounded_channel();
    #[expect(clippy::disallowed_methods, reason = "ends with the session: its channels close")]
    {
        tokio::spawn(send(write, wishes, sent));
        tokio::spawn(receive(read, update, log, pending));
    }
    Ok(Some(Session { snapshot, updates, logs, commands }))
}

/// Wishes of the view, numbered.
async fn send(
    mut write: OwnedWriteHalf,
    mut wishes: mpsc::Receiver<Request>,
    sent: mpsc::UnboundedSender<(u64, oneshot::Sender<Reply>)>,
) {
    let mut id = 0;
    while let Some(Request { command, reply }) = wishes.recv().await {
        id += 1;
        let _ = sent.send((id, reply));
        if protocol::write(&mut write, &FromClient::Request { id, command }).await.is_err() {
            return;
        }
    }
}

/// What the supervisor says, until it ends. A dropped reply tells its asker that there will be none.
async fn receive(
    mut read: BufReader<OwnedReadHalf>,
    updates: mpsc::Sender<Update>,
    logs: mpsc::Sender<LogLine>,
    mut sent: mpsc::UnboundedReceiver<(u64, oneshot::Sender<Reply>)>,
) {
    let mut logs = Some(logs);
    let mut waiting = HashMap::new();
    loop {
        let frame = tokio::select! {
            frame = protocol::read(&mut read) => frame,
            // The view is gone: so is the reason to listen.
            () = updates.closed() => return,
        };
        match frame {
            Ok(Some(FromServer::Update(update))) => {
                if updates.send(update).await.is_err() {
                    return;
                }
            }
            Ok(Some(FromServer::Log(line))) => {
                if let Some(logs) = &logs {
                    let _ = logs.send(line).await;
                }
            }
            Ok(Some(FromServer::LogsEnd)) => logs = None,
            Ok(Some(FromServer::Reply { id, reply })) => {
                while let Ok((id, asker)) = sent.try_recv() {
                    waiting.insert(id, asker);
                }
                if let Some(asker) = waiting.remove(&id) {
                    let _: Result<(), Reply> = oneshot::Sender::send(asker, reply);
                }
            }
            Ok(Some(FromServer::Hello { .. } | FromServer::Refused { .. })) => {}
            Ok(None) => return,
            Err(error) => {
                let _ = updates.send(Update::Lost(error.to_string())).await;
                return;
            }
        }
    }
}
