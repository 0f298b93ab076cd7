//! The agent's own door, where the supervisor's cannot be mounted: the health check comes in through it as it would there,
//! and so does `agent lend`, run by the supervisor through the engine, which lends process 1 its two streams.

use crate::control::{self, Control, Frame, Signals, connect};
use crate::sys::{self, CLOEXEC, NONBLOCK, Poll, call, close, exit};
use crate::{GONE, UNREACHED};

/// How long the supervisor may take to come, and `lend` to be let in, in seconds.
const PATIENCE: u64 = 60;
/// How long a connection may take to say its first word, in seconds.
const FIRST_WORD: u64 = 1;

pub struct Door {
    pub listener: usize,
    pub healthy: bool,
}

/// What came in.
pub enum Visit {
    /// Nothing that matters any more.
    Nothing,
    /// Two streams, to read from and to write to, lent as long as the connection behind them is open.
    Lent([usize; 2], Control),
}

impl Door {
    pub fn open() -> Self {
        let Some(listener) = control::listen() else { exit(UNREACHED) };
        Self { listener, healthy: false }
    }

    /// Waits for streams. Without them it was for nothing, and whoever asks the container to end is obeyed at once.
    pub fn wait(&self, token: &[u8], signals: Signals) -> [usize; 2] {
        let until = sys::clock() + PATIENCE;
        loop {
            let Some(left) = until.checked_sub(sys::clock()).filter(|left| *left > 0) else { exit(UNREACHED) };
            let mut waiting = [Poll::readable(self.listener), Poll::readable(signals.0)];
            if sys::poll(&mut waiting, Some(left)) <= 0 {
                continue;
            }
            if waiting[1].happened != 0 {
                exit(GONE)
            }
            // The connection stays open to the end of the process.
            if let Visit::Lent(streams, _) = self.admit(token) {
                return streams;
            }
        }
    }

    /// Hears a connection.
    pub fn admit(&self, token: &[u8]) -> Visit {
        let accepted = call(sys::ACCEPT4, [self.listener, 0, 0, CLOEXEC | NONBLOCK]);
        if accepted < 0 {
            return Visit::Nothing;
        }
        let visitor = Control(accepted as usize);
        let mut frame = [0; 512];
        let (length, lent) = match sys::poll(&mut [Poll::readable(visitor.0)], Some(FIRST_WORD)) {
            1 => visitor.receive_with(&mut frame),
            _ => (0, None),
        };
        let said = &frame[..length.max(0) as usize];
        let shown = said.split_first();
        match (shown, lent) {
            (Some((b'B', shown)), Some(streams)) if shown == token => return Visit::Lent(streams, visitor),
            (Some((b'Q', shown)), None) if shown == token => {
                visitor.send(&[b'A', u8::from(self.healthy)], &[]);
            }
            (_, Some(streams)) => streams.into_iter().for_each(close),
            _ => {}
        }
        close(visitor.0);
        Visit::Nothing
    }
}

/// `agent lend`, run through the engine with somebody at its streams: lends them to process 1, as long as that wants them.
pub fn lend(token: &[u8]) -> ! {
    let until = sys::clock() + PATIENCE;
    let process = loop {
        match connect() {
            Some(process) => break process,
            // It is still opening its door.
            None if sys::clock() < until => {
                let time = [0, 5_000_000usize];
                call(sys::PPOLL, [0, 0, time.as_ptr() as usize, 0, 0]);
            }
            None => exit(UNREACHED),
        }
    };
    let mut frame = Frame::new(b'B');
    frame.put(token);
    if process.send(frame.bytes(), &[0, 1]) {
        // Nothing is said: the end is what is waited for.
        process.receive(&mut [0; 1]);
    }
    exit(0)
}
