//! What a guest writes: bytes in, lines out.
//!
//! A guest never waits for a slow reader longer than the reader needs, and never holds up the host: writers fill a
//! bounded queue and wait while it is full; one pump empties it into the outlet, and beside it into
//! the agent's own standard output and error, where a line that does not fit at once is dropped.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::io::AsyncWrite;
use tokio::sync::Notify;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::attached::{Pipe, Terminals, Written};
use crate::engine::{Outlet, OutputLine, Stream};
use crate::net::agent::Printer;

/// Lines that may wait for the reader.
const QUEUE: usize = 1024;
/// Bytes that they may have together.
const WAITING: usize = 1 << 20;
/// A line longer than this is cut, so that a guest that never ends a line does not fill our memory.
const LINE: usize = 64 * 1024;
/// What a guest may write between two checks of the queue. It can be as many lines as bytes, for each request in flight.
const PERMIT: usize = 8 * 1024;

/// Where the output of one run is gathered. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Output(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Somebody is attached: bytes go there as they are, and our own words with them.
    attached: Option<(Pipe, Terminals)>,
    queue: Mutex<Queue>,
    /// Told when there is something to read, or the end was reached.
    filled: Notify,
    /// Told when there is room again.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<OutputLine>,
    bytes: usize,
    closed: bool,
}

impl Output {
    /// An output without lines.
    pub fn new() -> Self {
        Self::default()
    }

    /// An output for somebody who is attached. No line comes of it.
    pub fn attached(pipe: Pipe, terminals: Terminals) -> Self {
        Self(Arc::new(Shared { attached: Some((pipe, terminals)), ..Shared::default() }))
    }

    /// One of the guest's streams. Each keeps its own unfinished line.
    pub fn writer(&self, stream: Stream) -> Source {
        Source { output: self.clone(), stream }
    }

    /// Adds a line of our own.
    pub fn line(&self, stream: Stream, text: impl Into<String>) {
        self.push(stream, text.into());
    }

    /// Adds a line of the guest's, when there is room for it; a long one is cut.
    pub async fn say(&self, stream: Stream, text: &str) {
        self.room().await;
        let end = (0..=text.len().min(LINE)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.push(stream, text[..end].to_owned());
    }

    /// No more lines come: the pump ends when it has passed on the rest.
    pub fn close(&self) {
        self.lock().closed = true;
        self.0.filled.notify_one();
        if let Some((pipe, _)) = &self.0.attached {
            pipe.close();
        }
    }

    /// Passes lines on until the output is closed. `mirror` is the agent's standard output and error.
    pub async fn pump(self, outlet: Outlet, mirror: Option<(Printer, Printer)>) {
        let mut mirrors = mirror.map(|(stdout, stderr)| (Mirror::new(stdout), Mirror::new(stderr)));
        loop {
            let (line, closed) = {
                let mut queue = self.lock();
                let line = queue.lines.pop_front();
                queue.bytes -= line.as_ref().map_or(0, |line| line.text.len());
                (line, queue.closed)
            };
            let Some(line) = line else {
                if closed {
                    return;
                }
                self.0.filled.notified().await;
                continue;
            };
            self.0.emptied.notify_waiters();
            if let Some((stdout, stderr)) = &mut mirrors {
                match line.stream {
                    Stream::Stdout => stdout.write(&line.text),
                    Stream::Stderr => stderr.write(&line.text),
                }
            }
            outlet.line(line).await;
        }
    }

    fn push(&self, stream: Stream, text: String) {
        if let Some((pipe, _)) = &self.0.attached {
            return pipe.push(stream, Bytes::from(text + "\n"));
        }
        let mut queue = self.lock();
        queue.bytes += text.len();
        queue.lines.push_back(OutputLine { at: Timestamp::now(), stream, text });
        drop(queue);
        self.0.filled.notify_one();
    }

    fn has_room(&self) -> bool {
        let queue = self.lock();
        queue.lines.len() < QUEUE && queue.bytes < WAITING || queue.closed
    }

    async fn room(&self) {
        told(&self.0.emptied, || self.has_room().then_some(())).await;
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().expect("no panic while it is held")
    }
}

/// What `look` finds, which looks again whenever the waiters of `change` are told.
pub(super) async fn told<T>(change: &Notify, look: impl Fn() -> Option<T>) -> T {
    loop {
        let mut changed = pin!(change.notified());
        // Registered before the look, so that no wake-up falls between the two.
        changed.as_mut().enable();
        if let Some(found) = look() {
            return found;
        }
        changed.await;
    }
}

/// Makes streams for a guest's standard output or error.
#[derive(Debug, Clone)]
pub struct Source {
    output: Output,
    stream: Stream,
}

impl IsTerminal for Source {
    fn is_terminal(&self) -> bool {
        self.output.0.attached.as_ref().is_some_and(|(_, terminals)| terminals.of(self.stream))
    }
}

impl StdoutStream for Source {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        match &self.output.0.attached {
            Some((pipe, _)) => Box::new(Written::new(pipe.clone(), self.stream)),
            None => Box::new(Splitter::new(self.clone())),
        }
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        match &self.output.0.attached {
            Some((pipe, _)) => Box::new(Written::new(pipe.clone(), self.stream)),
            None => Box::new(Splitter::new(self.clone())),
        }
    }
}

