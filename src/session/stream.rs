//! Errands: work of a supervisor with somebody at its streams. A program run beside a guest, a one-off guest, files
//! going in or out. Each is bounded both ways by the channels here; whoever drops its ends has hung up.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::LogStream;
use crate::model::InstanceName;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Errand {
    /// Start a one-off guest that was made, and be its streams; with `remove`, nothing of it stays.
    Start {
        /// Its container's name.
        container: String,
        /// Remove it at its end.
        remove: bool,
        /// How its streams look to it.
        streams: Attached,
    },
    /// Run a program beside a guest: in its root, environment and network.
    Exec {
        /// Beside whom.
        instance: InstanceName,
        /// A module in the guest's files, or an export of the guest's own module, and its arguments.
        command: Vec<String>,
        /// On top of the guest's environment.
        environment: Vec<(String, String)>,
        /// Instead of the guest's working directory.
        working_dir: Option<String>,
        /// Leave it alone: the errand ends when it runs.
        detach: bool,
        /// How its streams look to it.
        streams: Attached,
    },
    /// Write files of a guest to its output as a tar archive.
    CopyOut {
        /// Whose.
        instance: InstanceName,
        /// A file or folder, as the guest names it.
        path: String,
        /// Take what a symbolic link leads to, where `path` is one.
        follow: bool,
    },
    /// Remove files and folders of a guest; what is not there is done.
    Remove {
        /// Whose.
        instance: InstanceName,
        /// As the guest names them.
        paths: Vec<String>,
    },
    /// Unpack a tar archive from its input into a folder of a guest.
    CopyIn {
        /// Whose.
        instance: InstanceName,
        /// A folder, or the new name of the one file that comes, as the guest names it.
        path: String,
    },
}

/// How the streams of an errand look to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Attached {
    /// Input comes; otherwise it is closed.
    pub input: bool,
    /// Its input is a terminal.
    pub stdin_terminal: bool,
    /// Its output is a terminal.
    pub stdout_terminal: bool,
    /// Its error output is a terminal.
    pub stderr_terminal: bool,
}

/// An errand with the supervisor's ends of its streams.
#[derive(Debug)]
pub struct Open {
    /// What is to be done.
    pub errand: Errand,
    /// Input, piece by piece; its end is the input's end.
    pub input: mpsc::Receiver<Bytes>,
    /// Signals by name. Their end, without an end of the errand, means that the other side hung up.
    pub signals: mpsc::Receiver<String>,
    /// What comes of it.
    pub said: mpsc::Sender<Said>,
}

/// What comes of an errand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Something was written.
    Output(LogStream, Bytes),
    /// It is over. The last word.
    Ended(Ending),
}

/// How an errand ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// With this exit code.
    Exited(i64),
    /// It could not be done: text for people, and what to do about it.
    Refused {
        /// What went wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

/// The asker's ends of an errand.
#[derive(Debug)]
pub struct Ends {
    /// Input; dropping it is the input's end.
    pub input: mpsc::Sender<Bytes>,
    /// Signals by name; dropping it hangs up.
    pub signals: mpsc::Sender<String>,
    /// What comes of it; the end without a last word means that the supervisor was lost.
    pub said: mpsc::Receiver<Said>,
}

/// Pieces of either direction that may be under way.
const PIECES: usize = 16;
/// Signals that may be under way.
const SIGNALS: usize = 4;

/// Both ends of an errand.
pub fn pair(errand: Errand) -> (Ends, Open) {
    let (input, incoming) = mpsc::channel(PIECES);
    let (signals, wished) = mpsc::channel(SIGNALS);
    let (said, heard) = mpsc::channel(PIECES);
    (Ends { input, signals, said: heard }, Open { errand, input: incoming, signals: wished, said })
}
