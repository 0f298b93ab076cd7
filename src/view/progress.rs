//! What comes up or goes down, one row a thing: the state behind every way of showing progress.

use indexmap::IndexMap;
use jiff::Timestamp;

use crate::event::{Event, Stamped};

/// Rows in order of first appearance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    rows: IndexMap<String, Row>,
}

/// One thing that is worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// `Network x`, `Container y`.
    pub id: String,
    /// `Creating`, `Started`, `Error`, …
    pub status: String,
    /// Whether that is an end.
    pub stage: Stage,
    /// When work on it began.
    pub since: Timestamp,
    /// When its last step ended; meaningless while it is busy.
    pub until: Timestamp,
}

/// How far a row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Under way.
    Busy,
    /// Ended well.
    Done,
    /// Failed, and why.
    Failed {
        /// Why.
        error: String,
    },
}

impl Progress {
    /// Takes an event in; gives the row that it changed, if it is about progress.
    pub fn take(&mut self, stamped: &Stamped) -> Option<&Row> {
        let (id, status, stage) = told(&stamped.event)?;
        let at = stamped.at;
        let row = self.rows.entry(id.to_owned()).or_insert_with(|| Row {
            id: id.to_owned(),
            status: String::new(),
            stage: Stage::Busy,
            since: at,
            until: at,
        });
        if row.status == status && row.stage == stage {
            return None;
        }
        (row.status, row.stage, row.until) = (status.to_owned(), stage, at);
        Some(row)
    }

    /// All rows.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &Row> {
        self.rows.values()
    }

    /// Rows that have ended, well or not.
    pub fn ended(&self) -> usize {
        self.rows().filter(|row| row.stage != Stage::Busy).count()
    }

    /// Whether nothing is under way.
    pub fn is_settled(&self) -> bool {
        self.ended() == self.rows.len()
    }

    /// Forgets all rows: what comes next is another piece of work.
    pub fn clear(&mut self) {
        self.rows.clear();
    }
}

/// What an event tells of progress: on what, in what word, and how far it is.
pub fn told(event: &Event) -> Option<(&str, &str, Stage)> {
    match event {
        Event::StepStarted { id, status } => Some((id, status, Stage::Busy)),
        Event::StepFinished { id, status } => Some((id, status, Stage::Done)),
        Event::StepFailed { id, error, .. } => Some((id, "Error", Stage::Failed { error: error.clone() })),
        Event::Planned { .. }
        | Event::PhaseChanged { .. }
        | Event::Changed { .. }
        | Event::Removed { .. }
        | Event::Reloaded { .. }
        | Event::Refused { .. }
        | Event::Warned { .. }
        | Event::Settled { .. } => None,
    }
}

impl Row {
    /// Seconds it took, or has taken until `now`.
    pub fn seconds(&self, now: Timestamp) -> f64 {
        let end = if self.stage == Stage::Busy { now } else { self.until };
        end.duration_since(self.since).as_secs_f64().max(0.0)
    }
}
