//! What runs instances. An engine carries out steps and runs instances; it decides nothing about order or restarts.
//!
//! Facts come back as [`Report`]s through an [`Outlet`]. Engines know nothing of the supervisor, of events or of terminals.

pub mod archive;
pub mod docker;
pub mod engines;
#[cfg(test)]
pub mod fake;
pub mod report;
#[cfg(test)]
mod testing;
pub mod wasm;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::model::{InstanceName, ProjectName};
use crate::plan::observed::{Existing, Health, Observed};
use crate::plan::unit::{InstanceSpec, Step};
pub use report::{Attempt, EngineError, ErrorKind, Exit, OutputLine, Refusal, Report, Started, Stream, Tagged};

/// Result of an engine's operation.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// Something that runs instances.
#[async_trait]
pub trait Engine: Send + Sync {
    /// What exists now of a project: everything that carries its labels.
    async fn observe(&self, project: &ProjectName) -> Result<Observed>;

    /// Carries out a step. Doing a step whose effect is there already succeeds.
    async fn apply(&self, step: &Step) -> Result<()>;

    /// Starts what a `Create` step made, or what exists stopped. Returns once it runs;
    /// [`Report::Started`] went out before, exits and health come later.
    async fn start(&self, spec: Arc<InstanceSpec>, outlet: Outlet) -> Result<Box<dyn Handle>>;

    /// Watches what runs already. [`Report::Started`] goes out as after a start.
    async fn adopt(&self, spec: Arc<InstanceSpec>, existing: &Existing, outlet: Outlet) -> Result<Box<dyn Handle>>;
}

/// A running instance. Dropping it stops watching, not the instance.
#[async_trait]
pub trait Handle: Send + Sync {
    /// Asks it to end: its stop signal, then SIGKILL after `grace` (absent: its own grace period).
    /// Returns when it has ended; [`Report::Exited`] went out.
    async fn stop(&self, grace: Option<Duration>) -> Result<()>;

    /// Has it go on as this, without an end: what it serves is served all the while. Where that does not work it stays as it was,
    /// and its output says why.
    async fn replace(&self, spec: Arc<InstanceSpec>) -> Result<()> {
        let why = "a container cannot take another image while it runs";
        Err(EngineError::new(ErrorKind::Invalid, "reload", &spec.container, why))
    }

    /// Tells what probes found, to an engine that shows an instance's health without checking it itself.
    fn tell_health(&self, health: Health) {
        let _ = health;
    }

    /// Sends a signal (`SIGKILL`, `SIGHUP`, …).
    async fn kill(&self, signal: &str) -> Result<()>;
}

/// A line of output with the instance that wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaggedLine {
    /// The instance.
    pub instance: InstanceName,
    /// The line.
    pub line: OutputLine,
}

/// Where reports and lines of one attempt go.
#[derive(Debug, Clone)]
pub struct Outlet {
    instance: InstanceName,
    attempt: Attempt,
    reports: mpsc::Sender<Tagged>,
    lines: mpsc::Sender<TaggedLine>,
    follow: bool,
}

impl Outlet {
    /// An outlet for one attempt. With `follow`, an engine whose output is kept elsewhere (a container's) sends it as well.
    pub fn new(
        instance: InstanceName,
        attempt: Attempt,
        reports: mpsc::Sender<Tagged>,
        lines: mpsc::Sender<TaggedLine>,
        follow: bool,
    ) -> Self {
        Self { instance, attempt, reports, lines, follow }
    }

    /// The instance it belongs to.
    pub fn instance(&self) -> &InstanceName {
        &self.instance
    }

    /// Whether output that the engine keeps (a container's) is wanted here.
    pub fn follows(&self) -> bool {
        self.follow
    }

    /// Tells a fact. Facts are never dropped; after the supervisor is gone they have no reader.
    pub async fn report(&self, report: Report) {
        let tagged = Tagged { instance: self.instance.clone(), attempt: self.attempt, report };
        let _ = self.reports.send(tagged).await;
    }

    /// Hands on a line, waiting while the reader is behind: a guest that floods slows itself, nobody else.
    pub async fn line(&self, line: OutputLine) {
        let _ = self.lines.send(TaggedLine { instance: self.instance.clone(), line }).await;
    }
}
