//! Errands over the control socket: a connection of its own for each, so that none holds up a session or another errand.
//! Both sides are here, since they keep one law of how much may be under way.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::client::{dial, failed};
use super::protocol::{self, Downstream, Frames, FromClient, PIECE, Piece, Upstream, VERSION, WINDOW};
use crate::session::stream::{Ending, Ends, Errand, Open, Said, pair};

/// Opens an errand with a project's supervisor; `None` when none runs. It lives until its last word, or until `signals`
/// of the ends is dropped.
pub async fn open(path: &Path, errand: Errand) -> io::Result<Option<Ends>> {
    let Some(stream) = dial(path).await? else { return Ok(None) };
    let (reader, mut writer) = stream.into_split();
    protocol::send(&mut writer, &FromClient::Errand { version: VERSION, errand: errand.clone() })
        .await
        .map_err(|error| failed(path, error))?;
    let (ends, open) = pair(errand);
    #[expect(clippy::disallowed_methods, reason = "the errand's channels own the task: it ends when they do")]
    tokio::spawn(carry(Frames::new(BufReader::new(reader)), writer, open));
    Ok(Some(ends))
}

/// The client's side of a connection.
async fn carry(mut frames: Frames<BufReader<OwnedReadHalf>>, mut writer: OwnedWriteHalf, open: Open) {
    let Open { mut input, mut signals, said, .. } = open;
    let (mut room, mut input_open, mut heard) = (WINDOW, true, true);
    let mut waiting = Bytes::new();
    loop {
        // Where the other side listens no more, its last word may be under way.
        let can_send = !waiting.is_empty() && room > 0 && heard;
        tokio::select! {
            frame = frames.next() => match frame {
                Ok(Some(Downstream::Output { stream, bytes })) => {
                    // Where nobody listens any more, `signals` is closed as well.
                    let _ = said.send(Said::Output(stream, bytes.0)).await;
                }
                Ok(Some(Downstream::Taken(bytes))) => room = room.saturating_add(bytes).min(WINDOW),
                Ok(Some(Downstream::Ended(ending))) => {
                    let _ = said.send(Said::Ended(ending)).await;
                    return;
                }
                // The end without a last word tells it.
                Ok(None) | Err(_) => return,
            },
            signal = signals.recv() => match signal {
                Some(signal) => heard &= protocol::send(&mut writer, &Upstream::Signal(signal)).await.is_ok(),
                None => return,
            },
            () = std::future::ready(()), if can_send => {
                let piece = waiting.split_to(waiting.len().min(room).min(PIECE));
                room -= piece.len();
                heard &= protocol::send(&mut writer, &Upstream::Input(Piece(piece))).await.is_ok();
            }
            bytes = input.recv(), if waiting.is_empty() && input_open => match bytes {
                Some(bytes) => waiting = bytes,
                None => {
                    input_open = false;
                    heard &= protocol::send(&mut writer, &Upstream::InputEnded).await.is_ok();
                }
            },
        }
    }
}

/// The server's side of a connection, once its first frame was read.
pub(super) async fn serve(
    mut frames: Frames<BufReader<OwnedReadHalf>>,
    mut writer: impl AsyncWrite + Unpin,
    errand: Errand,
    errands: mpsc::Sender<Open>,
) -> io::Result<()> {
    let (ends, open) = pair(errand);
    if errands.send(open).await.is_err() {
        let message = "the supervisor is ending".to_owned();
        protocol::send(&mut writer, &Downstream::Ended(Ending::Refused { message, hint: None })).await?;
        return writer.flush().await;
    }
    drop(errands);
    let Ends { input, signals, mut said } = ends;
    let (taken, mut to_tell) = mpsc::channel(64);
    // Reading goes on while output waits for its reader, and the other way round.
    let listen = async {
        let mut input = Some(input);
        let mut queue: VecDeque<Bytes> = VecDeque::new();
        let (mut queued, mut ended) = (0, false);
        loop {
            if ended && queue.is_empty() {
                input = None;
            }
            let waits = !queue.is_empty();
            let reader = input.clone();
            let room = async move {
                match reader {
                    Some(reader) if waits => reader.reserve_owned().await.ok(),
                    Some(_) | None => std::future::pending().await,
                }
            };
            tokio::select! {
                frame = frames.next() => match frame? {
                    Some(Upstream::Input(Piece(bytes))) if !ended => {
                        queued += bytes.len();
                        if queued > WINDOW {
                            return Err(io::Error::new(io::ErrorKind::InvalidData, "input beyond the window"));
                        }
                        if input.is_some() {
                            queue.push_back(bytes);
                        }
                    }
                    Some(Upstream::Input(_)) => {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "input after its end"));
                    }
                    Some(Upstream::InputEnded) => ended = true,
                    Some(Upstream::Signal(signal)) => drop(signals.send(signal).await),
                    // It hung up: the ends are dropped here, and the errand sees it.
                    None => return Ok(()),
                },
                permit = room => {
                    let bytes = queue.pop_front().unwrap_or_default();
                    let length = bytes.len();
                    match permit {
                        Some(permit) => {
                            drop(permit.send(bytes));
                            queued -= length;
                            let _ = taken.send(length).await;
                        }
                        // Nobody reads it: the window stays shut.
                        None => {
                            queue.clear();
                            input = None;
                        }
                    }
                }
            }
        }
    };
    let tell = async {
        loop {
            let frame = tokio::select! {
                word = said.recv() => match word {
                    Some(Said::Output(stream, mut bytes)) => {
                        while bytes.len() > PIECE {
                            let piece = Piece(bytes.split_to(PIECE));
                            protocol::send(&mut writer, &Downstream::Output { stream, bytes: piece }).await?;
                        }
                        Downstream::Output { stream, bytes: Piece(bytes) }
                    }
                    Some(Said::Ended(ending)) => Downstream::Ended(ending),
                    None => return writer.flush().await,
                },
                Some(bytes) = to_tell.recv() => Downstream::Taken(bytes),
            };
            let over = matches!(frame, Downstream::Ended(_));
            protocol::send(&mut writer, &frame).await?;
            writer.flush().await?;
            if over {
                return Ok(());
            }
        }
    };
    tokio::select! {
        result = listen => result,
        result = tell => result,
    }
}
