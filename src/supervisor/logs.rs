//! Kept output of one project's Wasm instances: JSON lines, a file for each instance, capped in size and rotated.
//! Reading needs no supervisor: `logs` reads the files of a project that is dead.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{InstanceName, Logging, ServiceName};
use crate::session::{LogInterest, LogLine, LogStream};

/// How much is kept of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// Bytes a file may have before the next begins.
    pub size: u64,
    /// Files kept, the one being written included.
    pub files: u32,
}

impl Default for Cap {
    fn default() -> Self {
        Self { size: 10 << 20, files: 3 }
    }
}

impl Cap {
    /// `logging.options` of a service: `max-size`, `max-file`; what does not parse is left at its default.
    pub fn of(logging: Option<&Logging>) -> Self {
        let default = Self::default();
        let Some(options) = logging.map(|logging| &logging.options) else { return default };
        Self {
            size: options.get("max-size").and_then(|size| bytes(size)).unwrap_or(default.size),
            files: options.get("max-file").and_then(|files| files.parse().ok()).unwrap_or(default.files).max(1),
        }
    }
}

/// Sizes as the engine reads them: `10m`, `512k`, `1g`, plain bytes.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches('b').trim_end_matches(['k', 'm', 'g']);
    let shift = match lower.trim_end_matches('b').chars().last()? {
        'k' => 10,
        'm' => 20,
        'g' => 30,
        _ => 0,
    };
    number.trim().parse::<u64>().ok().filter(|size| *size > 0)?.checked_shl(shift)
}

/// One line of a file.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    time: Timestamp,
    stream: LogStream,
    text: String,
}

/// The files of one project, open for writing.
#[derive(Debug)]
pub struct LogStore {
    folder: PathBuf,
    writers: BTreeMap<InstanceName, Writer>,
}

#[derive(Debug)]
struct Writer {
    file: BufWriter<File>,
    size: u64,
    cap: Cap,
}

impl LogStore {
    /// A store in a folder, which is made (0700) when it is not there.
    pub fn open(folder: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self { folder: folder.to_owned(), writers: BTreeMap::new() })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps a line, after [`LogStore::flush`] also for readers of the files. `cap` counts when the instance's file is opened.
    pub fn append(&mut self, line: &LogLine, cap: Cap) -> io::Result<()> {
        let record = Record { time: line.at, stream: line.stream, text: line.text.clone() };
        let mut text = serde_json::to_vec(&record)?;
        text.push(b'\n');
        let path = path(&self.folder, &line.instance, 0);
        let writer = match self.writers.remove(&line.instance) {
            Some(writer) => writer,
            None => Writer::open(&path, cap)?,
        };
        let mut writer = if writer.size > 0 && writer.size + text.len() as u64 > writer.cap.size {
            self.rotate(&line.instance, writer)?
        } else {
            writer
        };
        writer.file.write_all(&text)?;
        writer.size += text.len() as u64;
        self.writers.insert(line.instance.clone(), writer);
        Ok(())
    }

