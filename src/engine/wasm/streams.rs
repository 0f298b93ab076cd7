//! The two streams of a connection as guests want them: never blocking, ready when polled. `wasi:io` sees them through
//! Wasmtime's traits, preview 1 sockets through their own methods.
//!
//! Both share the connection under a lock that is held for one system call at a time. A write that the connection does not take
//! at once is finished by a task of its own, because a guest may turn to something else before it asks again.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use wasmtime_wasi::p2::bindings::sockets::network::ErrorCode;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use crate::net::stack::Stream;

/// Most bytes one read or write moves.
pub const CHUNK: usize = 64 * 1024;
/// What a wait for data takes in, to know that there is some.
const PEEK: usize = 16 * 1024;
/// How long a write goes on after the guest let go of the connection.
const LINGER: Duration = Duration::from_secs(5);

/// A connection that two streams and their socket share.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Halves>>);

struct Halves {
    stream: Stream,
    reading: Half,
    writing: Half,
    /// A write waits for the connection to take the rest of it.
    unfinished: bool,
}

/// One direction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Open,
    /// To be ended once the write under way is out.
    Closing,
    /// Ended, by the peer or by `shutdown`.
    Closed,
}

impl Shared {
    /// Takes over a connection.
    pub fn new(stream: Stream) -> Self {
        Self(Arc::new(Mutex::new(Halves { stream, reading: Half::Open, writing: Half::Open, unfinished: false })))
    }

    /// Its two streams.
    pub fn split(&self) -> (Reader, Writer) {
        (
            Reader { shared: self.clone(), ahead: BytesMut::new(), failed: None },
            Writer { shared: self.clone(), state: Writing::Ready },
        )
    }

    /// Closes directions. What was written before still goes out.
    pub fn shutdown(&self, how: Shutdown) {
        let mut halves = self.lock();
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            halves.reading = Half::Closed;
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) && halves.writing == Half::Open {
            halves.writing = Half::Closing;
            halves.close_writing();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Halves> {
        self.0.lock().expect("no panic while it is held")
    }

    /// Reads up to `most` bytes; an empty answer is the end.
    pub fn poll_read(&self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<BytesMut>> {
        let mut halves = self.lock();
        if halves.reading == Half::Closed {
            return Poll::Ready(Ok(BytesMut::new()));
        }
        let mut bytes = BytesMut::zeroed(most);
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut halves.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => {
                let read = buffer.filled().len();
                if read == 0 {
                    halves.reading = Half::Closed;
                }
                bytes.truncate(read);
                Poll::Ready(result.map(|()| bytes))
            }
        }
    }

    /// Writes some of it, at least a byte.
    pub fn poll_write_some(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut halves = self.lock();
        if halves.writing != Half::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match Pin::new(&mut halves.stream).poll_write(cx, bytes) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            other => other,
        }
    }

    /// Writes what the connection takes; ready when all of it went out.
    fn poll_write(&self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
        let mut halves = self.lock();
        halves.unfinished = false;
        while bytes.has_remaining() {
            match Pin::new(&mut halves.stream).poll_write(cx, bytes) {
                Poll::Pending => {
                    halves.unfinished = true;
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Poll::Ready(Ok(written)) => bytes.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        halves.close_writing();
        Poll::Ready(Ok(()))
    }
}

impl Halves {
    /// Tells the peer the end, if that is wanted and nothing comes before it.
    fn close_writing(&mut self) {
        if self.writing == Half::Closing && !self.unfinished {
            self.writing = Half::Closed;
            let _ = Pin::new(&mut self.stream).poll_shutdown(&mut noop());
        }
    }
}

/// The incoming stream.
pub struct Reader {
    shared: Shared,
    /// Read while waiting for data, not asked for yet.
    ahead: BytesMut,
    failed: Option<io::Error>,
}

impl Reader {
    /// Ready when there is something to take: data, the end or an error.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.ahead.is_empty() || self.failed.is_some() {
            return Poll::Ready(());
        }
        match std::task::ready!(self.shared.poll_read(cx, PEEK)) {
            Ok(bytes) => self.ahead = bytes,
            Err(error) => self.failed = Some(error),
        }
        Poll::Ready(())
    }

    /// What was read while waiting, and is not taken yet.
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Takes up to `most` bytes, at least one; an empty answer is the end.
    pub fn poll_take(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Bytes>> {
        if !self.ahead.is_empty() {
            let length = most.min(self.ahead.len());
            return Poll::Ready(Ok(self.ahead.split_to(length).freeze()));
        }
        if let Some(error) = self.failed.take() {
            self.shared.lock().reading = Half::Closed;
            return Poll::Ready(Err(error));
        }
        self.shared.poll_read(cx, most.min(CHUNK)).map_ok(BytesMut::freeze)
    }
}

#[async_trait::async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await;
    }
}

impl InputStream for Reader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        match self.poll_take(&mut noop(), size) {
            Poll::Pending => Ok(Bytes::new()),
            Poll::Ready(Ok(bytes)) if bytes.is_empty() => Err(StreamError::Closed),
            Poll::Ready(Ok(bytes)) => Ok(bytes),
            Poll::Ready(Err(error)) => Err(failed(error)),
        }
    }
}

/// The outgoing stream.
pub struct Writer {
    shared: Shared,
    state: Writing,
}

enum Writing {
    Ready,
    /// A task finishes what the connection did not take at once.
    Busy(JoinHandle<io::Result<()>>),
    Failed(Option<io::Error>),
}

