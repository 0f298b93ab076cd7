//! Health checks as declared (compose specification, `healthcheck`).

use std::time::Duration;

/// A health check in long form. Absent fields mean the image's, then the engine's default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    /// What is run.
    pub test: Option<HealthTest>,
    /// Time between two runs; the engine's default is 30 s.
    pub interval: Option<Duration>,
    /// A run longer than this failed; the engine's default is 30 s.
    pub timeout: Option<Duration>,
    /// Failures in a row that make the service unhealthy; the engine's default is 3.
    pub retries: Option<u32>,
    /// Failures in this time after the start do not count.
    pub start_period: Option<Duration>,
    /// Time between two runs during the start period (engine API 1.44 and later).
    pub start_interval: Option<Duration>,
}

/// What a health check runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthTest {
    /// `NONE`, or `disable: true`: switches the image's check off.
    Disabled,
    /// `CMD`: argv.
    Command(Vec<String>),
    /// `CMD-SHELL`: one shell line.
    Shell(String),
}

impl HealthTest {
    /// Reads the long form, as files, images and engines write it: the kind, then its words.
    pub fn read(words: &[String]) -> Option<Self> {
        let (kind, rest) = words.split_first()?;
        match kind.as_str() {
            "NONE" => Some(Self::Disabled),
            "CMD" => Some(Self::Command(rest.to_vec())),
            "CMD-SHELL" => Some(Self::Shell(rest.join(" "))),
            _ => None,
        }
    }
}
