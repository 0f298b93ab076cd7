//! The user's streams as those of a container, or of a program in one: a terminal of its own where there is one here.

use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::outcome::{Failure, Outcome};
use super::streams::{exit_code, name, write};
use super::terminal;
use crate::engine::docker::{Attached, Docker, Program};
use crate::engine::{Result, Stream};
use crate::supervisor::signals::Signals;

/// How a container is run in the foreground.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Standard input is handed on.
    pub input: bool,
    /// It has a terminal.
    pub tty: bool,
    /// It is removed at its end.
    pub remove: bool,
}

/// Whose streams they are.
#[derive(Clone)]
enum Other {
    Container(String),
    Program(String),
}

/// Starts a container that was made, and is its streams until it ends; answers with its exit code.
pub async fn run(docker: &Arc<Docker>, container: &str, manner: Manner, signals: &mut Signals) -> Outcome {
    let outcome = run_to_end(docker, container, manner, signals).await;
    if manner.remove {
        docker.erase(container).await?;
    }
    outcome
}

async fn run_to_end(docker: &Arc<Docker>, container: &str, manner: Manner, signals: &mut Signals) -> Outcome {
    // Attached before it starts, so that no output is lost.
    let attached = docker.attach(container, manner.input).await?;
    let raw = if manner.tty { Some(terminal::Raw::enter()?) } else { None };
    docker.start_container(container).await?;
    let other = Other::Container(container.to_owned());
    let talked = talk(docker, &other, attached, manner, signals).await;
    drop(raw);
    talked?;
    Ok(exit_code(docker.wait(container).await?))
}

/// Runs a program in a running container, and is its streams until it ends.
pub async fn exec(docker: &Arc<Docker>, container: &str, program: &Program, signals: &mut Signals) -> Outcome {
    let id = docker.exec(container, program).await?;
    let attached = docker.start_exec(&id, program.tty).await?;
    let raw = if program.tty { Some(terminal::Raw::enter()?) } else { None };
    let manner = Manner { input: program.input, tty: program.tty, remove: false };
    let talked = talk(docker, &Other::Program(id.clone()), attached, manner, signals).await;
    drop(raw);
    if talked? == Talk::LeftOff {
        return Err(Failure::Interrupted);
    }
    Ok(exit_code(docker.exec_code(&id).await?))
}

/// Starts a program in a running container and leaves it.
pub async fn exec_detached(docker: &Docker, container: &str, program: &Program) -> Outcome {
    let id = docker.exec(container, program).await?;
    docker.start_exec_detached(&id).await?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Talk {
    /// The other side ended.
    Over,
    /// A signal that cannot be handed on.
    LeftOff,
}

/// Carries bytes, signals and sizes until the output ends.
async fn talk(
    docker: &Arc<Docker>,
    other: &Other,
    attached: Attached,
    manner: Manner,
    signals: &mut Signals,
) -> std::result::Result<Talk, Failure> {
    let Attached { mut output, input } = attached;
    let mut tasks = JoinSet::new();
    let mut input = Some(input);
    if manner.input {
        let (pieces, mut incoming) = mpsc::channel::<Bytes>(4);
        terminal::input(pieces);
        let mut to = input.take().expect("it was just put there");
        tasks.spawn(async move {
            while let Some(piece) = incoming.recv().await {
                if to.write_all(&piece).await.is_err() || to.flush().await.is_err() {
                    return;
                }
            }
            let _ = to.shutdown().await;
            // Dropping it would take the output with it.
            std::future::pending::<()>().await;
        });
    }
    let mut resizes = if manner.tty { Some(terminal::resizes()?) } else { None };
    let mut resize = manner.tty;
    let (mut out, mut err) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        if std::mem::take(&mut resize)
            && let Some((columns, rows)) = terminal::size()
        {
            let (docker, other) = (docker.clone(), other.clone());
            tasks.spawn(async move {
                // A size that comes too early or too late is of no consequence.
                let _: Result<()> = match other {
                    Other::Container(name) => docker.resize(&name, columns, rows).await,
                    Other::Program(id) => docker.resize_exec(&id, columns, rows).await,
                };
            });
        }
        tokio::select! {
            piece = output.next() => match piece {
                Some(Ok((Stream::Stdout, bytes))) => write(&mut out, &bytes).await?,
                Some(Ok((Stream::Stderr, bytes))) => write(&mut err, &bytes).await?,
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(Talk::Over),
            },
            _ = changed(&mut resizes) => resize = true,
            asked = signals.next() => match other {
                Other::Container(container) => docker.signal(container, name(asked)).await?,
                // The engine sends no signals to a program beside a container's own.
                Other::Program(_) => return Ok(Talk::LeftOff),
            },
        }
    }
}

async fn changed(resizes: &mut Option<tokio::signal::unix::Signal>) {
    match resizes {
        Some(resizes) => drop(resizes.recv().await),
        None => std::future::pending().await,
    }
}
