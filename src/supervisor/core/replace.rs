//! What a running instance becomes in its own place: one with a new module, or a program anew. The engine is asked once at a
//! time for each, and whatever ends meanwhile starts as what it was to become.

use std::sync::Arc;

use super::{Core, Effect, StepState, Turn};
use crate::engine::report::Attempt;
use crate::event::{Event, Failure};
use crate::model::{InstanceName, Resolved};
use crate::plan::unit::{InstanceSpec, UnitId};
use crate::supervisor::instance::{Instance, Next, Problem, State, Wish};

impl Core {
    pub(super) fn advance_swaps(&mut self, turn: &mut Turn) -> bool {
        let mut moved = false;
        for index in 0..self.instances.len() {
            let instance = &self.instances[index];
            let Some(Next::Wanted(spec)) = &instance.next else { continue };
            let spec = Arc::clone(spec);
            if matches!(instance.state, State::Starting { .. }) {
                continue;
            }
            let instance = self.instances.at_mut(index);
            if instance.runs_on() {
                turn.began(instance.label(), "Reloading");
                turn.effects.push(Effect::Replace {
                    instance: spec.name.clone(),
                    attempt: instance.attempt,
                    spec: Arc::clone(&spec),
                });
                instance.next = Some(Next::Underway(spec));
            } else {
                instance.next = None;
                instance.respecify(spec);
            }
            moved = true;
        }
        moved
    }

    pub(super) fn replace_done(
        &mut self,
        name: &InstanceName,
        attempt: Attempt,
        spec: &Arc<InstanceSpec>,
        result: Result<(), Problem>,
        turn: &mut Turn,
    ) {
        let Some(instance) = self.current(name, attempt) else { return };
        match &instance.next {
            Some(Next::Underway(under_way)) if Arc::ptr_eq(under_way, spec) => instance.next = None,
            Some(Next::Anew(under_way)) if Arc::ptr_eq(under_way, spec) => {
                instance.next = None;
                return self.began_again(name, result, turn);
            }
            Some(Next::Wanted(_) | Next::Underway(_) | Next::Anew(_)) | None => return,
        }
        match result {
            Ok(()) => {
                instance.respecify(Arc::clone(spec));
                turn.ended(instance.label(), "Reloaded");
                if let Resolved::Wasm(module) = &spec.resolved {
                    turn.emit(Event::Reloaded { instance: name.clone(), digest: module.digest.clone() });
                }
            }
            Err(problem) if instance.runs_on() => {
                turn.failed(instance.label(), &problem);
                self.fail_requests(name, &problem);
            }
            // It ended meanwhile, whyever: its next start is one of the new module.
            Err(_) => {
                instance.respecify(Arc::clone(spec));
                if let (Wish::Run, State::Exited { .. }) = (instance.wish, &instance.state) {
                    instance.rouse();
                }
            }
        }
    }

    /// Whether what is to be restarted can go on in its own place, its ports open all the while: a program that nothing which
    /// is to be stopped or restarted as well depends on, or is depended on by. A component may have requests that hang: it
    /// is stopped.
    pub(super) fn can_restart_in_place(&self, instance: &Instance) -> bool {
        let name = &instance.spec.name;
        let is_program = match &instance.spec.resolved {
            Resolved::Wasm(module) => !module.kind.is_http() || module.function.is_some(),
            Resolved::Linux { .. } => false,
        };
        let leads_to = |from: &Instance, to: &InstanceName| {
            from.after.iter().any(|edge| matches!(&edge.on, UnitId::Instance(on) if on == to))
        };
        let is_tied = |other: &Instance| {
            other.spec.name != *name
                && other.wish != Wish::Run
                && (leads_to(other, name) || leads_to(instance, &other.spec.name))
        };
        let made = self.steps.get(&UnitId::Create(name.clone()));
        is_program
            && instance.wish == Wish::Again
            && matches!(instance.state, State::Running { paused: false, .. })
            && instance.next.is_none()
            && made.is_none_or(|unit| matches!(unit.state, StepState::Done))
            && !self.instances.values().any(is_tied)
    }

    /// The engine's answer about a restart in place.
    fn began_again(&mut self, name: &InstanceName, result: Result<(), Problem>, turn: &mut Turn) {
        let Some(instance) = self.instances.get_mut(name) else { return };
        if instance.wish != Wish::Again || !matches!(instance.state, State::Running { .. }) {
            return;
        }
        instance.wish = Wish::Run;
        match result {
            Ok(()) => {
                instance.runs_anew(turn);
                turn.ended(instance.label(), "Started");
            }
            Err(problem) => {
                turn.failed(instance.label(), &problem);
                self.fail_requests(name, &problem);
            }
        }
    }

    /// Whoever wanted it to become another learns that it did not.
    fn fail_requests(&mut self, name: &InstanceName, problem: &Problem) {
        for request in self.requests.iter_mut().filter(|request| request.instances.contains(name)) {
            request.failures.push(Failure {
                service: Some(name.service.clone()),
                message: problem.message.clone(),
                hint: problem.hint.clone(),
            });
        }
    }
}

impl Instance {
    /// Plans the new module for an instance that is up. `false` where it is not: then it starts as the new one.
    pub(super) fn take_swap(&mut self, spec: &Arc<InstanceSpec>) -> bool {
        match (&self.state, self.wish) {
            (State::Starting { .. } | State::Running { .. }, Wish::Run | Wish::Rest) => {
                self.wish = Wish::Run;
                self.next = Some(Next::Wanted(Arc::clone(spec)));
                true
            }
            // Its next run is one of the new module.
            (State::Starting { .. } | State::Running { .. }, Wish::Again) => {
                self.respecify(Arc::clone(spec));
                true
            }
            (
                State::Idle
                | State::Stopping { .. }
                | State::Exited { .. }
                | State::Backoff { .. }
                | State::Restarting { .. }
                | State::Failed { .. },
                _,
            ) => false,
        }
    }

    /// Asks for a restart in its own place.
    pub(super) fn begin_again(&mut self, turn: &mut Turn) {
        self.next = Some(Next::Anew(Arc::clone(&self.spec)));
        self.grace = None;
        turn.began(self.label(), "Restarting");
        turn.effects.push(Effect::Replace {
            instance: self.spec.name.clone(),
            attempt: self.attempt,
            spec: Arc::clone(&self.spec),
        });
    }

    /// Whether it is restarted in its own place now.
    pub(super) fn is_restarting_in_place(&self) -> bool {
        self.wish == Wish::Again && matches!(self.next, Some(Next::Anew(_)))
    }

    /// Whether it runs and is to go on.
    fn runs_on(&self) -> bool {
        self.wish == Wish::Run && matches!(self.state, State::Running { .. })
    }

    /// Whether its engine is at something with it.
    pub(super) fn is_moving(&self) -> bool {
        matches!(self.state, State::Starting { .. } | State::Stopping { .. })
            || matches!(self.next, Some(Next::Underway(_) | Next::Anew(_)))
    }
}
