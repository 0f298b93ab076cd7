//! What scenarios stand on: an engine if one answers, guests built from source, a project in a folder of its own.
//!
//! A scenario states one obligation. It polls with [`eventually`] and never sleeps for a result; when its [`Project`]
//! goes, everything it started must be gone too, or the scenario fails.

pub mod engine;
pub mod guests;
pub mod http;
pub mod layout;
pub mod leaks;
pub mod places;
pub mod process;
pub mod project;
pub mod python;
pub mod remotes;
pub mod terminal;
pub mod tokens;

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

pub use engine::Engine;
pub use guests::Guest;
pub use process::{Outcome, Running};
pub use project::Project;

/// Long enough for a busy machine of two cores; a scenario that works never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until the answer is `Ok`, and fails with the last `Err` when patience ends.
pub fn eventually<T, E: Display>(what: &str, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let start = now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(error) if start.elapsed() > PATIENCE => {
                panic!("{what}: not within {PATIENCE:?}; the last try: {error}")
            }
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// `Ok` when it holds, else what was seen instead.
pub fn holds(condition: bool, seen: impl Display) -> Result<(), String> {
    if condition { Ok(()) } else { Err(seen.to_string()) }
}

/// The clock, for deadlines of tests.
#[expect(clippy::disallowed_methods, reason = "deadlines of tests are real time")]
pub fn now() -> Instant {
    Instant::now()
}
