//! Log lines of several sources in one order of time.
//!
//! A line goes out once no source can bring an earlier one: each source that is still open has a line waiting. While
//! following, a silent source would hold the others back for ever, so there a line goes out at the latest a *window*
//! after it came in. Lines of one source keep their order.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::session::LogLine;

/// Long enough for a line's way through the engine, too short for a person to notice.
pub const WINDOW: Duration = Duration::from_millis(50);

/// Lines that wait for their turn. At most so many of one source: a source ahead of the others is read no further.
const WAITING: usize = 4_096;

/// How long a line waits for earlier ones of other sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Until every source has spoken or ended: exact, for sources that end.
    Endless,
    /// This long: for sources that go on.
    Window(Duration),
}

/// Lines of several sources, to be taken out in one order.
#[derive(Debug)]
pub struct Merger {
    sources: Vec<Source>,
    patience: Patience,
}

#[derive(Debug)]
struct Source {
    /// Each line with the moment it came in.
    waiting: VecDeque<(Instant, LogLine)>,
    open: bool,
}

impl Merger {
    /// A merger for that many sources, numbered from 0.
    pub fn new(sources: usize, patience: Patience) -> Self {
        let source = || Source { waiting: VecDeque::new(), open: true };
        Self { sources: (0..sources).map(|_| source()).collect(), patience }
    }

    /// Whether a source may bring more now.
    pub fn accepts(&self, source: usize) -> bool {
        let source = &self.sources[source];
        source.open && source.waiting.len() < WAITING
    }

    /// Takes a line in.
    pub fn push(&mut self, source: usize, line: LogLine, now: Instant) {
        self.sources[source].waiting.push_back((now, line));
    }

    /// A source has ended.
    pub fn close(&mut self, source: usize) {
        self.sources[source].open = false;
    }

    /// The next line, if its turn has come.
    pub fn pop(&mut self, now: Instant) -> Option<LogLine> {
        let due = match self.patience {
            _ if self.all_spoke() => true,
            Patience::Endless => false,
            // A line that waited long enough takes all earlier ones with it.
            Patience::Window(_) => self.deadline().is_some_and(|deadline| deadline <= now),
        };
        let first = self.sources.iter_mut().filter(|source| !source.waiting.is_empty());
        let first = first.min_by_key(|source| source.waiting.front().map(|(_, line)| line.at))?;
        if due { first.waiting.pop_front().map(|(_, line)| line) } else { None }
    }

    /// When a line is due although a source is silent.
    pub fn deadline(&self) -> Option<Instant> {
        let Patience::Window(window) = self.patience else { return None };
        self.sources.iter().filter_map(|source| source.waiting.front()).map(|(came, _)| *came + window).min()
    }

    /// Whether every source has ended and every line was taken.
    pub fn is_done(&self) -> bool {
        self.sources.iter().all(|source| !source.open && source.waiting.is_empty())
    }

    fn all_spoke(&self) -> bool {
        self.sources.iter().all(|source| !source.open || !source.waiting.is_empty())
    }
}

/// Hands on the lines of `receivers` in one order of time, until all of them have ended.
pub async fn merge(
    mut receivers: Vec<mpsc::Receiver<LogLine>>,
    patience: Patience,
    mut each: impl FnMut(LogLine) -> io::Result<()>,
) -> io::Result<()> {
    let mut merger = Merger::new(receivers.len(), patience);
    while !merger.is_done() {
        let arrival = arrival(&mut receivers, &merger);
        let arrived = match merger.deadline() {
            Some(deadline) => tokio::time::timeout_at(deadline, arrival).await.ok(),
            None => Some(arrival.await),
        };
        match arrived {
            Some((source, Some(line))) => merger.push(source, line, Instant::now()),
            Some((source, None)) => merger.close(source),
            None => {}
        }
        while let Some(line) = merger.pop(Instant::now()) {
            each(line)?;
        }
    }
    Ok(())
}

