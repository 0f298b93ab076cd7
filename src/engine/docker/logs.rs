//! A container's output as lines, in order, none lost and none twice, over restarts of the container and of the stream.
//!
//! Lines are read from the engine's log with the engine's own times: what was written before we looked is there as well. After a
//! break, reading goes on at the last time seen, and a [`Cursor`] drops what was told already. Output whose log the engine does not
//! keep (driver `none`) is read by attaching, which must happen before the start.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker as Client;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::{AttachContainerOptionsBuilder, LogsOptionsBuilder};
use futures_util::{Stream as Items, StreamExt};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::container::find;
use super::events::{Events, nanos};
use crate::engine::{Outlet, OutputLine, Stream};

/// A longer line is cut into several: a container must not make us hold all it writes.
const LONGEST_LINE: usize = 256 * 1024;

/// Output of an attached container.
pub(super) type Attached = Pin<Box<dyn Items<Item = Result<LogOutput, Error>> + Send>>;

/// How a container's output is read.
pub(super) enum Source {
    /// From the engine's log.
    Log(Cursor),
    /// From the container itself, attached before its first run.
    Attached(Attached),
}

/// Follows one container, run after run.
pub(super) struct Follower {
    pub(super) client: Client,
    pub(super) events: Arc<Events>,
    pub(super) id: String,
    pub(super) outlet: Outlet,
    /// Counts the container's runs.
    pub(super) runs: watch::Receiver<u64>,
    /// The last run whose output was told in full.
    pub(super) drained: watch::Sender<u64>,
}

impl Follower {
    /// Ends when nobody counts runs any more.
    pub(super) async fn follow(mut self, source: Source) {
        match source {
            Source::Log(cursor) => self.follow_log(cursor).await,
            Source::Attached(output) => self.follow_attached(output).await,
        }
    }

    async fn follow_log(&mut self, mut cursor: Cursor) {
        loop {
            let run = *self.runs.borrow_and_update();
            let followed = self.read(&mut cursor, true).await;
            // Following may end with the container before its last lines are in the log.
            let rest = self.read(&mut cursor, false).await;
            self.drained.send_replace(run);
            match find(&self.client, &self.id).await {
                Ok(None) => return,
                Ok(Some(found)) => {
                    let running = found.state.and_then(|state| state.running).unwrap_or(false);
                    let whole = followed.is_ok() && rest.is_ok();
                    if !running && whole && self.runs.changed().await.is_err() {
                        return;
                    }
                    if running || !whole {
                        sleep(Duration::from_millis(100)).await;
                    }
                }
                Err(_) => sleep(Duration::from_secs(1)).await,
            }
            if self.runs.has_changed().is_err() {
                return;
            }
        }
    }

    /// One pass over the log from where the cursor stands.
    async fn read(&self, cursor: &mut Cursor, follow: bool) -> Result<(), Error> {
        let options = LogsOptionsBuilder::default()
            .follow(follow)
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .since(cursor.since())
            .tail("all")
            .build();
        let mut output = Box::pin(self.client.logs(&self.id, Some(options)));
        let mut assembler = Assembler::default();
        cursor.rewind();
        while let Some(part) = output.next().await {
            let (stream, bytes) = split(part?);
            let (at, text) = stamp(&bytes);
            for line in assembler.push(stream, at.unwrap_or_else(|| self.events.now()), text) {
                self.tell(cursor, line).await;
            }
        }
        for line in assembler.finish() {
            self.tell(cursor, line).await;
        }
        Ok(())
    }

    async fn tell(&self, cursor: &mut Cursor, line: OutputLine) {
        if cursor.accepts(line.stream, nanos(line.at)) {
            self.outlet.line(line).await;
        }
    }

    async fn follow_attached(&mut self, mut output: Attached) {
        loop {
            let run = *self.runs.borrow_and_update();
            let mut assembler = Assembler::default();
            while let Some(Ok(part)) = output.next().await {
                let (stream, bytes) = split(part);
                for line in assembler.push(stream, self.events.now(), &bytes) {
                    self.outlet.line(line).await;
                }
            }
            for line in assembler.finish() {
                self.outlet.line(line).await;
            }
            self.drained.send_replace(run);
            if self.runs.changed().await.is_err() {
                return;
            }
            match attach(&self.client, &self.id).await {
                Ok(again) => output = again,
                Err(_) => return,
            }
        }
    }
}

