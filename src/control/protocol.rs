//! What travels over the control socket: one JSON value a line, at most [`LIMIT`] bytes.
//!
//! The law of the first frames: the client says [`FromClient::Hello`], the server answers [`FromServer::Hello`] or
//! [`FromServer::Refused`]; then comes the snapshot, and only then everything else.
//!
//! A connection whose first frame is [`FromClient::Errand`] carries an errand's streams instead, in frames of their own:
//! [`Upstream`] and [`Downstream`]. Input may run ahead of its reader by [`WINDOW`] bytes and no more, so that the server
//! always reads on and a signal is never stuck behind input; output waits in the socket, which carries nothing else.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};

use crate::event::Snapshot;
use crate::session::stream::{Ending, Errand};
use crate::session::{Command, LogInterest, LogLine, LogStream, Reply, Update};

/// Version of the frames. Adding a field is free; changing one adds one here.
pub const VERSION: u32 = 1;

/// Longest frame, its line end included: room for a request with a large environment, or a snapshot of many instances.
pub const LIMIT: usize = 4 << 20;

/// Longest text of a log line that is handed on whole: even when every byte of it is escaped, the frame stays below [`LIMIT`].
const LINE_LIMIT: usize = LIMIT / 8;

/// What a client says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromClient {
    /// The first frame.
    Hello {
        /// [`VERSION`] of the client.
        version: u32,
        /// Log lines it wants.
        #[serde(default)]
        logs: LogInterest,
    },
    /// The first frame of a connection for an errand.
    Errand {
        /// [`VERSION`] of the client.
        version: u32,
        /// What is to be done.
        errand: Errand,
    },
    /// A wish.
    Request {
        /// Named again in the reply; chosen by the client.
        number: u64,
        /// What is wished.
        command: Command,
    },
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromServer {
    /// The first frame.
    Hello {
        /// [`VERSION`] of the server.
        version: u32,
    },
    /// No session: text for people. The connection ends.
    Refused(String),
    /// The state when the session began.
    Snapshot(Box<Snapshot>),
    /// What happened since.
    Update(Update),
    /// A log line.
    Log(LogLine),
    /// No log lines any more.
    LogsEnded,
    /// Outcome of a request; without one, the supervisor ended before it was carried out.
    Reply {
        /// The request's number.
        number: u64,
        /// Its outcome.
        reply: Option<Reply>,
    },
    /// The supervisor ended as it was meant to. The connection ends.
    Ended,
}

/// Bytes of input that may be sent before any of it was taken.
pub const WINDOW: usize = 256 * 1024;

/// Longest piece of input or output in one frame.
pub const PIECE: usize = 32 * 1024;

/// What a client says on an errand's connection, after the first frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upstream {
    /// Some input, within the window.
    Input(Piece),
    /// There is no more input.
    InputEnded,
    /// A signal, by name.
    Signal(String),
}

/// What a server says on an errand's connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Downstream {
    /// Some output.
    Output {
        /// Which.
        stream: LogStream,
        /// The bytes.
        bytes: Piece,
    },
    /// So many bytes of input were taken: as many more may be sent.
    Taken(usize),
    /// It is over. The connection ends.
    Ended(Ending),
}

/// Bytes, as base64 in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece(pub Bytes);

impl Serialize for Piece {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Piece {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(|bytes| Self(bytes.into())).map_err(serde::de::Error::custom)
    }
}

/// A frame as it is sent; one that would be too long is [`io::ErrorKind::InvalidData`].
pub fn encode(frame: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(frame)?;
    bytes.push(b'\n');
    if bytes.len() > LIMIT {
        return Err(too_long(bytes.len()));
    }
    Ok(bytes)
}

/// Sends a frame.
pub async fn send(writer: &mut (impl AsyncWrite + Unpin), frame: &impl Serialize) -> io::Result<()> {
    writer.write_all(&encode(frame)?).await
}

