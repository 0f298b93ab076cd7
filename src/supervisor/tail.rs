//! Log lines: kept, and handed to sessions. Beside the loop that decides, so that a slow disk delays no decision and a flood of lines no stop.
//!
//! A session first gets the kept lines, then the live ones, without a gap or a repeat: both are cut at the same point in this task's order.
//! A session that does not keep up loses its oldest waiting lines and is told how many; nobody else notices.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::hub::any;
use super::logs::{Backlog, Cap, LogStore};
use crate::engine::{Stream, TaggedLine};
use crate::model::InstanceName;
use crate::session::{LogInterest, LogLine, LogMode, LogStream};

/// Lines that wait for a session besides those in its channel.
const RING: usize = 8192;
/// Lines taken from instances at a time.
const BATCH: usize = 512;

/// What the loop tells the log task.
#[derive(Debug)]
pub(super) enum Notice {
    /// An instance is about to start; its lines are kept, or its engine keeps them.
    Known { instance: InstanceName, keep: Option<Cap> },
    /// An instance is gone, and its kept lines with it.
    Forget { instance: InstanceName },
    /// A session wants lines.
    Attach { interest: LogInterest, lines: mpsc::Sender<LogLine> },
}

/// The log task of a supervisor.
pub(super) struct Tail {
    folder: Option<PathBuf>,
    store: Option<LogStore>,
    kept: BTreeMap<InstanceName, Cap>,
    readers: BTreeMap<u64, Reader>,
    attached: u64,
    backlogs: JoinSet<u64>,
    warnings: mpsc::Sender<String>,
}

struct Reader {
    interest: LogInterest,
    lines: mpsc::Sender<LogLine>,
    waiting: VecDeque<LogLine>,
    dropped: u64,
    /// Kept lines are still on their way: live ones wait.
    behind: bool,
}

impl Tail {
    /// A log task that keeps lines in this folder; without one, none are kept.
    pub(super) fn new(folder: Option<PathBuf>, warnings: mpsc::Sender<String>) -> Self {
        Self {
            folder,
            store: None,
            kept: BTreeMap::new(),
            readers: BTreeMap::new(),
            attached: 0,
            backlogs: JoinSet::new(),
            warnings,
        }
    }

