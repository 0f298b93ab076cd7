//! Streams of a guest that somebody is attached to: bytes as they are, both ways, instead of lines for the log.
//!
//! Both directions are bounded. A guest that writes faster than it is read waits; one that is not read any more writes
//! into nothing. What nobody has read of its input yet stays with whoever sends it.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, mpsc};
use wasmtime_wasi::cli::{AsyncStdinStream, IsTerminal, StdinStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::output::told;
use crate::engine::Stream;

/// Bytes that may wait for the reader.
const WAITING: usize = 256 * 1024;
/// What a guest may write between two checks of the room.
const PERMIT: usize = 64 * 1024;

/// What somebody holds of the streams of a guest.
pub struct Ends {
    /// What the guest reads; absent means that its input is closed.
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    /// What the guest wrote goes here.
    pub output: Pipe,
    /// Which of the streams are a terminal, as the guest is told.
    pub terminals: Terminals,
}

/// Which streams are a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terminals {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

impl Terminals {
    /// Of one of the written streams.
    pub fn of(self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }
}

/// What a guest wrote, on its way to a reader. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Pipe(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Told when there is something to read, or the end was reached.
    filled: Notify,
    /// Told when there is room again.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<(Stream, Bytes)>,
    bytes: usize,
    /// Nothing more is written.
    closed: bool,
    /// Nobody reads any more.
    unread: bool,
}

impl Pipe {
    /// The next piece; nothing when all was read and no more comes. Cancelling loses none.
    pub async fn next(&self) -> Option<(Stream, Bytes)> {
        let piece = told(&self.0.filled, || {
            let mut queue = self.lock();
            match queue.chunks.pop_front() {
                Some((stream, bytes)) => {
                    queue.bytes -= bytes.len();
                    Some(Some((stream, bytes)))
                }
                None => queue.closed.then_some(None),
            }
        });
        let piece = piece.await;
        self.0.emptied.notify_waiters();
        piece
    }

    /// Nobody reads any more: what is written is gone, and no writer waits.
    pub fn leave(&self) {
        let mut queue = self.lock();
        queue.unread = true;
        queue.chunks.clear();
        queue.bytes = 0;
        drop(queue);
        self.0.emptied.notify_waiters();
    }

    /// Nothing more is written: the reader gets the rest, then the end.
    pub fn close(&self) {
        self.lock().closed = true;
        self.0.filled.notify_waiters();
    }

    /// Adds what was written. Who writes much asks for room first.
    pub fn push(&self, stream: Stream, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let mut queue = self.lock();
        if !queue.unread {
            queue.bytes += bytes.len();
            queue.chunks.push_back((stream, bytes));
        }
        drop(queue);
        self.0.filled.notify_waiters();
    }

    fn has_room(&self) -> bool {
        let queue = self.lock();
        queue.bytes < WAITING || queue.unread
    }

    async fn room(&self) {
        told(&self.0.emptied, || self.has_room().then_some(())).await;
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().expect("no panic while it is held")
    }
}

/// A guest's end of one of its written streams.
pub struct Written {
    pipe: Pipe,
    stream: Stream,
    /// What is left of the last permit.
    permit: usize,
    /// Until there is room again.
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl Written {
    /// What is written to it goes into `pipe`.
    pub fn new(pipe: Pipe, stream: Stream) -> Self {
        Self { pipe, stream, permit: 0, waiting: None }
    }
}

#[async_trait::async_trait]
impl Pollable for Written {
    async fn ready(&mut self) {
        self.pipe.room().await;
    }
}

impl OutputStream for Written {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let Some(left) = self.permit.checked_sub(bytes.len()) else {
            return Err(StreamError::trap("a write without the permit of `check-write`"));
        };
        self.permit = left;
        self.pipe.push(self.stream, bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.permit = if self.pipe.has_room() { PERMIT } else { 0 };
        Ok(self.permit)
    }
}

/// How guests of WASI 0.3 write.
impl AsyncWrite for Written {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        while !this.pipe.has_room() {
            let pipe = this.pipe.clone();
            let waiting = this.waiting.get_or_insert_with(|| Box::pin(async move { pipe.room().await }));
            std::task::ready!(waiting.as_mut().poll(cx));
            this.waiting = None;
        }
        let length = bytes.len().min(PERMIT);
        this.pipe.push(this.stream, Bytes::copy_from_slice(&bytes[..length]));
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A guest's standard input. Cheap to clone: all are one stream.
#[derive(Clone)]
pub struct Stdin {
    stream: Arc<AsyncStdinStream>,
    terminal: bool,
}

impl Stdin {
    /// What arrives at `incoming`, to its end.
    pub fn new(incoming: mpsc::Receiver<Bytes>, terminal: bool) -> Self {
        let stream = AsyncStdinStream::new(Incoming { incoming, rest: Bytes::new() });
        Self { stream: Arc::new(stream), terminal }
    }
}

impl IsTerminal for Stdin {
    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

impl StdinStream for Stdin {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        self.stream.async_stream()
    }

    fn p2_stream(&self) -> Box<dyn wasmtime_wasi::p2::InputStream> {
        self.stream.p2_stream()
    }
}

struct Incoming {
    incoming: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl AsyncRead for Incoming {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match std::task::ready!(self.incoming.poll_recv(cx)) {
                Some(bytes) => self.rest = bytes,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_writes_faster_than_it_is_read_waits_and_nothing_is_lost() {
        let pipe = Pipe::default();
        let mut written = Written::new(pipe.clone(), Stream::Stdout);
        let mut sent = 0;
        while written.check_write().unwrap() > 0 {
            written.write(Bytes::from(vec![7; PERMIT])).unwrap();
            sent += PERMIT;
        }
        assert!(sent <= WAITING + PERMIT);
        assert!(written.ready().now_or_never().is_none());
        let mut got = pipe.next().await.unwrap().1.len();
        assert!(written.ready().now_or_never().is_some());
        pipe.close();
        while let Some((_, bytes)) = pipe.next().await {
            got += bytes.len();
        }
        assert_eq!(got, sent);
    }

    #[tokio::test]
    async fn a_writer_nobody_reads_does_not_wait() {
        let pipe = Pipe::default();
        pipe.push(Stream::Stderr, Bytes::from(vec![0; WAITING]));
        let mut written = Written::new(pipe.clone(), Stream::Stderr);
        assert!(written.ready().now_or_never().is_none());
        pipe.leave();
        assert!(written.ready().now_or_never().is_some());
    }
}
