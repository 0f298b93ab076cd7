//! Errands of a supervisor: guests with somebody at their streams. Each runs as a task of its own and ends by itself: with
//! its work, with the supervisor, or when whoever asked for it hangs up.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::host::Road;
use crate::control::visitors::Visitors;
use crate::engine::archive;
use crate::engine::engines::Engines;
use crate::engine::wasm::attached::{Ends, Pipe, Terminals};
use crate::engine::wasm::exec::Exec;
use crate::engine::{Attempt, EngineError, ErrorKind, Outlet, Report, Result, Stream, Tagged};
use crate::session::LogStream;
use crate::session::stream::{Attached, Ending, Errand, Open, Said};

/// The number of SIGKILL.
const SIGKILL: u8 = 9;

/// Takes errands until nobody can bring any more; the rest ends with this future.
pub async fn serve(road: Road, mut errands: mpsc::Receiver<Open>, visitors: Visitors) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            open = errands.recv() => match open {
                Some(open) => {
                    let (engines, visit) = (road.engines().clone(), visitors.enter());
                    tasks.spawn(async move {
                        // Until all is cleared away, whoever asked.
                        let _visit = visit;
                        carry_out(&engines, open).await;
                    });
                }
                None => break,
            },
            Some(_) = tasks.join_next() => {}
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Carries out one errand and says how it ended.
pub async fn carry_out(engines: &Engines, open: Open) {
    let Open { errand, input, signals, said } = open;
    let outcome = match errand {
        Errand::Start { container, remove, streams } => {
            start(engines, &container, remove, streams, input, signals, said.clone()).await
        }
        Errand::Exec { instance, command, environment, working_dir, detach, streams } => {
            let exec = Exec { command, environment, working_dir };
            let (ends, output) = ends(streams, input);
            match engines.wasm().exec(&instance, exec, ends).await {
                Ok(_) if detach => {
                    output.leave();
                    Ok(0)
                }
                Ok(executed) => {
                    let switch = executed.switch.clone();
                    let kill = move |signal: Option<String>| match signal.as_deref().map(signal_number) {
                        Some(None) => {}
                        Some(Some(number)) => switch.kill(number, None),
                        None => switch.kill(SIGKILL, None),
                    };
                    let exit = async { executed.exit.await.unwrap_or(128 + i64::from(SIGKILL)) };
                    Ok(attend(output, signals, said.clone(), kill, exit).await)
                }
                Err(error) => Err(error),
            }
        }
        Errand::CopyOut { instance, path, follow } => {
            let wasm = engines.wasm().clone();
            let (pieces, to) = (archive::way(), said.clone());
            let (sender, mut receiver) = pieces;
            let pass = async move {
                while let Some(bytes) = receiver.recv().await {
                    if to.send(Said::Output(LogStream::Stdout, bytes)).await.is_err() {
                        break;
                    }
                }
            };
            let (copied, ()) = tokio::join!(wasm.copy_out(&instance, path, follow, sender), pass);
            copied.map(|()| 0)
        }
        Errand::Remove { instance, paths } => engines.wasm().remove_files(&instance, paths).await.map(|()| 0),
        Errand::CopyIn { instance, path } => engines.wasm().copy_in(&instance, path, input).await.map(|()| 0),
    };
    let ending = match outcome {
        Ok(code) => Ending::Exited(code),
        Err(error) => Ending::Refused { message: error.to_string(), hint: error.hint },
    };
    let _ = said.send(Said::Ended(ending)).await;
}

/// Starts a one-off that was made, and is its streams until it ends.
async fn start(
    engines: &Engines,
    container: &str,
    remove: bool,
    streams: Attached,
    input: mpsc::Receiver<bytes::Bytes>,
    signals: mpsc::Receiver<String>,
    said: mpsc::Sender<Said>,
) -> Result<i64> {
    let wasm = engines.wasm();
    let spec = wasm
        .created(container)
        .ok_or_else(|| EngineError::new(ErrorKind::NotFound, "start", container, "nothing was made under that name"))?;
    let (ends, output) = ends(streams, input);
    let (reports, mut told) = mpsc::channel(64);
    // Everything that is written goes to `output`.
    let (lines, _) = mpsc::channel(1);
    let outlet = Outlet::new(spec.name.clone(), Attempt(1), reports, lines, false);
    let started = wasm.start_attached(&spec, outlet, ends).await;
    let outcome = match started {
        Ok(handle) => {
            let handle: Arc<dyn crate::engine::Handle> = Arc::from(handle);
            let (wishes, mut wished) = mpsc::unbounded_channel::<Option<String>>();
            let kill = move |signal| drop(wishes.send(signal));
            let killing = async {
                while let Some(signal) = wished.recv().await {
                    // A signal nobody knows ends nothing.
                    let _ = handle.kill(signal.as_deref().unwrap_or("SIGKILL")).await;
                }
                std::future::pending::<()>().await;
            };
            let exit = async {
                let exited = async {
                    loop {
                        match told.recv().await {
                            Some(Tagged { report: Report::Exited(exit), .. }) => break exit.code,
                            Some(_) => {}
                            None => break 128 + i64::from(SIGKILL),
                        }
                    }
                };
                tokio::select! {
                    code = exited => code,
                    () = killing => unreachable!("it never ends"),
                }
            };
            Ok(attend(output, signals, said, kill, exit).await)
        }
        Err(error) => Err(error),
    };
    if remove {
        wasm.discard(&spec).await?;
    }
    outcome
}

/// Passes on what is written and what is signalled, until the end. `kill` gets a signal's name, or nothing when the asker
/// hung up.
async fn attend(
    output: Pipe,
    mut signals: mpsc::Receiver<String>,
    said: mpsc::Sender<Said>,
    kill: impl Fn(Option<String>),
    exit: impl Future<Output = i64>,
) -> i64 {
    let passing = async {
        while let Some((stream, bytes)) = output.next().await {
            let stream = match stream {
                Stream::Stdout => LogStream::Stdout,
                Stream::Stderr => LogStream::Stderr,
            };
            if said.send(Said::Output(stream, bytes)).await.is_err() {
                output.leave();
            }
        }
    };
    let heeding = async {
        while let Some(signal) = signals.recv().await {
            kill(Some(signal));
        }
        kill(None);
        output.leave();
        std::future::pending::<()>().await;
    };
    let ended = async { tokio::join!(exit, passing).0 };
    tokio::select! {
        code = ended => code,
        () = heeding => unreachable!("it never ends"),
    }
}

fn ends(streams: Attached, input: mpsc::Receiver<bytes::Bytes>) -> (Ends, Pipe) {
    let output = Pipe::default();
    let terminals =
        Terminals { stdin: streams.stdin_terminal, stdout: streams.stdout_terminal, stderr: streams.stderr_terminal };
    (Ends { stdin: streams.input.then_some(input), output: output.clone(), terminals }, output)
}

/// What a signal does to a program that can catch none: it ends it, or nothing.
fn signal_number(name: &str) -> Option<u8> {
    crate::engine::wasm::deadly_signal(name)
}
