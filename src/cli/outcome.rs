//! How a command ends: exit codes and error texts, in one place.

use std::process::ExitCode;

use crate::compose::LoadError;
use crate::engine::EngineError;
use crate::model::ServiceName;

/// Result of a command: the exit code of one that did what it could.
pub type Outcome = Result<ExitCode, Failure>;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// Wrong in the user's files; exit 1.
    Load(Box<LoadError>),
    /// An engine could not; exit 1.
    Engine(EngineError),
    /// Several things at once.
    Many(Vec<Failure>),
    /// Told already, e.g. by a view; only the exit code is left.
    Told(u8),
    /// Interrupted; exit 130.
    Interrupted,
    /// Anything else, with context; exit 1.
    Other(anyhow::Error, Vec<String>),
}

impl Failure {
    /// A failure in one sentence, with advice.
    pub fn new(message: impl Into<String>, hints: impl IntoIterator<Item = String>) -> Self {
        Self::Other(anyhow::Error::msg(message.into()), hints.into_iter().collect())
    }

    /// Failures of several services.
    pub fn many(failures: Vec<(ServiceName, Self)>) -> Self {
        Self::Many(failures.into_iter().map(|(_, failure)| failure).collect())
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Load(_) | Self::Engine(_) | Self::Many(_) | Self::Other(..) => 1,
            Self::Told(code) => *code,
            Self::Interrupted => 130,
        }
    }

    /// The text after `error: ` and its hints; absent when there is nothing left to say.
    pub fn text(&self) -> Option<(String, Vec<String>)> {
        match self {
            Self::Load(_) | Self::Many(_) | Self::Told(_) | Self::Interrupted => None,
            Self::Engine(error) => Some((error.to_string(), error.hint.iter().cloned().collect())),
            Self::Other(error, hints) => Some((chain(error), hints.clone())),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error, Vec::new())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Other(error.into(), Vec::new())
    }
}

/// An error with its causes, without saying again what a cause already says.
fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
