//! The few commands of Redis that `wasi:keyvalue` needs, over connections of the guest's own network.
//!
//! The protocol is RESP2. A connection whose exchange did not come to its end is dropped, never used again. Sizes that the
//! server names are bounded before anything is reserved for them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::sync::Semaphore;

use super::keyvalue::Fault;
use crate::model::RedisAddress;
use crate::net::stack::{NetError, Route, Stack, Stream};

/// How long one exchange may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections of one instance.
const CONNECTIONS: usize = 16;
/// Largest value that is taken.
const VALUE: usize = 64 << 20;
/// Most elements of an answer.
const ELEMENTS: usize = 100_000;
/// Longest line of an answer.
const LINE: u64 = 4096;
/// Keys that a scan looks at for one answer.
const SCAN: &str = "500";

/// A Redis that an instance reaches.
#[derive(Debug)]
pub struct Redis {
    address: RedisAddress,
    stack: Stack,
    idle: Mutex<Vec<BufStream<Stream>>>,
    permits: Semaphore,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Simple(String),
    Number(i64),
    Bulk(Vec<u8>),
    List(Vec<Reply>),
    Null,
    Error(String),
}

impl Redis {
    /// A store behind an address; nothing is connected yet.
    pub fn new(address: RedisAddress, stack: Stack) -> Self {
        Self { address, stack, idle: Mutex::default(), permits: Semaphore::new(CONNECTIONS) }
    }

    /// The values of some keys.
    pub async fn get(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        match self.ask("MGET", keys.iter().map(String::as_bytes)).await? {
            Reply::List(values) if values.len() == keys.len() => Ok(values
                .into_iter()
                .map(|value| match value {
                    Reply::Bulk(value) => Some(value),
                    _ => None,
                })
                .collect()),
            other => Err(unexpected(&other)),
        }
    }

    /// Sets all at once.
    pub async fn set(&self, pairs: Vec<(String, Vec<u8>)>) -> Result<(), Fault> {
        if pairs.is_empty() {
            return Ok(());
        }
        let words = pairs.iter().flat_map(|(key, value)| [key.as_bytes(), value.as_slice()]);
        self.ask("MSET", words).await.map(drop)
    }

    /// Removes keys.
    pub async fn delete(&self, keys: &[String]) -> Result<(), Fault> {
        if keys.is_empty() {
            return Ok(());
        }
        self.ask("DEL", keys.iter().map(String::as_bytes)).await.map(drop)
    }

    /// Whether a key is there.
    pub async fn exists(&self, key: &str) -> Result<bool, Fault> {
        Ok(self.ask("EXISTS", [key.as_bytes()]).await? == Reply::Number(1))
    }

    /// Some keys that begin so, and where to go on.
    pub async fn keys(&self, prefix: &str, cursor: u64) -> Result<(Vec<String>, Option<u64>), Fault> {
        let (cursor, pattern) = (cursor.to_string(), format!("{}*", literal(prefix)));
        let words = [cursor.as_bytes(), b"MATCH", pattern.as_bytes(), b"COUNT", SCAN.as_bytes()];
        let answer = self.ask("SCAN", words).await?;
        let Reply::List(parts) = &answer else { return Err(unexpected(&answer)) };
        let [Reply::Bulk(next), Reply::List(keys)] = parts.as_slice() else { return Err(unexpected(&answer)) };
        let next = std::str::from_utf8(next).ok().and_then(|next| next.parse::<u64>().ok());
        let next = next.ok_or_else(|| unexpected(&answer))?;
        let text = |key: &Reply| match key {
            // A key that is no text was not written through this interface, and cannot be told by it.
            Reply::Bulk(key) => String::from_utf8(key.clone()).ok(),
            _ => None,
        };
        Ok((keys.iter().filter_map(text).collect(), (next != 0).then_some(next)))
    }

