//! A supervisor in a process and session of its own, for `up -d`.
//!
//! The child is this program again, with the hidden subcommand [`SUBCOMMAND`] and the project's name; it calls
//! [`become_supervisor`] before anything else, then takes the lock and serves the control socket. It loads nothing by
//! itself: the request comes over the socket, so that `up -d` and an `up` that finds a supervisor take the same road.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use thiserror::Error;
use tokio::process::{Child, Command};

use super::paths::{PathError, ProjectPaths};
use crate::control::{ConnectError, connect};
use crate::session::{LogInterest, Session};

/// The hidden subcommand of the child.
pub const SUBCOMMAND: &str = "__supervise";

/// How long a supervisor may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between the first two looks for its socket; each further wait is half as long again, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(2);
/// Between two looks at most.
const LONGEST: Duration = Duration::from_millis(50);
/// How much of the end of its log an error shows.
const TAIL: u64 = 4096;

/// Why no supervisor was started.
#[derive(Debug, Error)]
pub enum DetachError {
    /// A folder it needs cannot be used.
    #[error(transparent)]
    Folder(#[from] PathError),
    /// The program could not be started.
    #[error("start the supervisor `{program}`: {source}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended before it answered.
    #[error("the supervisor ended at once ({status}){}", shown(.tail))]
    Ended {
        /// How.
        status: String,
        /// The end of what it printed.
        tail: String,
    },
    /// It runs and does not answer.
    #[error("the supervisor (pid {pid}) does not answer; its log is `{log}`")]
    Silent {
        /// Its process id.
        pid: u32,
        /// Its log.
        log: PathBuf,
    },
    /// It answers, and there is no session.
    #[error(transparent)]
    Connect(ConnectError),
}

fn shown(tail: &str) -> String {
    if tail.is_empty() { String::new() } else { format!(":\n{tail}") }
}

/// Starts a supervisor for a project and opens a session with it. Returns once its control socket answers.
/// `arguments` follow the hidden subcommand.
pub async fn spawn_supervisor(
    project: &ProjectPaths,
    arguments: &[OsString],
    logs: LogInterest,
) -> Result<Session, DetachError> {
    let program = std::env::current_exe()
        .map_err(|source| DetachError::Spawn { program: PathBuf::from("/proc/self/exe"), source })?;
    let mut command = Command::new(&program);
    command.arg(SUBCOMMAND).args(arguments);
    spawn(command, project, logs).await
}

/// What the child does first: a session of its own, so that neither the terminal's signals nor its end reach it.
pub fn become_supervisor() -> io::Result<()> {
    match rustix::process::setsid() {
        Ok(_) => Ok(()),
        // It leads a process group already: somebody started it as a daemon does.
        Err(rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn spawn(mut command: Command, project: &ProjectPaths, logs: LogInterest) -> Result<Session, DetachError> {
    project.prepare()?;
    let program = PathBuf::from(command.as_std().get_program());
    let failed = |source: io::Error| DetachError::Spawn { program: program.clone(), source };
    let output = fresh_log(&project.supervisor_log).map_err(failed)?;
    let errors = output.try_clone().map_err(failed)?;
    let child = command
        // The folder it was called in can be removed or unmounted; every path it is given is absolute.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(failed)?;
    await_session(child, project, logs).await
}

async fn await_session(mut child: Child, project: &ProjectPaths, logs: LogInterest) -> Result<Session, DetachError> {
    let pid = child.id().unwrap_or_default();
    let answer = async {
        let mut wait = FIRST;
        loop {
            match connect(&project.socket, logs.clone()).await {
                Err(ConnectError::NotRunning) => {}
                result => return result,
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 3 / 2).min(LONGEST);
        }
    };
    tokio::select! {
        biased;
        result = tokio::time::timeout(PATIENCE, answer) => match result {
            Ok(session) => session.map_err(DetachError::Connect),
            Err(_) => Err(DetachError::Silent { pid, log: project.supervisor_log.clone() }),
        },
        status = child.wait() => {
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            Err(DetachError::Ended { status, tail: tail(&project.supervisor_log) })
        }
    }
}

/// An empty log; the one before stays beside it.
fn fresh_log(path: &Path) -> io::Result<File> {
    match fs::rename(path, path.with_extension("log.old")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}

/// The last lines of a log, as far as it can be read.
fn tail(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::task::JoinSet;

    use super::super::paths::Paths;
    use super::*;
    use crate::control::Server;
    use crate::event::{Phase, Snapshot, VERSION};

    fn project(folder: &Path) -> ProjectPaths {
        let own = |name: &str| name.starts_with("WCOMPOSE_").then(|| folder.join(name).into());
        Paths::resolve(own, 0).project(&"p".into())
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_child_that_ends_is_an_error_with_what_it_said() {
        let folder = tempfile::tempdir().unwrap();
        let project = project(folder.path());
        let failing = || spawn(shell("pwd; echo no engine >&2; exit 3"), &project, LogInterest::default());
        let error = failing().await.unwrap_err();
        assert_eq!(error.to_string(), "the supervisor ended at once (exit status: 3):\n/\nno engine");
        failing().await.unwrap_err();
        assert!(project.supervisor_log.with_extension("log.old").exists());
    }

    #[tokio::test]
    async fn the_session_is_there_once_the_socket_answers() {
        let folder = tempfile::tempdir().unwrap();
        let project = project(folder.path());
        project.prepare().unwrap();
        let (attach, mut attached) = mpsc::channel::<crate::session::Attach>(1);
        let ProjectPaths { socket, supervisor_log, .. } = project.clone();
        let mut tasks = JoinSet::new();
        // The child only lives; its part is played here, from when it is about to be started.
        tasks.spawn(async move {
            while !supervisor_log.exists() {
                tokio::task::yield_now().await;
            }
            Server::bind(&socket).unwrap().serve(attach).await;
        });
        tasks.spawn(async move {
            let (_updates, updates) = mpsc::channel(1);
            let (_logs, logs) = mpsc::channel(1);
            let (commands, _requests) = mpsc::channel(1);
            let snapshot = Snapshot {
                version: VERSION,
                project: "p".into(),
                directory: "/".into(),
                files: Vec::new(),
                supervisor: 1,
                phase: Phase::Running,
                instances: Default::default(),
            };
            let session = Session { snapshot, updates, logs, commands };
            attached.recv().await.unwrap().reply.send(session).unwrap();
        });
        let mut living = shell("exec sleep 60");
        living.kill_on_drop(true);
        let session = spawn(living, &project, LogInterest::default()).await.unwrap();
        assert_eq!(session.snapshot.phase, Phase::Running);
    }
}
