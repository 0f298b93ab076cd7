//! The user's terminal under a container's: raw while a program at the other end has a terminal of its own, restored
//! whatever happens; its size; and standard input as pieces.

use std::io::{self, IsTerminal as _, Read as _};

use bytes::Bytes;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Longest piece of input.
const PIECE: usize = 16 * 1024;

/// Whether standard input and output are both a terminal.
pub fn is_both() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// The terminal in raw mode; dropping it restores it.
#[derive(Debug)]
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Every key goes through as it is, Ctrl-C as well.
    pub fn enter() -> io::Result<Self> {
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Columns and rows, where standard output has them.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(rustix::stdio::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// Told whenever the terminal's size changes.
pub fn resizes() -> io::Result<Signal> {
    signal(SignalKind::window_change())
}

/// Standard input, to its end. A thread reads it, since nothing else can be interrupted there; the process's end ends it.
pub fn input(to: mpsc::Sender<Bytes>) {
    let read = move || {
        let mut stdin = io::stdin().lock();
        let mut piece = vec![0; PIECE];
        loop {
            match stdin.read(&mut piece) {
                Ok(0) => return,
                Ok(length) => {
                    if to.blocking_send(Bytes::copy_from_slice(&piece[..length])).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    };
    std::thread::spawn(read);
}
