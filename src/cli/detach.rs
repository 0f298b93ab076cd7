//! Leaving a supervisor behind: the same program again, in a session of its own, its output in the project's state folder.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use super::outcome::Failure;
use super::paths::ProjectPaths;
use crate::control::client;
use crate::model::ProjectName;
use crate::session::{LogInterest, Session};

/// How long a new supervisor may take to listen; it usually takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a supervisor for a project and connects to it.
pub async fn spawn_supervisor(
    paths: &ProjectPaths,
    project: &ProjectName,
    logs: LogInterest,
) -> Result<Session, Failure> {
    paths.make()?;
    let program = std::env::current_exe().context("find this program's own file")?;
    let mut options = OpenOptions::new();
    let log = options.create(true).write(true).truncate(true).mode(0o600).open(&paths.supervisor_log);
    let log = log.with_context(|| format!("open `{}`", paths.supervisor_log.display()))?;
    // The child writes a byte when it listens; its end closes the pipe.
    let (ready, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(std::io::Error::from)?;
    let mut command = Command::new(program);
    command.args(["--project-name", project.as_str(), "supervise"]);
    command.stdin(Stdio::null()).stdout(Stdio::from(tell)).stderr(Stdio::from(log));
    let mut child = command.spawn().context("start the supervisor")?;
    drop(command);
    let reader = tokio::task::spawn_blocking(move || std::fs::File::from(ready).read(&mut [0; 1]));
    let listens = matches!(tokio::time::timeout(PATIENCE, reader).await, Ok(Ok(Ok(1))));
    if listens && let Some(session) = client::connect(&paths.socket, logs).await? {
        return Ok(session);
    }
    let _ = child.kill();
    let _ = child.wait();
    let said = std::fs::read_to_string(&paths.supervisor_log).unwrap_or_default();
    let said = said.trim().strip_prefix("error: ").unwrap_or(said.trim());
    let said = if said.is_empty() { "it ended without a word" } else { said };
    Err(Failure::new(format!("the supervisor did not start: {said}"), []))
}

/// In the supervisor: a session without a terminal, so that a hang-up of the starter's does not reach it.
pub fn leave_terminal() -> Result<(), Failure> {
    rustix::process::setsid().map_err(std::io::Error::from).context("leave the terminal")?;
    Ok(())
}

/// In the supervisor: tells the starter that the socket answers, and lets go of its pipe.
pub fn tell_ready() -> Result<(), Failure> {
    let null = OpenOptions::new().write(true).open("/dev/null").context("open `/dev/null`")?;
    rustix::io::write(rustix::stdio::stdout(), b"\n").map_err(std::io::Error::from).context("tell the starter")?;
    rustix::stdio::dup2_stdout(&null).map_err(std::io::Error::from).context("let go of the starter's pipe")?;
    Ok(())
}