/// Cuts a log line that would not fit into a frame.
pub fn fit(mut line: LogLine) -> LogLine {
    if line.text.len() > LINE_LIMIT {
        let end = (0..=LINE_LIMIT).rev().find(|at| line.text.is_char_boundary(*at)).unwrap_or(0);
        line.text.truncate(end);
        line.text.push('…');
    }
    line
}

/// Frames as they arrive.
#[derive(Debug)]
pub struct Frames<R> {
    reader: R,
    partial: Vec<u8>,
}

impl<R: AsyncBufRead + Unpin> Frames<R> {
    /// The frames of a connection.
    pub fn new(reader: R) -> Self {
        Self { reader, partial: Vec::new() }
    }

    /// The next frame; absent at the end. What has arrived of a frame stays when this is dropped before it ends.
    pub async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            let bytes = self.reader.fill_buf().await?;
            if bytes.is_empty() {
                return if self.partial.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(bytes.len(), |at| at + 1);
            if self.partial.len() + taken > LIMIT {
                return Err(too_long(self.partial.len() + taken));
            }
            self.partial.extend_from_slice(&bytes[..taken]);
            self.reader.consume(taken);
            if end.is_some() {
                let frame = serde_json::from_slice(&self.partial);
                self.partial.clear();
                return frame.map(Some).map_err(io::Error::from);
            }
        }
    }
}

fn too_long(length: usize) -> io::Error {
    let message = format!("a frame of {length} bytes or more is longer than {LIMIT} bytes");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use tokio::io::{BufReader, duplex};

    use super::*;

    fn frames(bytes: &[u8]) -> Frames<&[u8]> {
        Frames::new(bytes)
    }

    #[tokio::test]
    async fn frames_read_as_they_were_sent() {
        let hello = FromClient::Hello { version: VERSION, logs: LogInterest::default() };
        let stop =
            FromClient::Request { number: 7, command: Command::Stop { services: vec!["a".into()], timeout: None } };
        let bytes = [encode(&hello).unwrap(), encode(&stop).unwrap()].concat();
        insta::assert_snapshot!(String::from_utf8(bytes.clone()).unwrap(), @r#"
        {"hello":{"version":1,"logs":{"mode":"off","services":[],"tail":null,"since":null,"until":null}}}
        {"request":{"number":7,"command":{"stop":{"services":["a"],"timeout":null}}}}
        "#);
        let mut frames = frames(&bytes);
        assert_eq!(frames.next().await.unwrap(), Some(hello));
        assert_eq!(frames.next().await.unwrap(), Some(stop));
        assert_eq!(frames.next::<FromClient>().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_frame_survives_a_reader_that_gives_up_waiting() {
        let (mut near, far) = duplex(64);
        let mut frames = Frames::new(BufReader::new(far));
        let bytes = encode(&FromServer::LogsEnded).unwrap();
        near.write_all(&bytes[..5]).await.unwrap();
        tokio::select! {
            biased;
            frame = frames.next::<FromServer>() => panic!("{frame:?} is not whole yet"),
            () = tokio::task::yield_now() => {}
        }
        near.write_all(&bytes[5..]).await.unwrap();
        assert_eq!(frames.next().await.unwrap(), Some(FromServer::LogsEnded));
    }

    #[tokio::test]
    async fn too_long_broken_and_foreign_frames_are_errors() {
        let long = vec![b' '; LIMIT + 1];
        assert_eq!(frames(&long).next::<FromClient>().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(frames(b"{\"he").next::<FromClient>().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(frames(b"GET / HTTP/1.1\n").next::<FromClient>().await.is_err());
        assert!(encode(&"x".repeat(LIMIT)).is_err());
    }

    #[test]
    fn the_longest_line_fits_into_a_frame() {
        let line = LogLine {
            at: jiff::Timestamp::UNIX_EPOCH,
            instance: crate::model::InstanceName::new("a".into(), 1),
            stream: crate::session::LogStream::Stdout,
            text: "\u{1}".repeat(LIMIT),
            dropped: 0,
        };
        assert!(encode(&FromServer::Log(fit(line))).is_ok());
    }
}
