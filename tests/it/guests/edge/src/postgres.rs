//! A query over PostgreSQL's own protocol (version 3), with SCRAM-SHA-256 or no password at all.

use std::io::{self, Read, Write};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

/// The rows of a query, their columns joined by `|`.
pub fn query<S: Read + Write>(stream: S, user: &str, password: &str, query: &str) -> io::Result<String> {
    let mut server = Server { stream, incoming: BytesMut::new() };
    let mut out = BytesMut::new();
    frontend::startup_message([("user", user), ("database", user)], &mut out)?;
    server.send(&mut out)?;
    let mut scram: Option<ScramSha256> = None;
    loop {
        match server.next()? {
            Message::AuthenticationSasl(_) => {
                let first = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                frontend::sasl_initial_response(SCRAM_SHA_256, first.message(), &mut out)?;
                scram = Some(first);
                server.send(&mut out)?;
            }
            Message::AuthenticationSaslContinue(body) => {
                let scram = scram.as_mut().ok_or(io::ErrorKind::InvalidData)?;
                scram.update(body.data())?;
                frontend::sasl_response(scram.message(), &mut out)?;
                server.send(&mut out)?;
            }
            Message::AuthenticationSaslFinal(body) => {
                scram.as_mut().ok_or(io::ErrorKind::InvalidData)?.finish(body.data())?;
            }
            Message::ReadyForQuery(_) => break,
            Message::ErrorResponse(body) => return Err(failed(body)),
            _ => {}
        }
    }
    frontend::query(query, &mut out)?;
    server.send(&mut out)?;
    let mut rows = Vec::new();
    loop {
        match server.next()? {
            Message::DataRow(body) => {
                let columns: Vec<String> = body
                    .ranges()
                    .map(|range| Ok(range.map_or("NULL".into(), |range| text(&body.buffer()[range]))))
                    .collect()?;
                rows.push(columns.join("|"));
            }
            Message::ReadyForQuery(_) => return Ok(rows.join("\n")),
            Message::ErrorResponse(body) => return Err(failed(body)),
            _ => {}
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn failed(body: postgres_protocol::message::backend::ErrorResponseBody) -> io::Error {
    let fields: Result<Vec<String>, _> = body.fields().map(|field| Ok(text(field.value_bytes()))).collect();
    io::Error::other(fields.unwrap_or_default().join(" "))
}

struct Server<S> {
    stream: S,
    incoming: BytesMut,
}

impl<S: Read + Write> Server<S> {
    fn send(&mut self, out: &mut BytesMut) -> io::Result<()> {
        self.stream.write_all(&out.split())
    }

    fn next(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = Message::parse(&mut self.incoming)? {
                return Ok(message);
            }
            let mut buffer = [0; 8192];
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.incoming.extend_from_slice(&buffer[..length]),
            }
        }
    }
}