/// The next line or end of any source that may bring one.
fn arrival<'a>(
    receivers: &'a mut [mpsc::Receiver<LogLine>],
    merger: &'a Merger,
) -> impl Future<Output = (usize, Option<LogLine>)> + use<'a> {
    poll_fn(move |context| {
        for (number, receiver) in receivers.iter_mut().enumerate().filter(|(number, _)| merger.accepts(*number)) {
            if let Poll::Ready(line) = receiver.poll_recv(context) {
                return Poll::Ready((number, line));
            }
        }
        Poll::Pending
    })
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::model::InstanceName;
    use crate::session::LogStream;

    fn line(service: &str, millis: i64) -> LogLine {
        LogLine {
            at: Timestamp::UNIX_EPOCH + SignedDuration::from_millis(millis),
            instance: InstanceName::new(service.into(), 1),
            stream: LogStream::Stdout,
            text: format!("{service}{millis}"),
            dropped: 0,
        }
    }

    async fn merged(receivers: Vec<mpsc::Receiver<LogLine>>, patience: Patience) -> String {
        let mut texts = Vec::new();
        merge(receivers, patience, |line| {
            texts.push(line.text);
            Ok(())
        })
        .await
        .unwrap();
        texts.join(" ")
    }

    #[tokio::test(start_paused = true)]
    async fn sources_that_end_are_merged_exactly() {
        let (slow, slows) = mpsc::channel(8);
        let (fast, fasts) = mpsc::channel(8);
        for millis in [2, 3, 9] {
            fast.send(line("f", millis)).await.unwrap();
        }
        drop(fast);
        let speak_late = async {
            for millis in [1, 3, 4] {
                tokio::time::sleep(Duration::from_secs(60)).await;
                slow.send(line("s", millis)).await.unwrap();
            }
            drop(slow);
        };
        let (text, ()) = tokio::join!(merged(vec![slows, fasts], Patience::Endless), speak_late);
        insta::assert_snapshot!(text, @"s1 f2 s3 f3 s4 f9");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_source_holds_nothing_back_longer_than_the_window() {
        let (silent, silents) = mpsc::channel::<LogLine>(8);
        let (busy, busys) = mpsc::channel(8);
        let begun = Instant::now();
        let speak = async {
            busy.send(line("b", 5)).await.unwrap();
            tokio::time::sleep(WINDOW / 2).await;
            silent.send(line("s", 4)).await.unwrap();
            tokio::time::sleep(WINDOW * 4).await;
            // Too late for its place: shown, not lost.
            silent.send(line("s", 1)).await.unwrap();
            drop((silent, busy));
        };
        let mut shown = Vec::new();
        let show = merge(vec![silents, busys], Patience::Window(WINDOW), |line| {
            shown.push(format!("{}@{}", line.text, begun.elapsed().as_millis()));
            Ok(())
        });
        let (result, ()) = tokio::join!(show, speak);
        result.unwrap();
        insta::assert_snapshot!(shown.join(" "), @"s4@25 b5@50 s1@225");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_neither_lost_nor_kept() {
        let (flood, floods) = mpsc::channel(16);
        let (_silent, silents) = mpsc::channel::<LogLine>(1);
        let mut count = 0u64;
        let show = merge(vec![floods, silents], Patience::Window(WINDOW), |_| {
            count += 1;
            if count == 20_000 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
        });
        let speak = async {
            for millis in 0.. {
                if flood.send(line("f", millis)).await.is_err() {
                    break;
                }
            }
        };
        let (shown, ()) = tokio::join!(show, speak);
        assert_eq!(shown.unwrap_err().kind(), io::ErrorKind::BrokenPipe, "a reader that goes away ends it");
    }

    #[test]
    fn lines_of_one_source_keep_their_order() {
        let now = Instant::now();
        let mut merger = Merger::new(1, Patience::Endless);
        for (text, millis) in [("first", 2), ("second", 1)] {
            merger.push(0, LogLine { text: text.into(), ..line("a", millis) }, now);
        }
        let texts: Vec<String> = std::iter::from_fn(|| merger.pop(now)).map(|line| line.text).collect();
        assert_eq!(texts, ["first", "second"]);
        assert!(!merger.is_done());
        merger.close(0);
        assert!(merger.is_done());
    }
}