/// The container's output from now on.
pub(super) async fn attach(client: &Client, id: &str) -> Result<Attached, Error> {
    let options = AttachContainerOptionsBuilder::default().stream(true).stdout(true).stderr(true).build();
    Ok(client.attach_container(id, Some(options)).await?.output)
}

/// Which kept output of a container is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// At most so many of the last lines.
    pub tail: Option<usize>,
    /// Not older.
    pub since: Option<Timestamp>,
    /// Not younger.
    pub until: Option<Timestamp>,
    /// Go on with what comes, until the container ends.
    pub follow: bool,
}

/// The output that the engine kept of a container, in order; with `follow` also what comes.
pub(super) fn kept(client: Client, id: String, wanted: Wanted) -> mpsc::Receiver<OutputLine> {
    let (lines, receiver) = mpsc::channel(256);
    let options = LogsOptionsBuilder::default()
        .follow(wanted.follow)
        .stdout(true)
        .stderr(true)
        .timestamps(true)
        .since(wanted.since.map_or(0, seconds))
        .until(wanted.until.map_or(0, |until| seconds(until).saturating_add(1)))
        .tail(&wanted.tail.map_or_else(|| "all".to_owned(), |tail| tail.to_string()))
        .build();
    let within = move |at: Timestamp| {
        wanted.since.is_none_or(|since| at >= since) && wanted.until.is_none_or(|until| at <= until)
    };
    let pump = async move {
        let mut output = Box::pin(client.logs(&id, Some(options)));
        let mut assembler = Assembler::default();
        // A driver without a readable log ends this at once: there is nothing to show.
        while let Some(Ok(part)) = output.next().await {
            let (stream, bytes) = split(part);
            let (at, text) = stamp(&bytes);
            for line in assembler.push(stream, at.unwrap_or_else(Timestamp::now), text) {
                if within(line.at) && lines.send(line).await.is_err() {
                    return;
                }
            }
        }
        for line in assembler.finish().filter(|line| within(line.at)) {
            let _ = lines.send(line).await;
        }
    };
    #[expect(clippy::disallowed_methods, reason = "ends with its reader: the channel closes")]
    tokio::spawn(pump);
    receiver
}

fn seconds(at: Timestamp) -> i32 {
    i32::try_from(at.as_second()).unwrap_or(i32::MAX)
}

/// How far a container's log was told. Each stream is ordered by time; the two together are only nearly so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    stdout: Mark,
    stderr: Mark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// Time of the last line told.
    at: i64,
    /// Lines told with exactly that time.
    told: usize,
    /// Of those, the ones that are yet to come by again in this pass.
    again: usize,
}

impl Cursor {
    /// Nothing before this time is told.
    pub(super) fn from(at: Timestamp) -> Self {
        let mark = Mark { at: nanos(at), told: 0, again: 0 };
        Self { stdout: mark, stderr: mark }
    }

    /// Everything is told.
    pub(super) fn from_beginning() -> Self {
        Self::from(Timestamp::UNIX_EPOCH)
    }

    /// Where to read on, in whole seconds, one early: the streams are written to the log side by side.
    fn since(&self) -> i32 {
        let last = self.stdout.at.max(self.stderr.at) / 1_000_000_000;
        i32::try_from((last - 1).max(0)).unwrap_or(0)
    }

    fn rewind(&mut self) {
        for mark in [&mut self.stdout, &mut self.stderr] {
            mark.again = mark.told;
        }
    }

    fn accepts(&mut self, stream: Stream, at: i64) -> bool {
        let mark = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if at < mark.at {
            return false;
        }
        if at == mark.at {
            if mark.again > 0 {
                mark.again -= 1;
                return false;
            }
            mark.told += 1;
        } else {
            *mark = Mark { at, told: 1, again: 0 };
        }
        true
    }
}

/// Puts lines together from what arrives in parts.
#[derive(Debug, Default)]
struct Assembler {
    stdout: Option<(Timestamp, Vec<u8>)>,
    stderr: Option<(Timestamp, Vec<u8>)>,
}

