//! The supervisor's side: a private socket, a session for each connection. A client that does not read blocks only itself.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::protocol::{self, FromClient, FromServer, VERSION};
use crate::session::{Attach, Reply, Request, Session};

/// Listens at `path`, in place of a socket that a dead supervisor left. Only the owner can connect.
/// Whoever calls this holds the project's lock.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let context = |error: io::Error| io::Error::new(error.kind(), format!("listen at `{}`: {error}", path.display()));
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(context(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(context)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(context)?;
    Ok(listener)
}

/// Serves connections until it is dropped.
pub async fn serve(listener: UnixListener, attaches: mpsc::Sender<Attach>, requests: mpsc::Sender<Request>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, attaches.clone(), requests.clone()));
                }
                // Out of descriptors: there is nothing to do but wait for some to be freed.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection; whatever goes wrong with it ends it, and nothing else.
async fn connection(stream: UnixStream, attaches: mpsc::Sender<Attach>, requests: mpsc::Sender<Request>) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let Ok(Some(FromClient::Hello { version, logs })) = protocol::read(&mut read).await else { return };
    if version != VERSION {
        let why = format!(
            "this supervisor speaks version {VERSION} of the protocol, the client version {version}: take the project down with the program that started it, then up with the new one"
        );
        let _ = protocol::write(&mut write, &FromServer::Refused { why }).await;
        return;
    }
    let (reply, answer) = oneshot::channel();
    if attaches.send(Attach { logs, reply }).await.is_err() {
        return;
    }
    let Ok(session) = answer.await else { return };
    let (replies, answers) = mpsc::channel(16);
    tokio::select! {
        () = listen_to(read, requests, replies) => {}
        _ = tell(write, session, answers) => {}
    }
}

/// Wishes of the client, until it goes.
async fn listen_to(
    mut read: BufReader<OwnedReadHalf>,
    requests: mpsc::Sender<Request>,
    replies: mpsc::Sender<(u64, Reply)>,
) {
    let mut waiting = JoinSet::new();
    loop {
        tokio::select! {
            frame = protocol::read(&mut read) => match frame {
                Ok(Some(FromClient::Request { id, command })) => {
                    let (reply, answer) = oneshot::channel();
                    let _ = requests.send(Request { command, reply }).await;
                    let replies = replies.clone();
                    waiting.spawn(async move {
                        let given_up = || Reply::Refused("error: given up: another command took over, or the supervisor ended\n".into());
                        let reply = answer.await.unwrap_or_else(|_| given_up());
                        let _ = replies.send((id, reply)).await;
                    });
                }
                _ => return,
            },
            Some(_) = waiting.join_next() => {}
        }
    }
}

/// What happens, and outcomes of wishes, until the session ends.
async fn tell(
    mut write: OwnedWriteHalf,
    session: Session,
    mut answers: mpsc::Receiver<(u64, Reply)>,
) -> io::Result<()> {
    let Session { snapshot, mut updates, mut logs, commands: _ } = session;
    protocol::write(&mut write, &FromServer::Hello { version: VERSION, snapshot: Box::new(snapshot) }).await?;
    let mut logs_open = true;
    loop {
        // A reply stands behind the events that led to it, lines before the events that ended them.
        let frame = tokio::select! {
            biased;
            line = logs.recv(), if logs_open => match line {
                Some(line) => FromServer::Log(line),
                None => {
                    logs_open = false;
                    FromServer::LogsEnd
                }
            },
            update = updates.recv() => match update {
                Some(update) => FromServer::Update(update),
                None => break,
            },
            Some((id, reply)) = answers.recv() => FromServer::Reply { id, reply },
        };
        protocol::write(&mut write, &frame).await?;
    }
    // The loop ended; what it answered last is still on its way.
    while let Ok(Some((id, reply))) = tokio::time::timeout(std::time::Duration::from_millis(200), answers.recv()).await
    {
        protocol::write(&mut write, &FromServer::Reply { id, reply }).await?;
    }
    Ok(())
}
