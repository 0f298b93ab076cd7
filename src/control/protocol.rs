//! Frames: one JSON object a line, at most [`LIMIT`] bytes. Each side begins with a hello that names its version.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};

use crate::event::Snapshot;
use crate::session::{Command, LogInterest, LogLine, Reply, Update};

/// Version of the frames. Adding a field is free; changing one adds one here.
pub const VERSION: u32 = 1;

/// Bytes of a frame, its line end included; a longer one ends the connection.
pub const LIMIT: usize = 4 << 20;

/// What a client sends.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromClient {
    /// First, once.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// Which log lines are wanted.
        logs: LogInterest,
    },
    /// A wish, answered under its number.
    Request {
        /// Chosen by the client.
        id: u64,
        /// The wish.
        command: Command,
    },
}

/// What a server sends.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromServer {
    /// First, once.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// The state from which updates go on.
        snapshot: Box<Snapshot>,
    },
    /// What happened.
    Update(Update),
    /// A line of output.
    Log(LogLine),
    /// No lines will come any more.
    LogsEnd,
    /// Outcome of a wish.
    Reply {
        /// The wish's number.
        id: u64,
        /// The outcome.
        reply: Reply,
    },
    /// The client cannot be served.
    Refused {
        /// Why.
        why: String,
    },
}

/// Reads a frame; `None` at the end of the stream.
pub async fn read<T: DeserializeOwned>(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    loop {
        let available = from.fill_buf().await?;
        if available.is_empty() {
            return if line.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(available.len(), |at| at + 1);
        if line.len() + taken > LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame is longer than {LIMIT} bytes")));
        }
        line.extend_from_slice(&available[..taken]);
        from.consume(taken);
        if end.is_some() {
            return serde_json::from_slice(&line).map(Some).map_err(io::Error::from);
        }
    }
}

/// Writes a frame.
pub async fn write<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), frame: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(frame)?;
    line.push(b'\n');
    if line.len() > LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame would be longer than {LIMIT} bytes")));
    }
    to.write_all(&line).await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_text(text: &[u8]) -> io::Result<Option<FromClient>> {
        read(&mut tokio::io::BufReader::new(text)).await
    }

    #[tokio::test]
    async fn a_frame_comes_back_as_it_was_written() {
        let mut wire = Vec::new();
        let command = Command::Kill { services: vec!["web".into()], signal: "SIGHUP".into() };
        write(&mut wire, &FromClient::Request { id: 7, command: command.clone() }).await.unwrap();
        let Some(FromClient::Request { id: 7, command: read }) = read_text(&wire).await.unwrap() else {
            panic!("another frame")
        };
        assert_eq!(read, command);
    }

    #[tokio::test]
    async fn a_stream_that_ends_between_frames_is_no_error_and_within_one_is() {
        assert!(read_text(b"").await.unwrap().is_none());
        assert_eq!(read_text(b"{\"hello\"").await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_frame_without_end_does_not_fill_the_memory() {
        let endless = vec![b'x'; LIMIT + 1];
        assert_eq!(read_text(&endless).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
