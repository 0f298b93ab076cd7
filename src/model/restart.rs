//! Restart policy (compose specification, `restart`).

use std::fmt;

/// When an instance that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// Whatever the exit code, also after an engine restart.
    Always,
    /// After a non-zero exit, at most so many times; 0 means without limit.
    OnFailure {
        /// Upper bound of restarts.
        maximum: u32,
    },
    /// As `Always`, unless stopped by hand.
    UnlessStopped,
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::Always => f.write_str("always"),
            Self::OnFailure { maximum: 0 } => f.write_str("on-failure"),
            Self::OnFailure { maximum } => write!(f, "on-failure:{maximum}"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}
