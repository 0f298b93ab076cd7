//! Somebody at a container's streams: attached to its first run, or to a program beside it (`exec`).
//!
//! With a terminal there is one stream of output; without one the engine tells standard output and error apart.

use std::fmt;
use std::pin::Pin;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, InspectContainerOptions, ResizeContainerTTYOptionsBuilder, StartContainerOptions,
    WaitContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{Stream as Items, StreamExt, TryStreamExt};
use tokio::io::AsyncWrite;

use super::error::{failed, is_not_found, wrap};
use super::{Docker, container};
use crate::engine::{EngineError, ErrorKind, Result, Stream};

/// Output of a program that is kept, in bytes.
const OUTPUT: usize = 64 * 1024;

/// Pieces of output as they come, each with its stream.
pub type Pieces = Pin<Box<dyn Items<Item = Result<(Stream, Bytes)>> + Send>>;

/// The streams of a container, or of a program in it.
pub struct Attached {
    /// What it writes, piece by piece, to its end.
    pub output: Pieces,
    /// What it reads.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").finish_non_exhaustive()
    }
}

/// A program to be run in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// What, and its arguments.
    pub command: Vec<String>,
    /// `KEY=VALUE`.
    pub environment: Vec<String>,
    /// As whom.
    pub user: Option<String>,
    /// Where.
    pub working_dir: Option<String>,
    /// With extra rights.
    pub privileged: bool,
    /// With a terminal.
    pub tty: bool,
    /// Somebody is at its input.
    pub input: bool,
}

impl Docker {
    /// Attaches to a container that was made and not started yet.
    pub async fn attach(&self, container: &str, input: bool) -> Result<Attached> {
        let options = AttachContainerOptionsBuilder::default().stream(true).stdin(input).stdout(true).stderr(true);
        let attached = self.patient().attach_container(container, Some(options.build())).await;
        let attached = attached.map_err(failed("attach to", container))?;
        Ok(Attached { output: pieces(attached.output, container), input: attached.input })
    }

    /// Starts a container that was made.
    pub async fn start_container(&self, container: &str) -> Result<()> {
        let started = self.client.start_container(container, None::<StartContainerOptions>).await;
        started.map_err(failed("start container", container))
    }

    /// Waits for the end of a container; its exit code.
    pub async fn wait(&self, container: &str) -> Result<i64> {
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let mut waited = std::pin::pin!(self.patient().wait_container(container, Some(options)));
        match waited.next().await {
            Some(Ok(response)) => Ok(response.status_code),
            // The client takes an exit code other than 0 for an error.
            Some(Err(Error::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) if is_not_found(&error) => Ok(137),
            Some(Err(error)) => Err(wrap("wait for container", container, error)),
            None => Err(EngineError::new(ErrorKind::Internal, "wait for container", container, "no answer came")),
        }
    }

    /// The id of a container by its name.
    pub async fn container_id(&self, container: &str) -> Result<String> {
        let found = self.client.inspect_container(container, None::<InspectContainerOptions>).await;
        Ok(found.map_err(failed("inspect container", container))?.id.unwrap_or_default())
    }

    /// Sends a signal; one that does not run any more is no error.
    pub async fn signal(&self, container: &str, signal: &str) -> Result<()> {
        let options = bollard::query_parameters::KillContainerOptionsBuilder::default().signal(signal).build();
        match self.client.kill_container(container, Some(options)).await {
            Err(error) if !is_not_found(&error) && !super::error::is_conflict(&error) => {
                Err(wrap("kill container", container, error))
            }
            _ => Ok(()),
        }
    }

    /// Removes a container by force, with its anonymous volumes.
    pub async fn erase(&self, container: &str) -> Result<()> {
        container::erase(&self.patient(), container, true).await.map_err(failed("remove container", container))
    }

    /// Tells a container the size of its terminal.
    pub async fn resize(&self, container: &str, columns: u16, rows: u16) -> Result<()> {
        let options = ResizeContainerTTYOptionsBuilder::default().w(i32::from(columns)).h(i32::from(rows)).build();
        self.client.resize_container_tty(container, options).await.map_err(failed("resize", container))
    }

    /// Makes a program to be run in a running container; its id.
    pub async fn exec(&self, container: &str, program: &Program) -> Result<String> {
        let options = CreateExecOptions {
            attach_stdin: Some(program.input),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(program.tty),
            env: (!program.environment.is_empty()).then(|| program.environment.clone()),
            cmd: Some(program.command.clone()),
            privileged: Some(program.privileged),
            user: program.user.clone(),
            working_dir: program.working_dir.clone(),
            ..CreateExecOptions::default()
        };
        let made = self.client.create_exec(container, options).await.map_err(failed("exec in", container))?;
        Ok(made.id)
    }

    /// Starts a program, attached to it.
    pub async fn start_exec(&self, id: &str, tty: bool) -> Result<Attached> {
        let options = StartExecOptions { detach: false, tty, output_capacity: None };
        match self.patient().start_exec(id, Some(options)).await.map_err(failed("exec", id))? {
            StartExecResults::Attached { output, input } => Ok(Attached { output: pieces(output, id), input }),
            StartExecResults::Detached => {
                Err(EngineError::new(ErrorKind::Internal, "exec", id, "the engine did not attach"))
            }
        }
    }

    /// Starts a program and leaves it.
    pub async fn start_exec_detached(&self, id: &str) -> Result<()> {
        let options = StartExecOptions { detach: true, tty: false, output_capacity: None };
        self.client.start_exec(id, Some(options)).await.map(drop).map_err(failed("exec", id))
    }

    /// The exit code of a program that ended.
    pub async fn exec_code(&self, id: &str) -> Result<i64> {
        let found = self.client.inspect_exec(id).await.map_err(failed("exec", id))?;
        Ok(found.exit_code.unwrap_or(0))
    }

    /// Runs a program to its end: its exit code, and the first of what it said.
    pub async fn execute(&self, container: &str, program: &Program) -> Result<(i64, String)> {
        let id = self.exec(container, program).await?;
        let mut attached = self.start_exec(&id, program.tty).await?;
        let mut said = Vec::new();
        while let Some(piece) = attached.output.next().await {
            let (_, bytes) = piece?;
            let room = OUTPUT.saturating_sub(said.len());
            said.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        Ok((self.exec_code(&id).await?, String::from_utf8_lossy(&said).trim().to_owned()))
    }

    /// Tells a program the size of its terminal.
    pub async fn resize_exec(&self, id: &str, columns: u16, rows: u16) -> Result<()> {
        let options = ResizeExecOptions { height: rows, width: columns };
        self.client.resize_exec(id, options).await.map_err(failed("resize", id))
    }
}

fn pieces(output: Pin<Box<dyn Items<Item = Result<LogOutput, Error>> + Send>>, subject: &str) -> Pieces {
    let subject = subject.to_owned();
    let told = output.map_err(move |error| wrap("read the output of", &subject, error)).map_ok(|piece| match piece {
        LogOutput::StdErr { message } => (Stream::Stderr, message),
        LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
            (Stream::Stdout, message)
        }
    });
    Box::pin(told)
}