impl Writer {
    /// Ready when nothing is left of the last write.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Writing::Busy(task) = &mut self.state {
            match Pin::new(task).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Ok(()))) => self.state = Writing::Ready,
                Poll::Ready(Ok(Err(error))) => self.state = Writing::Failed(Some(error)),
                Poll::Ready(Err(lost)) => self.state = Writing::Failed(Some(io::Error::other(lost))),
            }
        }
        Poll::Ready(())
    }

    /// Takes over bytes, once the stream is ready; what the connection does not take at once follows by itself.
    pub fn send(&mut self, mut bytes: Bytes) -> io::Result<()> {
        self.check()?;
        match self.shared.poll_write(&mut noop(), &mut bytes) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => {
                self.state = Writing::Failed(None);
                return Err(error);
            }
            Poll::Pending => {
                let shared = self.shared.clone();
                let rest = async move { std::future::poll_fn(|cx| shared.poll_write(cx, &mut bytes)).await };
                self.state = Writing::Busy(Handle::current().spawn(rest));
            }
        }
        Ok(())
    }

    fn check(&mut self) -> io::Result<()> {
        if let Writing::Failed(error) = &mut self.state {
            return Err(error.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()));
        }
        if self.shared.lock().writing != Half::Open {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await;
    }
}

#[async_trait::async_trait]
impl OutputStream for Writer {
    fn check_write(&mut self) -> StreamResult<usize> {
        if self.poll_ready(&mut noop()).is_pending() {
            return Ok(0);
        }
        self.check().map_err(failed)?;
        Ok(CHUNK)
    }

    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if self.poll_ready(&mut noop()).is_pending() || bytes.len() > CHUNK {
            return Err(StreamError::trap("a write without the permit of `check-write`"));
        }
        self.send(bytes).map_err(failed)
    }

    /// Nothing is held back.
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    async fn cancel(&mut self) {
        self.ready().await;
    }
}

/// What the guest wrote goes out although it let go of the stream, if the peer reads it soon.
impl Drop for Writer {
    fn drop(&mut self) {
        if let Writing::Busy(task) = std::mem::replace(&mut self.state, Writing::Ready)
            && let Ok(runtime) = Handle::try_current()
        {
            let abort = task.abort_handle();
            drop(runtime.spawn(async move {
                if tokio::time::timeout(LINGER, task).await.is_err() {
                    abort.abort();
                }
            }));
        }
    }
}

fn failed(error: io::Error) -> StreamError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return StreamError::Closed;
    }
    StreamError::LastOperationFailed(ErrorCode::from(&error).into())
}

fn noop() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair(size: usize) -> (Shared, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(size);
        (Shared::new(Stream::Inside(ours)), theirs)
    }

    #[tokio::test]
    async fn reads_come_in_order_and_end() {
        let (shared, mut peer) = pair(1024);
        let (mut reader, _writer) = shared.split();
        assert!(reader.read(10).unwrap().is_empty(), "nothing is there yet");
        peer.write_all(b"hello world").await.unwrap();
        reader.ready().await;
        assert_eq!(reader.read(5).unwrap(), "hello");
        assert_eq!(reader.read(100).unwrap(), " world");
        drop(peer);
        reader.ready().await;
        assert!(matches!(reader.read(1), Err(StreamError::Closed)));
    }

    #[tokio::test]
    async fn a_write_goes_on_while_the_guest_does_something_else() {
        let (shared, mut peer) = pair(16);
        let (_reader, mut writer) = shared.split();
        let sent: Bytes = (0..10_000).map(|n| n as u8).collect();
        assert_eq!(writer.check_write().unwrap(), CHUNK);
        writer.write(sent.clone()).unwrap();
        assert_eq!(writer.check_write().unwrap(), 0);
        let mut got = vec![0; sent.len()];
        peer.read_exact(&mut got).await.unwrap();
        assert_eq!(got, sent);
        writer.ready().await;
        assert_eq!(writer.check_write().unwrap(), CHUNK);
    }

    #[tokio::test]
    async fn what_was_written_arrives_after_the_streams_are_gone() {
        let (shared, mut peer) = pair(16);
        let (reader, mut writer) = shared.split();
        writer.write(Bytes::from_static(&[7; 1000])).unwrap();
        drop((shared, reader, writer));
        let mut got = Vec::new();
        peer.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, [7; 1000]);
    }

    #[tokio::test]
    async fn shutdown_of_writing_is_the_peers_end() {
        let (shared, mut peer) = pair(1024);
        let (mut reader, mut writer) = shared.split();
        writer.write("bye".into()).unwrap();
        shared.shutdown(Shutdown::Write);
        assert!(matches!(writer.check_write(), Err(StreamError::Closed)));
        let mut got = String::new();
        peer.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "bye");
        peer.write_all(b"answer").await.unwrap();
        reader.ready().await;
        assert_eq!(reader.read(100).unwrap(), "answer");
    }

    #[tokio::test]
    async fn shutdown_waits_for_the_write_before_it() {
        let (shared, mut peer) = pair(16);
        let (_reader, mut writer) = shared.split();
        writer.write(Bytes::from_static(&[7; 1000])).unwrap();
        shared.shutdown(Shutdown::Write);
        let mut got = Vec::new();
        peer.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, [7; 1000]);
    }

    #[tokio::test]
    async fn a_write_to_a_closed_peer_fails() {
        let (shared, peer) = pair(16);
        let (_reader, mut writer) = shared.split();
        drop(peer);
        assert!(writer.write("x".into()).is_err());
        assert!(matches!(writer.check_write(), Err(StreamError::Closed)));
    }
}