    /// Until nobody can send lines any more and all readers have theirs.
    pub(super) async fn run(
        mut self,
        mut notices: mpsc::UnboundedReceiver<Notice>,
        mut lines: mpsc::Receiver<TaggedLine>,
    ) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                Some(notice) = notices.recv() => self.notice(notice),
                Some(Ok(reader)) = self.backlogs.join_next() => self.caught_up(reader),
                () = any(self.readers.values().filter_map(Reader::writable).collect()) => {}
                taken = lines.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        break;
                    }
                    self.take(batch.drain(..));
                }
            }
            self.readers.retain(|_, reader| reader.pump());
        }
        // Whoever asked for live lines has the last of them before the channel closes.
        loop {
            self.readers.retain(|_, reader| reader.pump() && (reader.behind || !reader.waiting.is_empty()));
            if self.readers.is_empty() && self.backlogs.is_empty() {
                break;
            }
            tokio::select! {
                Some(Ok(reader)) = self.backlogs.join_next() => self.caught_up(reader),
                () = any(self.readers.values().filter_map(Reader::writable).collect()) => {}
            }
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Known { instance, keep } => {
                match keep {
                    Some(cap) => self.kept.insert(instance, cap),
                    None => self.kept.remove(&instance),
                };
            }
            Notice::Forget { instance } => match (&mut self.store, &self.folder) {
                (Some(store), _) => store.forget(&instance),
                (None, Some(folder)) => super::logs::forget(folder, &instance),
                (None, None) => {}
            },
            Notice::Attach { interest, lines } => self.attach(interest, lines),
        }
    }

    fn attach(&mut self, interest: LogInterest, lines: mpsc::Sender<LogLine>) {
        if interest.mode == LogMode::Off {
            return;
        }
        self.attached += 1;
        let id = self.attached;
        if let Some(folder) = &self.folder {
            let backlog = Backlog::open(folder, &interest);
            let lines = lines.clone();
            self.backlogs.spawn(async move {
                hand_over(backlog, lines).await;
                id
            });
        }
        let behind = self.folder.is_some();
        if interest.mode == LogMode::Follow {
            self.readers.insert(id, Reader { interest, lines, waiting: VecDeque::new(), dropped: 0, behind });
        }
    }

    fn caught_up(&mut self, reader: u64) {
        if let Some(reader) = self.readers.get_mut(&reader) {
            reader.behind = false;
        }
    }

    fn take(&mut self, batch: impl Iterator<Item = TaggedLine>) {
        for TaggedLine { instance, line } in batch {
            let stream = match line.stream {
                Stream::Stdout => LogStream::Stdout,
                Stream::Stderr => LogStream::Stderr,
            };
            let line = LogLine { at: line.at, instance, stream, text: line.text, dropped: 0 };
            if let Err(error) = self.keep(&line) {
                self.stop_keeping(&error);
            }
            for reader in self.readers.values_mut() {
                reader.offer(&line);
            }
        }
        // What readers of the files see is as new as what sessions see.
        if let Some(Err(error)) = self.store.as_mut().map(LogStore::flush) {
            self.stop_keeping(&error);
        }
    }

    fn keep(&mut self, line: &LogLine) -> std::io::Result<()> {
        let (Some(folder), Some(cap)) = (&self.folder, self.kept.get(&line.instance)) else { return Ok(()) };
        let store = match &mut self.store {
            Some(store) => store,
            None => self.store.insert(LogStore::open(folder)?),
        };
        store.append(line, *cap)
    }

    fn stop_keeping(&mut self, error: &std::io::Error) {
        if let Some(folder) = self.folder.take() {
            let _ = self
                .warnings
                .try_send(format!("log lines are not kept any more: writing to {}: {error}", folder.display()));
        }
        self.store = None;
    }
}

impl Reader {
    /// Takes a live line, in place of the oldest waiting one where there are too many.
    fn offer(&mut self, line: &LogLine) {
        let LogInterest { services, until, .. } = &self.interest;
        let wanted = services.is_empty() || services.contains(&line.instance.service);
        if !wanted || until.is_some_and(|until| line.at > until) {
            return;
        }
        if self.waiting.len() == RING {
            self.dropped += 1 + self.waiting.pop_front().map_or(0, |oldest| oldest.dropped);
        }
        self.waiting.push_back(line.clone());
    }

    /// Sends what fits; false when the session is gone.
    fn pump(&mut self) -> bool {
        while !self.behind && !self.waiting.is_empty() {
            match self.lines.try_reserve() {
                Ok(permit) => {
                    if let Some(mut line) = self.waiting.pop_front() {
                        line.dropped += std::mem::take(&mut self.dropped);
                        permit.send(line);
                    }
                }
                Err(mpsc::error::TrySendError::Full(())) => break,
                Err(mpsc::error::TrySendError::Closed(())) => return false,
            }
        }
        !self.lines.is_closed()
    }

    /// Ready when there is room for lines that wait.
    fn writable(&self) -> Option<impl Future + Unpin> {
        (!self.behind && !self.waiting.is_empty()).then(|| Box::pin(self.lines.reserve()))
    }
}

/// Sends kept lines as fast as the session takes them; files are read where blocking is allowed.
async fn hand_over(mut backlog: Backlog, lines: mpsc::Sender<LogLine>) {
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let chunk: Vec<LogLine> = backlog.by_ref().take(BATCH).collect();
            (backlog, chunk)
        });
        let Ok((rest, chunk)) = read.await else { return };
        backlog = rest;
        if chunk.is_empty() {
            return;
        }
        for line in chunk {
            if lines.send(line).await.is_err() {
                return;
            }
        }
    }
}
