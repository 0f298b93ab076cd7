//! Standard streams, and what a command shows on them: a console over a session, a command and its outcome.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::args::{Ansi, Progress};
use super::outcome::{Failure, Outcome};
use super::output;
use super::settings::Settings;
use crate::session::{Command, Reply, Request, Session};
use crate::supervisor::signals::Signals;
use crate::view::console::{Console, Lines, Options, Shown};
use crate::view::style::{Palette, Stream, When};
use crate::view::{Followed, Streams, follow};

/// Sends a command; its outcome arrives at the receiver.
pub async fn ask(commands: &mpsc::Sender<Request>, command: Command) -> oneshot::Receiver<Reply> {
    let (reply, answer) = oneshot::channel();
    let _ = commands.send(Request { command, reply }).await;
    answer
}

/// Has a supervisor carry out a command, shows what happens, and tells what became of it.
pub async fn carry_out(settings: &Settings, mut session: Session, command: Command, signals: &mut Signals) -> Outcome {
    let mut screen = Screen::new(settings, Lines::Kept);
    let mut console = screen.console(&session)?;
    let answer = ask(&session.commands, command).await;
    let work = async {
        tokio::select! {
            reply = answer => reply.map_err(|_| Failure::new("the supervisor gave up: another command took over", [])),
            _ = signals.next() => Err(Failure::Interrupted),
        }
    };
    match follow(&mut session, &mut console, work).await? {
        Followed::Until(reply) => conclude(&mut console, reply?),
        Followed::Ended => Err(Failure::new("the supervisor ended", ["its log is in the state folder".to_owned()])),
    }
}

/// Shows what became of a request.
pub fn conclude(console: &mut Console<'_>, reply: Reply) -> Outcome {
    match reply {
        Reply::Settled { failures } => {
            console.settle(&failures, Timestamp::now())?;
            if failures.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Failure::Told(1)) }
        }
        // Nobody who asks for it is answered here.
        Reply::Usage(_) => Ok(ExitCode::SUCCESS),
        Reply::Refused(text) => {
            console.settle(&[], Timestamp::now())?;
            output::complain(&text);
            Err(Failure::Told(1))
        }
    }
}

/// Standard streams as a console takes them.
pub struct Screen {
    out: io::Stdout,
    err: io::Stderr,
    options: Options,
}

impl Screen {
    /// The process's own streams.
    pub fn new(settings: &Settings, lines: Lines) -> Self {
        Self { out: io::stdout(), err: io::stderr(), options: options(settings, lines) }
    }

    /// No colours on log lines.
    pub fn plain_lines(&mut self) {
        self.options.out = Palette::default();
    }

    /// A console that begins with a session's snapshot.
    pub fn console(&mut self, session: &Session) -> io::Result<Console<'_>> {
        let streams = Streams { out: &mut self.out, err: &mut self.err };
        let mut console = Console::new(streams, self.options.clone());
        console.begin(&session.snapshot)?;
        Ok(console)
    }
}

/// The palettes of standard output and standard error.
pub fn palettes(settings: &Settings, ansi: Ansi) -> (Palette, Palette) {
    let no_color = settings.load.environment.get("NO_COLOR").map(String::as_str);
    let when = match ansi {
        Ansi::Never => When::Never,
        Ansi::Always => When::Always,
        Ansi::Auto => When::Auto,
    };
    (
        Palette::choose(when, Stream::of(&io::stdout()), no_color),
        Palette::choose(when, Stream::of(&io::stderr()), no_color),
    )
}

fn options(settings: &Settings, lines: Lines) -> Options {
    let (out, err) = palettes(settings, settings.ansi);
    let progress = match settings.progress {
        Progress::Tty => Shown::Tty,
        Progress::Auto if io::stderr().is_terminal() => Shown::Tty,
        Progress::Auto | Progress::Plain => Shown::Plain,
        Progress::Json => Shown::Json,
        Progress::Quiet => Shown::Quiet,
    };
    Options { progress, lines, out, err }
}