impl Assembler {
    fn push(&mut self, stream: Stream, at: Timestamp, bytes: &[u8]) -> Vec<OutputLine> {
        let open = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (begun, text) = open.get_or_insert_with(|| (at, Vec::new()));
            text.extend_from_slice(piece);
            if piece.ends_with(b"\n") || text.len() >= LONGEST_LINE {
                lines.push(line(stream, *begun, text));
                *open = None;
            }
        }
        lines
    }

    /// Lines that never got their end.
    fn finish(self) -> impl Iterator<Item = OutputLine> {
        let lines = [(Stream::Stdout, self.stdout), (Stream::Stderr, self.stderr)];
        lines.into_iter().filter_map(|(stream, open)| open.map(|(at, text)| line(stream, at, &text)))
    }
}

fn line(stream: Stream, at: Timestamp, bytes: &[u8]) -> OutputLine {
    let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    OutputLine { at, stream, text: String::from_utf8_lossy(text).into_owned() }
}

fn split(part: LogOutput) -> (Stream, bytes::Bytes) {
    match part {
        LogOutput::StdErr { message } => (Stream::Stderr, message),
        LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message } => {
            (Stream::Stdout, message)
        }
    }
}

/// Takes the engine's time off the front of a part.
fn stamp(bytes: &[u8]) -> (Option<Timestamp>, &[u8]) {
    let Some(space) = bytes.iter().take(40).position(|byte| *byte == b' ') else { return (None, bytes) };
    let time = std::str::from_utf8(&bytes[..space]).ok().and_then(|text| text.parse().ok());
    match time {
        Some(time) => (Some(time), &bytes[space + 1..]),
        None => (None, bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: i64) -> Timestamp {
        super::super::events::timestamp(nanos)
    }

    #[test]
    fn a_second_pass_tells_only_what_is_new() {
        let mut cursor = Cursor::from_beginning();
        let first: Vec<(Stream, i64)> =
            vec![(Stream::Stdout, 10), (Stream::Stderr, 9), (Stream::Stdout, 10), (Stream::Stderr, 11)];
        cursor.rewind();
        for (stream, at) in &first {
            assert!(cursor.accepts(*stream, *at), "{stream:?} {at} is told the first time");
        }
        cursor.rewind();
        for (stream, at) in &first {
            assert!(!cursor.accepts(*stream, *at), "{stream:?} {at} is not told again");
        }
        assert!(cursor.accepts(Stream::Stdout, 10), "a third line of the same time is new");
        assert!(cursor.accepts(Stream::Stderr, 12));
    }

    #[test]
    fn reading_goes_on_a_second_early() {
        assert_eq!(Cursor::from_beginning().since(), 0);
        assert_eq!(Cursor::from(at(5_900_000_000)).since(), 4);
    }

    #[test]
    fn parts_become_lines() {
        let mut assembler = Assembler::default();
        let texts = |lines: Vec<OutputLine>| lines.into_iter().map(|line| line.text).collect::<Vec<_>>();
        assert_eq!(texts(assembler.push(Stream::Stdout, at(1), b"a\nb")), ["a"]);
        assert_eq!(texts(assembler.push(Stream::Stderr, at(2), b"e\r\n")), ["e"]);
        assert_eq!(texts(assembler.push(Stream::Stdout, at(3), b"c\n\nd")), ["bc", ""]);
        let rest: Vec<OutputLine> = assembler.finish().collect();
        assert_eq!(rest.len(), 1);
        assert_eq!((rest[0].text.as_str(), rest[0].at), ("d", at(3)));
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut assembler = Assembler::default();
        let lines = assembler.push(Stream::Stdout, at(1), &vec![b'x'; LONGEST_LINE]);
        assert_eq!(lines.len(), 1);
    }

    #[test]
    fn the_engines_time_is_taken_off() {
        let (time, rest) = stamp(b"2026-11-23T20:00:00.000000001Z hello world\n");
        assert_eq!(time.unwrap().subsec_nanosecond(), 1);
        assert_eq!(rest, b"hello world\n");
        assert_eq!(stamp(b"no time here").0, None);
    }
}
