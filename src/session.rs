//! All a view ever gets: a snapshot, the events after it, log lines, and a way to send commands.
//! A view cannot tell whether the supervisor is in this process or behind a socket.

pub mod stream;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::event::{Failure, Snapshot, Stamped};
use crate::model::{InstanceName, PullPolicy, ServiceName, Usage};

/// A view's connection to a supervisor.
#[derive(Debug)]
pub struct Session {
    /// The state when the session began; `updates` continue from it without a gap.
    pub snapshot: Snapshot,
    /// What happened since.
    pub updates: mpsc::Receiver<Update>,
    /// Log lines since, of the services asked for.
    pub logs: mpsc::Receiver<LogLine>,
    /// Wishes.
    pub commands: mpsc::Sender<Request>,
}

/// What arrives after the snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Update {
    /// A change.
    Event(Stamped),
    /// This view was too slow; start again from here.
    Resync(Box<Snapshot>),
    /// The supervisor ended or was lost.
    Lost(String),
}

/// A line of a service's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was written.
    pub at: Timestamp,
    /// Who wrote it.
    pub instance: InstanceName,
    /// `stdout` or `stderr`.
    pub stream: LogStream,
    /// Without its line end.
    pub text: String,
    /// Lines dropped before this one because this reader was too slow.
    #[serde(default)]
    pub dropped: u64,
}

/// Standard output or standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A command and where its outcome goes.
#[derive(Debug)]
pub struct Request {
    /// What is wished.
    pub command: Command,
    /// Answered once: when the command was carried out as far as it could be, or could not be taken.
    pub reply: oneshot::Sender<Reply>,
}

/// Outcome of a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Carried out; `failures` is empty when all worked.
    Settled {
        /// What did not work.
        failures: Vec<Failure>,
    },
    /// What instances use.
    Usage(Vec<Usage>),
    /// Not taken: text for people, as the command line would print it.
    Refused(String),
}

/// Wishes of people, in the imperative.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Load these files again and make the project so.
    Up(Box<UpRequest>),
    /// Make a one-off's container or guest, its dependencies up. Whoever attaches to it starts it.
    Run(Box<RunRequest>),
    /// Stop and remove everything; the supervisor ends afterwards.
    Down(DownRequest),
    /// Tell what instances use; answered by [`Reply::Usage`].
    Usage,
    /// Stop services, in reverse dependency order; empty means all.
    Stop {
        /// Which.
        services: Vec<ServiceName>,
        /// Instead of their own grace periods.
        timeout: Option<Duration>,
    },
    /// Start what exists stopped, in dependency order; empty means all.
    Start {
        /// Which.
        services: Vec<ServiceName>,
    },
    /// Stop and start; never applies file changes; empty means all.
    Restart {
        /// Which.
        services: Vec<ServiceName>,
        /// Instead of their own grace periods.
        timeout: Option<Duration>,
    },
    /// Send a signal; empty means all.
    Kill {
        /// Which.
        services: Vec<ServiceName>,
        /// `SIGKILL`, `SIGHUP`, …
        signal: String,
    },
}

/// Everything the loader depends on, so that another process loads the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadRequest {
    /// Working directory of the command.
    pub directory: PathBuf,
    /// `-f`, in order, as given; empty means discovery.
    pub files: Vec<String>,
    /// Text of standard input, when a file is `-`.
    pub stdin: Option<String>,
    /// `--project-directory`.
    pub project_directory: Option<PathBuf>,
    /// `-p`.
    pub project_name: Option<String>,
    /// `--profile`.
    pub profiles: Vec<String>,
    /// `--env-file`.
    pub env_files: Vec<String>,
    /// `--compatibility`.
    #[serde(default)]
    pub compatibility: bool,
    /// `--all-resources`.
    #[serde(default)]
    pub all_resources: bool,
    /// Services that are wanted although no profile enables them.
    #[serde(default)]
    pub enable: Vec<String>,
    /// A last document, merged over all files: what the command line says of services.
    #[serde(default)]
    pub overlay: Option<String>,
    /// The command's environment.
    pub environment: BTreeMap<String, String>,
}

/// `up`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpRequest {
    /// What to load.
    pub load: LoadRequest,
    /// What to do with it.
    pub options: UpOptions,
}

/// Options of `up` that change what is done (not how it is shown).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UpOptions {
    /// Services named on the command line; empty means all.
    pub services: Vec<ServiceName>,
    /// `--build`.
    pub build: bool,
    /// `--no-build`.
    pub no_build: bool,
    /// `--quiet-build`: that images are built is told, not what builds write.
    pub quiet_build: bool,
    /// `--quiet-pull`: that images are pulled is told, not how far it is.
    pub quiet_pull: bool,
    /// `--pull`, where it overrides the services' own policies.
    pub pull: Option<PullPolicy>,
    /// `--force-recreate`.
    pub force_recreate: bool,
    /// `--no-recreate`.
    pub no_recreate: bool,
    /// `--no-deps`.
    pub no_deps: bool,
    /// `--no-start`.
    pub no_start: bool,
    /// `--remove-orphans`.
    pub remove_orphans: bool,
    /// `-t`, seconds.
    pub timeout: Option<u64>,
    /// `--scale`.
    pub scale: BTreeMap<String, u32>,
    /// `--wait`: until everything is healthy, runs steadily, or did its work.
    pub wait: bool,
    /// `--wait-timeout`, seconds; 0 means none.
    pub wait_timeout: Option<u64>,
    /// A new module is all this is about: there are as many replicas as before.
    pub reload: bool,
    /// `--allow-egress SERVICE=TARGET`.
    pub allow_egress: Vec<(String, String)>,
}

/// `run`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRequest {
    /// What to load, and how to bring the dependencies up.
    pub up: UpRequest,
    /// Whose one-off.
    pub service: ServiceName,
    /// Name of its container.
    pub container: String,
    /// What tells it from others of its service: 64 hex digits.
    pub slug: String,
    /// It has the service's names on its networks, too.
    pub use_aliases: bool,
    /// It is started as any instance is; otherwise whoever attaches to it does that.
    pub start: bool,
    /// `--rm`, where it is started so: nothing of it stays.
    #[serde(default)]
    pub remove: bool,
}

/// `down`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DownRequest {
    /// The files, where there are any: without them the engine's labels say what depends on what.
    pub load: Option<Box<LoadRequest>>,
    /// `-v`: named volumes of the file and anonymous ones.
    pub volumes: bool,
    /// `--remove-orphans`: also one-offs and undeclared services.
    pub remove_orphans: bool,
    /// `-t`, seconds.
    pub timeout: Option<u64>,
    /// Services named on the command line; empty means all.
    pub services: Vec<ServiceName>,
}

/// Asks a supervisor for a session.
#[derive(Debug)]
pub struct Attach {
    /// Which log lines come with it.
    pub logs: LogInterest,
    /// Where the session goes.
    pub reply: oneshot::Sender<Session>,
}

/// Which log lines a session gets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogInterest {
    /// None at all, only what is kept, or also what comes.
    pub mode: LogMode,
    /// Of these services; empty means all.
    pub services: Vec<ServiceName>,
    /// At most so many kept lines an instance; absent means all.
    pub tail: Option<usize>,
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// Not younger than this.
    pub until: Option<Timestamp>,
}

/// How long a session's log lines go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogMode {
    /// No lines.
    #[default]
    Off,
    /// Lines kept so far, in one order of time; then the log channel closes.
    Kept,
    /// Lines kept so far, then those that come.
    Follow,
}
