//! `up --wait`: a request that is carried out only when what it brought up is healthy, runs steadily, or did its work.
//!
//! Waiting begins where carrying out ends: as long as something is still to be started, that goes on. Then the first
//! that will never be ready ends it, and so does its own time limit, which runs from when nothing is made or started any
//! more but what waits for somebody's health.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Core, Now, StepState, Turn};
use crate::event::Failure;
use crate::model::InstanceName;
use crate::model::quantity::go_duration;
use crate::plan::observed::Health;
use crate::supervisor::instance::{Awaited, Instance, Problem, State, Wish, spoken};
use crate::supervisor::request::{Ready, Request};

/// How long what has no check has to run until it counts as running: what cannot run ends at once.
const STEADY: Duration = Duration::from_millis(500);

/// How far an instance is.
enum Readiness {
    /// It is ready.
    Here,
    /// It is not yet, for this reason; where that is enough, it will be at this time.
    Waits(String, Option<Duration>),
    /// It never will be, by itself.
    Never(String),
}

impl Core {
    /// Looks how far an open request's instances are. `carried_out` tells that nothing of it is still to begin.
    pub(super) fn watch_ready(&self, request: &mut Request, carried_out: bool, turn: &Turn) {
        let quiet = carried_out || self.only_waits(request);
        let Some(ready) = &mut request.ready else { return };
        let now = turn.now;
        if let (true, None, Some(within)) = (quiet, ready.until, ready.within) {
            ready.until = Some(now.elapsed + within);
        }
        let late = ready.until.is_some_and(|until| until <= now.elapsed);
        let (mut open, mut never, mut next) = (Vec::new(), Vec::new(), ready.until);
        for (name, instance) in request.instances.iter().filter_map(|name| self.instances.get_key_value(name)) {
            match self.readiness(instance, now) {
                Readiness::Here => {}
                Readiness::Waits(why, until) => {
                    next = next.into_iter().chain(until).min();
                    open.push(format!("{} {why}", spoken(name, self.replicas(name))));
                }
                Readiness::Never(message) => {
                    never.push(Failure { service: Some(name.service.clone()), message, hint: None });
                }
            }
        }
        ready.next = next.filter(|_| !late);
        ready.over = match (never.is_empty(), open.is_empty()) {
            (false, _) if carried_out || late => Some(never),
            (true, true) if carried_out => Some(Vec::new()),
            _ if late => Some(vec![too_late(ready, &open)]),
            _ => None,
        };
    }

    /// Progress: `Waiting` for whatever is not healthy yet and is to be.
    pub(super) fn tell_unready(&mut self, turn: &mut Turn) {
        let open = self.requests.iter().filter(|request| request.ready.is_some());
        let names: BTreeSet<InstanceName> = open.flat_map(|request| &request.instances).cloned().collect();
        for name in names {
            let waits = |instance: &&mut Instance| {
                let runs = matches!(instance.state, State::Running { paused: false, .. });
                runs && instance.health == Some(Health::Starting) && instance.awaited.is_none()
            };
            if let Some(instance) = self.instances.get_mut(&name).filter(waits) {
                instance.awaited = Some(Awaited::Ready);
                turn.began(instance.label(), "Waiting");
            }
        }
    }

    /// Progress: what became of an instance that was waited for; whether anything did.
    pub(super) fn tell_ready(&self, instance: &Instance, turn: &mut Turn) -> bool {
        match self.readiness(instance, turn.now) {
            Readiness::Waits(..) if matches!(instance.state, State::Running { .. }) => return false,
            Readiness::Here if instance.health == Some(Health::Healthy) => turn.ended(instance.label(), "Healthy"),
            Readiness::Never(message) => turn.failed(instance.label(), &Problem::new(message)),
            Readiness::Here | Readiness::Waits(..) => {}
        }
        true
    }

    /// When an open request that waits wants to be looked at again.
    pub(super) fn ready_deadline(&self) -> Option<Duration> {
        self.requests.iter().filter_map(|request| request.ready.as_ref()?.next).min()
    }

    /// Whether whatever of it is still to come waits for something that runs.
    fn only_waits(&self, request: &Request) -> bool {
        let steps = request.steps.iter().filter_map(|id| self.steps.get(id));
        let made = steps.into_iter().all(|unit| matches!(unit.state, StepState::Done | StepState::Failed { .. }));
        let instances = request.instances.iter().filter_map(|name| self.instances.get(name));
        made && !instances.into_iter().any(Instance::is_moving)
    }

    fn readiness(&self, instance: &Instance, now: Now) -> Readiness {
        let container = &instance.spec.container;
        let waits = |why: &str| Readiness::Waits(why.to_owned(), None);
        match (instance.wish, &instance.state) {
            // What failed is told by whoever tells how a request ended.
            (_, State::Failed { .. }) => Readiness::Here,
            (Wish::Rest, _) => Readiness::Never(format!("container `{container}` was stopped")),
            (Wish::Again, _) => waits("is being restarted"),
            (Wish::Run, State::Idle) => {
                let edge = self.blocked(instance).map(|edge| self.reason(&instance.after[edge]));
                Readiness::Waits(edge.map_or("is not started yet".to_owned(), |edge| format!("waits for {edge}")), None)
            }
            (Wish::Run, State::Starting { .. }) => waits("is being started"),
            (Wish::Run, State::Stopping { .. }) => waits("is being stopped"),
            (Wish::Run, State::Backoff { code, .. } | State::Restarting { code, .. }) => {
                Readiness::Waits(format!("is to be restarted after it exited ({code})"), None)
            }
            // A one-shot did its work.
            (Wish::Run, State::Exited { code: 0, .. }) => Readiness::Here,
            (Wish::Run, State::Exited { code, reason }) => Readiness::Never(match reason {
                Some(reason) => format!("container `{container}` exited ({code}): {reason}"),
                None => format!("container `{container}` exited ({code})"),
            }),
            (Wish::Run, State::Running { paused: true, .. }) => waits("is paused"),
            (Wish::Run, State::Running { since, paused: false }) => match (instance.health, &instance.check) {
                (Some(Health::Healthy), _) => Readiness::Here,
                (Some(Health::Unhealthy), _) => Readiness::Never(match &instance.last_probe {
                    Some(probe) => format!("container `{container}` is unhealthy: {probe}"),
                    None => format!("container `{container}` is unhealthy"),
                }),
                (Some(Health::Starting), _) => waits("is not healthy yet"),
                (None, Err(unrecognised)) => Readiness::Never(unrecognised.0.clone()),
                (None, Ok(_)) => {
                    let known = now.elapsed.saturating_sub(*since);
                    let started = instance.facts.started.map(|started| now.at.duration_since(started));
                    let before = started.and_then(|lasted| lasted.try_into().ok()).unwrap_or_default();
                    if known.max(before) >= STEADY {
                        Readiness::Here
                    } else {
                        Readiness::Waits("has just started".to_owned(), Some(*since + STEADY))
                    }
                }
            },
        }
    }
}

fn too_late(ready: &Ready, open: &[String]) -> Failure {
    let within = ready.within.map(go_duration).unwrap_or_default();
    Failure { service: None, message: format!("not ready within {within}: {}", open.join(", ")), hint: None }
}
