//! Runs of the binary under test: to their end, or in the foreground with a hand on them.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, eventually, holds, now};

/// A run that ended.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Exit code; 128 + signal when it was killed.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Itself, when the exit code is 0.
    #[track_caller]
    pub fn well(self) -> Self {
        assert!(self.code == 0, "should have worked:\n{self}");
        self
    }

    /// Itself, when the exit code is not 0, every word is on standard error, and it is no crash of ours.
    #[track_caller]
    pub fn refused(self, words: &[&str]) -> Self {
        assert!(self.code != 0 && self.code < 100, "should have been refused:\n{self}");
        for word in words {
            assert!(self.stderr.contains(word), "the error should name `{word}`:\n{self}");
        }
        assert!(!self.stderr.contains("panicked at"), "an error, not a crash:\n{self}");
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// A run that goes on.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Reader,
    stderr: Reader,
}

impl Running {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        Self::on(command, Stdio::null())
    }

    /// Starts it with this on its standard input.
    pub fn fed(command: &mut Command, input: &str) -> Self {
        let mut running = Self::on(command, Stdio::piped());
        let mut stdin = running.child.stdin.take().expect("the stream is piped");
        let input = input.to_owned();
        // Who reads nothing of it ends all the same.
        thread::spawn(move || std::io::Write::write_all(&mut stdin, input.as_bytes()));
        running
    }

    fn on(command: &mut Command, stdin: Stdio) -> Self {
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Reader::of(child.stdout.take());
        let stderr = Reader::of(child.stderr.take());
        Self { child, stdout, stderr }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id() as i32).expect("a process has an id");
        kill_process(id, signal).expect("the process is there");
    }

    /// What it wrote so far, both streams.
    pub fn written(&self) -> String {
        self.stdout.text() + &self.stderr.text()
    }

    /// Waits until it wrote this.
    pub fn says(&self, words: &str) {
        eventually(&format!("the command says `{words}`"), || {
            let written = self.written();
            holds(written.contains(words), written)
        });
    }

    /// Ctrl-C, and its end: that of a command that was interrupted.
    #[track_caller]
    pub fn interrupted(self) -> Outcome {
        self.signal(Signal::INT);
        let outcome = self.end();
        assert!(outcome.code == 130, "should have been interrupted:\n{outcome}");
        outcome
    }

    /// Waits for its end.
    pub fn end(self) -> Outcome {
        self.end_within(PATIENCE * 2)
    }

    /// Waits for its end, but not longer than this.
    pub fn end_within(mut self, limit: Duration) -> Outcome {
        use std::os::unix::process::ExitStatusExt;

        let start = now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                break status;
            }
            assert!(start.elapsed() < limit, "should have ended within {limit:?}:\n{}", self.written());
            thread::sleep(Duration::from_millis(10));
        };
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        // Whoever waits for the end of the output must get it, also when a supervisor lives on in the background.
        for reader in [&self.stdout, &self.stderr] {
            let start = now();
            while !reader.ended() {
                assert!(start.elapsed() < Duration::from_secs(5), "something keeps the command's output open");
                thread::sleep(Duration::from_millis(5));
            }
        }
        Outcome { code, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only a scenario that failed leaves it running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Collects a stream while it comes.
#[derive(Debug)]
struct Reader {
    text: Arc<Mutex<String>>,
    thread: JoinHandle<()>,
}

impl Reader {
    fn of(stream: Option<impl Read + Send + 'static>) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&text);
        let mut stream = BufReader::new(stream.expect("the stream is piped"));
        let thread = thread::spawn(move || {
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                sink.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self { text, thread }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    fn ended(&self) -> bool {
        self.thread.is_finished()
    }
}