    /// Adds to a number.
    pub async fn increment(&self, key: &str, delta: u64) -> Result<u64, Fault> {
        let delta = delta.to_string();
        let answer = self.ask("INCRBY", [key.as_bytes(), delta.as_bytes()]).await?;
        match answer {
            Reply::Number(number) => {
                u64::try_from(number).map_err(|_| Fault::Other(format!("the number is below zero: {number}")))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn ask<'a>(&self, command: &'a str, words: impl IntoIterator<Item = &'a [u8]>) -> Result<Reply, Fault> {
        let words: Vec<&[u8]> = std::iter::once(command.as_bytes()).chain(words).collect();
        let request = encoded(&words);
        let _permit = self.permits.acquire().await.expect("it is never closed");
        let exchange = async {
            if let Some(mut connection) = self.take() {
                match exchange(&mut connection, &request).await {
                    Ok(reply) => return Ok((connection, reply)),
                    // The server closed it while it was idle: what was asked did not arrive.
                    Err(error) if is_closed(&error) => {}
                    Err(error) => return Err(self.failed(&error)),
                }
            }
            let mut connection = self.connect().await?;
            let reply = exchange(&mut connection, &request).await.map_err(|error| self.failed(&error))?;
            Ok((connection, reply))
        };
        let (connection, reply) = tokio::time::timeout(PATIENCE, exchange)
            .await
            .map_err(|_| self.failed(&io::Error::from(io::ErrorKind::TimedOut)))??;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        match reply {
            Reply::Error(text) => Err(self.failed(&io::Error::other(text))),
            reply => Ok(reply),
        }
    }

    fn take(&self) -> Option<BufStream<Stream>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn connect(&self) -> Result<BufStream<Stream>, Fault> {
        let RedisAddress { host, port, user, password, database } = &self.address;
        let conn = match self.stack.route(host, *port).await {
            Ok(Route::Conn(conn)) => conn,
            Ok(Route::Inside(..)) => return Err(self.failed(&io::Error::other("it speaks HTTP"))),
            Err(NetError::Refused(_)) => return Err(Fault::AccessDenied),
            Err(NetError::UnknownName) => return Err(self.failed(&io::Error::other("there is no such name"))),
            Err(NetError::Io(error)) => return Err(self.failed(&error)),
        };
        let mut connection = BufStream::new(conn.io);
        let number = database.to_string();
        let mut steps: Vec<Vec<&[u8]>> = Vec::new();
        if let Some(password) = password {
            let user = user.as_deref().map(str::as_bytes);
            steps.push([b"AUTH".as_slice()].into_iter().chain(user).chain([password.as_bytes()]).collect());
        }
        if *database != 0 {
            steps.push(vec![b"SELECT", number.as_bytes()]);
        }
        for step in steps {
            match exchange(&mut connection, &encoded(&step)).await {
                Ok(Reply::Error(text)) => return Err(self.failed(&io::Error::other(text))),
                Ok(_) => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Ok(connection)
    }

    fn failed(&self, error: &io::Error) -> Fault {
        Fault::Other(format!("redis at {}:{}: {error}", self.address.host, self.address.port))
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    // An end at the very start of an answer; in the middle of one it is `InvalidData`.
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | io::ErrorKind::UnexpectedEof)
}

fn unexpected(reply: &Reply) -> Fault {
    let kind = match reply {
        Reply::Simple(_) => "a word",
        Reply::Number(_) => "a number",
        Reply::Bulk(_) => "a value",
        Reply::List(_) => "a list",
        Reply::Null => "nothing",
        Reply::Error(text) => text,
    };
    Fault::Other(format!("redis answered with what was not asked for: {kind}"))
}

/// A prefix as a pattern that stands for itself.
fn literal(prefix: &str) -> String {
    let mut pattern = String::new();
    for letter in prefix.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

fn encoded(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

async fn exchange(connection: &mut BufStream<Stream>, request: &[u8]) -> io::Result<Reply> {
    connection.write_all(request).await?;
    connection.flush().await?;
    let mut first = true;
    reply(connection, &mut first, 0).await
}

/// Reads an answer. `first` is true until a byte of it came.
fn reply<'a>(
    connection: &'a mut BufStream<Stream>,
    first: &'a mut bool,
    depth: u8,
) -> Pin<Box<dyn Future<Output = io::Result<Reply>> + Send + 'a>> {
    Box::pin(async move {
        let mut line = Vec::new();
        (&mut *connection).take(LINE).read_until(b'\n', &mut line).await?;
        if line.is_empty() && *first {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *first = false;
        let text = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
        let (kind, rest) = text.and_then(|text| text.split_at_checked(1)).ok_or_else(|| broken("a line"))?;
        let size = |most: usize| match rest.parse::<i64>() {
            Ok(-1) => Ok(None),
            Ok(size) => {
                usize::try_from(size).ok().filter(|size| *size <= most).map(Some).ok_or_else(|| broken("a size"))
            }
            Err(_) => Err(broken("a size")),
        };
        Ok(match kind {
            "+" => Reply::Simple(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Number(rest.parse().map_err(|_| broken("a number"))?),
            "$" => match size(VALUE)? {
                None => Reply::Null,
                Some(size) => {
                    let mut value = Vec::new();
                    (&mut *connection).take(size as u64 + 2).read_to_end(&mut value).await?;
                    if value.len() != size + 2 {
                        return Err(broken("a value"));
                    }
                    value.truncate(size);
                    Reply::Bulk(value)
                }
            },
            "*" if depth < 4 => match size(ELEMENTS)? {
                None => Reply::Null,
                Some(size) => {
                    let mut list = Vec::new();
                    for _ in 0..size {
                        list.push(reply(connection, first, depth + 1).await?);
                    }
                    Reply::List(list)
                }
            },
            _ => return Err(broken("a kind")),
        })
    })
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("its answer is not in the protocol ({what})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(answer: &[u8]) -> io::Result<Reply> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        theirs.write_all(answer).await.unwrap();
        drop(theirs);
        reply(&mut BufStream::new(Stream::Inside(ours)), &mut true, 0).await
    }

    #[tokio::test]
    async fn answers_of_all_kinds_are_read() {
        assert_eq!(read(b"+OK\r\n").await.unwrap(), Reply::Simple("OK".into()));
        assert_eq!(read(b"-ERR no\r\n").await.unwrap(), Reply::Error("ERR no".into()));
        assert_eq!(read(b"$-1\r\n").await.unwrap(), Reply::Null);
        assert_eq!(
            read(b"*3\r\n$2\r\na\n\r\n:7\r\n*0\r\n").await.unwrap(),
            Reply::List(vec![Reply::Bulk(b"a\n".to_vec()), Reply::Number(7), Reply::List(Vec::new())])
        );
    }

    #[tokio::test]
    async fn what_is_no_answer_is_an_error() {
        let nested = b"*1\r\n".repeat(100);
        for wrong in
            [&b"x\r\n"[..], b"$5\r\nab", b"$99999999999\r\n", b"*999999999\r\n", b"$-2\r\n", b"+OK", b"\r\n", &nested]
        {
            assert_eq!(read(wrong).await.unwrap_err().kind(), io::ErrorKind::InvalidData, "{}", wrong.escape_ascii());
        }
        assert_eq!(read(b"").await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn requests_and_patterns_are_literal() {
        assert_eq!(encoded(&[b"GET", b"a\r\n"]), b"*2\r\n$3\r\nGET\r\n$3\r\na\r\n\r\n");
        assert_eq!(literal("a*[b]:"), "a\\*\\[b\\]:");
    }
}