    /// Hands everything kept so far to the files.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writers.values_mut().try_for_each(|writer| writer.file.flush())
    }

    /// Removes an instance's files: it is gone.
    pub fn forget(&mut self, instance: &InstanceName) {
        self.writers.remove(instance);
        forget(&self.folder, instance);
    }

    fn rotate(&self, instance: &InstanceName, mut full: Writer) -> io::Result<Writer> {
        full.file.flush()?;
        let last = full.cap.files - 1;
        if last == 0 {
            fs::remove_file(path(&self.folder, instance, 0))?;
        }
        for number in (0..last).rev() {
            match fs::rename(path(&self.folder, instance, number), path(&self.folder, instance, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Writer::open(&path(&self.folder, instance, 0), full.cap)
    }
}

impl Writer {
    /// A line that a killed supervisor left unfinished is ended, so that it cannot spoil the next.
    fn open(path: &Path, cap: Cap) -> io::Result<Self> {
        use std::os::unix::fs::{FileExt, OpenOptionsExt};
        let file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
        let size = file.metadata()?.len();
        let mut writer = Self { file: BufWriter::new(file), size, cap };
        let mut last = [0];
        if size > 0 && writer.file.get_ref().read_at(&mut last, size - 1)? == 1 && last != [b'\n'] {
            writer.file.write_all(b"\n")?;
            writer.size += 1;
        }
        Ok(writer)
    }
}

/// Removes the files of an instance that is gone. Works without a supervisor.
pub fn forget(folder: &Path, instance: &InstanceName) {
    for number in 0.. {
        if fs::remove_file(path(folder, instance, number)).is_err() {
            break;
        }
    }
}

/// `<instance>.log`, older ones `<instance>.log.1`, ….
fn path(folder: &Path, instance: &InstanceName, number: u32) -> PathBuf {
    folder.join(match number {
        0 => format!("{instance}.log"),
        _ => format!("{instance}.log.{number}"),
    })
}

/// Lines kept so far of the services asked for, in one order of time; nothing where nothing was kept.
pub fn read(folder: &Path, interest: &LogInterest) -> impl Iterator<Item = LogLine> + use<> {
    Backlog::open(folder, interest)
}

/// Kept lines at one moment: what is written later does not show, and rotation takes nothing away.
#[derive(Debug)]
pub struct Backlog {
    sources: Vec<Source>,
    /// The next line of each source, the earliest on top; equal times in the order of the sources.
    heads: BinaryHeap<Reverse<Head>>,
    /// Until the first line is asked for, files are only open.
    begun: bool,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    at: Timestamp,
    source: usize,
    stderr: bool,
    text: String,
}

#[derive(Debug)]
struct Source {
    instance: InstanceName,
    files: VecDeque<io::Take<BufReader<File>>>,
    /// At most so many.
    count: Option<usize>,
    /// Where only the last lines are wanted: those.
    tail: Option<VecDeque<Vec<u8>>>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Backlog {
    /// Opens the files of the services asked for. A file that cannot be opened is left out.
    pub fn open(folder: &Path, interest: &LogInterest) -> Self {
        let mut backlog = Self { sources: Vec::new(), heads: BinaryHeap::new(), begun: false };
        for instance in instances(folder, &interest.services) {
            let mut files = VecDeque::new();
            let mut opened = Vec::new();
            for number in 0.. {
                let Ok(file) = File::open(path(folder, &instance, number)) else { break };
                let Ok(metadata) = file.metadata() else { break };
                // A writer that rotates meanwhile shows the same file again under its next name.
                if !opened.contains(&metadata.ino()) {
                    opened.push(metadata.ino());
                    files.push_front(BufReader::new(file).take(metadata.len()));
                }
            }
            let (count, since, until) = (interest.tail, interest.since, interest.until);
            backlog.sources.push(Source { instance, files, count, tail: None, since, until });
        }
        backlog
    }

    fn begin(&mut self) {
        self.begun = true;
        for index in 0..self.sources.len() {
            self.sources[index].keep_last();
            self.refill(index);
        }
    }

    fn refill(&mut self, source: usize) {
        if let Some(record) = self.sources[source].next() {
            let stderr = record.stream == LogStream::Stderr;
            self.heads.push(Reverse(Head { at: record.time, source, stderr, text: record.text }));
        }
    }
}

impl Iterator for Backlog {
    type Item = LogLine;

    fn next(&mut self) -> Option<LogLine> {
        if !self.begun {
            self.begin();
        }
        let Reverse(Head { at, source, stderr, text }) = self.heads.pop()?;
        self.refill(source);
        let stream = if stderr { LogStream::Stderr } else { LogStream::Stdout };
        Some(LogLine { at, instance: self.sources[source].instance.clone(), stream, text, dropped: 0 })
    }
}

impl Source {
    fn raw(&mut self) -> Option<Vec<u8>> {
        if let Some(tail) = &mut self.tail {
            return tail.pop_front();
        }
        loop {
            let mut line = Vec::new();
            match self.files.front_mut()?.read_until(b'\n', &mut line) {
                Ok(length) if length > 0 => return Some(line),
                Ok(_) | Err(_) => drop(self.files.pop_front()),
            }
        }
    }

    /// The next line in the span asked for; what cannot be read as a line is passed over.
    fn next(&mut self) -> Option<Record> {
        loop {
            let line = self.raw()?;
            if let Some(record) = self.wanted(&line) {
                return Some(record);
            }
        }
    }

    fn wanted(&self, line: &[u8]) -> Option<Record> {
        let record: Record = serde_json::from_slice(line).ok()?;
        let early = self.since.is_some_and(|since| record.time < since);
        let late = self.until.is_some_and(|until| record.time > until);
        (!early && !late).then_some(record)
    }

    /// Where a count was asked for: the last lines within the span; without a span only line ends are looked at.
    fn keep_last(&mut self) {
        let Some(count) = self.count else { return };
        let mut last = VecDeque::new();
        let spanned = self.since.is_some() || self.until.is_some();
        while let Some(line) = self.raw() {
            if count == 0 || spanned && self.wanted(&line).is_none() {
                continue;
            }
            if last.len() == count {
                last.pop_front();
            }
            last.push_back(line);
        }
        self.tail = Some(last);
    }
}

/// Instances that have a file, by name, of these services (all when empty).
fn instances(folder: &Path, services: &[ServiceName]) -> Vec<InstanceName> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<InstanceName> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|file| {
            let (service, number) = file.strip_suffix(".log")?.rsplit_once('-')?;
            Some(InstanceName::new(ServiceName::new(service), number.parse().ok()?))
        })
        .filter(|name| services.is_empty() || services.contains(&name.service))
        .collect();
    names.sort();
    names
}
