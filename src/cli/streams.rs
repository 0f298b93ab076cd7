//! The user's end of an errand: standard streams, signals, and the exit code that comes of it.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::outcome::{Failure, Outcome};
use super::terminal;
use crate::session::LogStream;
use crate::session::stream::{Attached, Ending, Ends, Said};
use crate::supervisor::signals::{Asked, Signals};

/// How this process's streams look to a guest.
pub fn attached(input: bool) -> Attached {
    Attached {
        input,
        stdin_terminal: input && std::io::stdin().is_terminal(),
        stdout_terminal: std::io::stdout().is_terminal(),
        stderr_terminal: std::io::stderr().is_terminal(),
    }
}

/// Is an errand's streams until it ends.
pub async fn converse(ends: Ends, input: bool, signals: &mut Signals) -> Outcome {
    let Ends { input: to, signals: wishes, mut said } = ends;
    if input {
        terminal::input(to);
    } else {
        drop(to);
    }
    let (mut out, mut err) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        let word = tokio::select! {
            word = said.recv() => word,
            asked = signals.next() => {
                let _ = wishes.send(name(asked).to_owned()).await;
                continue;
            }
        };
        match word {
            Some(Said::Output(LogStream::Stdout, bytes)) => write(&mut out, &bytes).await?,
            Some(Said::Output(LogStream::Stderr, bytes)) => write(&mut err, &bytes).await?,
            Some(Said::Ended(Ending::Exited(code))) => return Ok(exit_code(code)),
            Some(Said::Ended(Ending::Refused { message, hint })) => return Err(Failure::new(message, hint)),
            None => {
                return Err(lost());
            }
        }
    }
}

/// Why an errand has no end.
pub fn lost() -> Failure {
    Failure::new("the supervisor was lost: it ended without saying so", ["its log is in the state folder".to_owned()])
}

/// Writes at once. A reader that went away (`| head`) ends us, as it would any program.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Failure> {
    let written = async {
        to.write_all(bytes).await?;
        to.flush().await
    };
    match written.await {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::Told(141)),
        written => Ok(written?),
    }
}

/// An exit code as ours.
pub fn exit_code(code: i64) -> ExitCode {
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}

/// A signal by its name.
pub fn name(asked: Asked) -> &'static str {
    match asked {
        Asked::Interrupt => "SIGINT",
        Asked::Terminate => "SIGTERM",
        Asked::HangUp => "SIGHUP",
    }
}