/// Cuts what is written into lines.
struct Splitter {
    source: Source,
    line: Vec<u8>,
    /// What the guest may write before it has to check again.
    permit: usize,
}

impl Splitter {
    fn new(source: Source) -> Self {
        Self { source, line: Vec::new(), permit: 0 }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.emit();
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() >= LINE {
            self.emit();
        }
    }

    fn emit(&mut self) {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        self.source.output.push(self.source.stream, String::from_utf8_lossy(line).into_owned());
        self.line.clear();
    }
}

/// A last line without an end is a line.
impl Drop for Splitter {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.emit();
        }
    }
}

#[async_trait::async_trait]
impl Pollable for Splitter {
    async fn ready(&mut self) {
        self.source.output.room().await;
    }
}

impl OutputStream for Splitter {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        // Nobody else holds a guest to it, and what it writes unasked would wait here without bounds.
        let Some(left) = self.permit.checked_sub(bytes.len()) else {
            return Err(StreamError::trap("a write without the permit of `check-write`"));
        };
        self.permit = left;
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.permit = if self.source.output.has_room() { PERMIT } else { 0 };
        Ok(self.permit)
    }
}

/// Only what Wasmtime does not ask for through [`OutputStream`] comes this way; it does not wait for room.
impl AsyncWrite for Splitter {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The agent's output, which gets whole lines or none and is never waited for.
struct Mirror {
    to: Printer,
    /// The rest of a line that was written in part: it comes before anything else.
    rest: Vec<u8>,
}

impl Mirror {
    fn new(to: Printer) -> Self {
        Self { to, rest: Vec::new() }
    }

    fn write(&mut self, text: &str) {
        let rest = std::mem::take(&mut self.rest);
        if !self.write_some(rest) {
            return;
        }
        let mut line = Vec::with_capacity(text.len() + 1);
        line.extend_from_slice(text.as_bytes());
        line.push(b'\n');
        let length = line.len();
        if !self.write_some(line) && self.rest.len() == length {
            // Nothing of it went out: the reader is behind, and this line is what it misses.
            self.rest.clear();
        }
    }

