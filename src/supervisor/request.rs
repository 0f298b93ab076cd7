//! Open requests: what each touched, when it is settled, and what did not work.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::event::Failure;
use crate::model::InstanceName;
use crate::plan::unit::UnitId;

/// A request that was taken and is not settled yet.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) aim: Aim,
    /// Steps it brought.
    pub(super) steps: BTreeSet<UnitId>,
    /// Instances it touched, each until it arrived where it was asked to.
    pub(super) instances: BTreeSet<InstanceName>,
    /// Kills that were sent and not answered yet.
    pub(super) kills: BTreeSet<InstanceName>,
    /// What did not work, beside what the states of steps and instances tell.
    pub(super) failures: Vec<Failure>,
    /// It is not settled before its instances are ready.
    pub(super) ready: Option<Ready>,
}

/// How a request waits until its instances are ready.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// Not longer than this.
    pub(super) within: Option<Duration>,
    /// When that time is over, once it began.
    pub(super) until: Option<Duration>,
    /// When to look again although nothing happened.
    pub(super) next: Option<Duration>,
    /// The wait is over, and what did not become ready.
    pub(super) over: Option<Vec<Failure>>,
}

/// What a request is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// Its instances are to run.
    Up,
    /// Its instances are to rest.
    Down,
    /// Its signals are to be sent.
    Signals,
}

impl Request {
    pub(super) fn new(id: u64, aim: Aim) -> Self {
        Self {
            id,
            aim,
            steps: BTreeSet::new(),
            instances: BTreeSet::new(),
            kills: BTreeSet::new(),
            failures: Vec::new(),
            ready: None,
        }
    }
}
