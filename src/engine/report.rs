//! What engines say: reports, exits, errors. Plain data.

use std::error::Error as StdError;
use std::fmt;

use jiff::Timestamp;
use thiserror::Error;

use crate::model::InstanceName;
use crate::plan::observed::{Health, PublishedPort};
use crate::plan::unit::Addresses;

/// Counts the runs of an instance, from 1; a report of an earlier one is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Attempt(pub u64);

/// A report with the run it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Tagged {
    /// The instance.
    pub instance: InstanceName,
    /// Its run.
    pub attempt: Attempt,
    /// The fact.
    pub report: Report,
}

/// A fact about one attempt at running an instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// It runs.
    Started(Started),
    /// Its addresses changed (a network was joined or left, the engine restarted it).
    Moved(Addresses),
    /// A verdict of its health check.
    Health(Health),
    /// It was frozen (`true`) or thawed.
    Paused(bool),
    /// It ended.
    Exited(Exit),
    /// The engine restarted it by its own policy; `Exited` with `restarting` came before.
    Restarted(Started),
    /// It was removed by someone else.
    Removed,
    /// A guest asked for something its file does not grant; told once for each target.
    Refused(Refusal),
}

/// Facts known once an instance runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    /// Container id, or the guest's own id.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// Addresses by the engine's network name.
    pub addresses: Addresses,
    /// Ports bound on the host.
    pub ports: Vec<PublishedPort>,
    /// Health known already; absent where no check is declared (in the file or by the image).
    pub health: Option<Health>,
}

/// How a run ended. A guest's exit status is data, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 134 after a trap, 128 + signal after a signal.
    pub code: i64,
    /// When.
    pub at: Timestamp,
    /// Why, where more than the code is known: a trap, out of memory, its agent vanished.
    pub reason: Option<String>,
    /// The engine will start it again by itself.
    pub restarting: bool,
}

/// Something a guest was denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What it asked for, e.g. `connect to 169.254.169.254:80`.
    pub what: String,
    /// Why it was refused.
    pub why: String,
    /// The line to add to the file, where there is one.
    pub grant: Option<String>,
}

/// One line of an instance's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputLine {
    /// When it was written.
    pub at: Timestamp,
    /// Which stream.
    pub stream: Stream,
    /// Text without its line end; invalid UTF-8 replaced.
    pub text: String,
}

/// Standard output or standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Kinds of failure of an engine; the core may look at the kind only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No engine answers.
    Unreachable,
    /// The object is not there.
    NotFound,
    /// A name or port is taken, or the state does not allow it.
    Conflict,
    /// Not allowed.
    Denied,
    /// The request itself is wrong.
    Invalid,
    /// It took too long.
    Timeout,
    /// Anything else.
    Internal,
}

/// A failed operation of an engine: `<operation> <subject>: <source>`.
#[derive(Debug, Error)]
pub struct EngineError {
    /// What sort of failure.
    pub kind: ErrorKind,
    /// What was being done, e.g. `create container`.
    pub operation: &'static str,
    /// To what, in backticks when printed.
    pub subject: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Why.
    #[source]
    pub source: Box<dyn StdError + Send + Sync>,
}

impl EngineError {
    /// An error without a hint.
    pub fn new(
        kind: ErrorKind,
        operation: &'static str,
        subject: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, operation, subject: subject.into(), hint: None, source: source.into() }
    }

    /// The same error with advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`: {}", self.operation, self.subject, self.source)
    }
}
