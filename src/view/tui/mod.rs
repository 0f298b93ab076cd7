//! The dashboard: one live table of a project's services.
//!
//! [`State`] changes in [`update()`] alone, [`draw()`] only reads it. One task owns both and waits for keys, the session
//! and the clock; it draws when something changed, at most thirty times a second. The terminal is restored by a guard,
//! after a panic as well.

mod draw;
mod keys;
mod state;
mod update;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use crossterm::event::EventStream;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use ratatui::DefaultTerminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::style::Palette;
use crate::session::Session;
pub use draw::draw;
pub use state::State;
pub use update::{Command, Msg, update};

/// Between two frames.
const FRAME: Duration = Duration::from_millis(33);

/// Ages are looked at so often when nothing else happens.
const IDLE: Duration = Duration::from_secs(1);

/// Shows the session until `q`, Ctrl-C, or a signal to end. What runs goes on.
pub async fn run(mut session: Session, palette: Palette) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut guard = Guard::enter()?;
    let mut state = State::new(session.snapshot.clone(), palette, Timestamp::now());
    let mut keys = EventStream::new();
    let mut connected = true;
    let mut logs = true;
    let mut last_frame = now();
    guard.terminal.draw(|frame| draw(&state, frame))?;
    loop {
        let wake = if state.is_dirty() { last_frame + FRAME } else { now() + IDLE };
        let message = tokio::select! {
            key = keys.next() => match key {
                Some(event) => keys::message(&event?),
                None => return Ok(()),
            },
            update = session.updates.recv(), if connected => {
                connected = update.is_some();
                Some(update.map_or(Msg::Ended, Msg::Session))
            }
            // This view shows no lines; unread they would count as a slow reader's.
            line = session.logs.recv(), if logs => {
                logs = line.is_some();
                None
            }
            _ = terminate.recv() => Some(Msg::Quit),
            _ = hangup.recv() => Some(Msg::Quit),
            () = sleep_until(wake) => Some(Msg::Tick(Timestamp::now())),
        };
        let commands = message.map(|message| update(&mut state, message)).unwrap_or_default();
        if commands.contains(&Command::Quit) {
            return Ok(());
        }
        if state.is_dirty() && now() >= last_frame + FRAME {
            guard.terminal.draw(|frame| draw(&state, frame))?;
            state.drawn();
            last_frame = now();
        }
    }
}

fn now() -> Instant {
    Instant::now()
}

/// The terminal in the dashboard's hands. Dropping it gives the terminal back; so does a panic, before its message.
struct Guard {
    terminal: DefaultTerminal,
}

impl Guard {
    fn enter() -> io::Result<Self> {
        if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
            return Err(io::Error::other("the dashboard needs a terminal for its input and output"));
        }
        Ok(Self { terminal: ratatui::try_init()? })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        ratatui::restore();
    }
}