    /// Writes what fits, keeps the rest; whether all went out.
    fn write_some(&mut self, mut bytes: Vec<u8>) -> bool {
        while !bytes.is_empty() {
            match self.to.try_write(&bytes) {
                Ok(written) => drop(bytes.drain(..written)),
                Err(_) => {
                    self.rest = bytes;
                    return false;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use tokio::sync::mpsc;

    use super::*;
    use crate::engine::{Attempt, TaggedLine};
    use crate::model::InstanceName;

    fn outlet() -> (Outlet, mpsc::Receiver<TaggedLine>) {
        let (reports, _) = mpsc::channel(1);
        let (lines, received) = mpsc::channel(4);
        (Outlet::new(InstanceName::new("web".into(), 1), Attempt(1), reports, lines, false), received)
    }

    async fn texts(output: Output) -> Vec<(Stream, String)> {
        let (outlet, mut lines) = outlet();
        output.close();
        let read = async {
            let mut texts = Vec::new();
            while let Some(line) = lines.recv().await {
                texts.push((line.line.stream, line.line.text));
            }
            texts
        };
        tokio::join!(output.pump(outlet, None), read).1
    }

    #[tokio::test]
    async fn writes_are_cut_into_lines() {
        let output = Output::new();
        let mut stdout = output.writer(Stream::Stdout).p2_stream();
        let mut stderr = output.writer(Stream::Stderr).p2_stream();
        stdout.check_write().unwrap();
        stderr.check_write().unwrap();
        stdout.write("one\ntw".into()).unwrap();
        stderr.write("bad \u{fe0f}\r\n".into()).unwrap();
        stdout.write("o\n\nlast".into()).unwrap();
        stdout.write(Bytes::from_static(b" \xff")).unwrap();
        drop((stdout, stderr));
        let texts = texts(output).await;
        let of = |stream| texts.iter().filter(|line| line.0 == stream).map(|line| line.1.as_str()).collect::<Vec<_>>();
        assert_eq!(of(Stream::Stdout), ["one", "two", "", "last \u{fffd}"]);
        assert_eq!(of(Stream::Stderr), ["bad \u{fe0f}"]);
    }

    #[tokio::test]
    async fn an_endless_line_is_cut() {
        let output = Output::new();
        let mut stdout = output.writer(Stream::Stdout).p2_stream();
        for _ in 0..3 * LINE / PERMIT {
            assert_eq!(stdout.check_write().unwrap(), PERMIT);
            stdout.write(vec![b'x'; PERMIT].into()).unwrap();
        }
        drop(stdout);
        assert_eq!(texts(output).await.len(), 3);
    }

    #[tokio::test]
    async fn a_flood_fills_no_memory() {
        let output = Output::new();
        let mut stdout = output.writer(Stream::Stdout).p2_stream();
        let mut written = 0;
        while let Ok(permit @ 1..) = stdout.check_write() {
            let mut line = vec![b'x'; permit];
            line[permit - 1] = b'\n';
            stdout.write(line.into()).unwrap();
            written += permit;
        }
        assert!((WAITING..WAITING + 2 * PERMIT).contains(&written), "{written}");
        assert!(stdout.write("x".into()).is_err(), "nothing is taken without a permit");
    }

    #[tokio::test]
    async fn a_writer_waits_while_the_reader_is_behind() {
        let output = Output::new();
        let mut stdout = output.writer(Stream::Stdout).p2_stream();
        for _ in 0..QUEUE {
            stdout.check_write().unwrap();
            stdout.write("x\n".into()).unwrap();
        }
        assert_eq!(stdout.check_write().unwrap(), 0);
        let (outlet, mut lines) = outlet();
        let mut pumps = tokio::task::JoinSet::new();
        pumps.spawn(output.clone().pump(outlet, None));
        lines.recv().await.unwrap();
        stdout.ready().await;
        assert_eq!(stdout.check_write().unwrap(), PERMIT);
        drop(lines);
        output.close();
        pumps.join_next().await.unwrap().unwrap();
    }

    #[test]
    fn a_full_mirror_misses_whole_lines() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let mut mirror = Mirror::new(Printer::Passed(writer));
        for number in 0..30_000 {
            mirror.write(&format!("line {number}"));
        }
        let mut reader = std::fs::File::from(reader);
        let mut text = Vec::new();
        let _ = reader.read_to_end(&mut text);
        mirror.write("after");
        let _ = reader.read_to_end(&mut text);
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.len() > 100 && lines.len() < 30_000, "{}", lines.len());
        assert!(lines[..lines.len() - 1].iter().enumerate().all(|(n, line)| *line == format!("line {n}")), "{lines:?}");
        assert_eq!(lines.last(), Some(&"after"));
    }
}
