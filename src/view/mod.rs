//! How a project looks to people and to scripts: progress, log lines, tables, JSON, the dashboard.
//!
//! Views are drawn from a [`crate::session::Session`] and know nothing of what is behind it: no supervisor, no engine,
//! no plan. They read no environment and no clock of their own accord, except [`follow()`] and the dashboard, whose job
//! is to wait. Everything is written to writers that the caller gives.

pub mod console;
pub mod explain;
pub mod follow;
pub mod image;
pub mod json;
pub mod log;
pub mod merge;
pub mod progress;
pub mod row;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod screen;
pub mod style;
pub mod table;
pub mod text;
pub mod tty;
pub mod tui;
pub mod usage;

use std::fmt;
use std::io::Write;

pub use console::{Console, Lines, Options, Shown};
pub use follow::{Followed, follow};

/// Where a view writes.
pub type Out<'w> = &'w mut (dyn Write + Send);

/// Standard output and standard error, or what stands for them.
pub struct Streams<'w> {
    /// Data: log lines, tables.
    pub out: Out<'w>,
    /// Progress, warnings, errors.
    pub err: Out<'w>,
}

impl fmt::Debug for Streams<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").finish_non_exhaustive()
    }
}
