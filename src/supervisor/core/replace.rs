//! New modules for instances that run: the engine is asked once at a time for each, and whatever ends meanwhile starts as what it
//! was to become.

use std::sync::Arc;

use super::{Core, Effect, Turn};
use crate::engine::report::Attempt;
use crate::event::{Event, Failure};
use crate::model::{InstanceName, Resolved};
use crate::plan::unit::InstanceSpec;
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
        if !matches!(&instance.next, Some(Next::Underway(under_way)) if Arc::ptr_eq(under_way, spec)) {
            return;
        }
        instance.next = None;
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

    /// Whether it runs and is to go on.
    fn runs_on(&self) -> bool {
        self.wish == Wish::Run && matches!(self.state, State::Running { .. })
    }

    /// Whether its engine is at something with it.
    pub(super) fn is_moving(&self) -> bool {
        matches!(self.state, State::Starting { .. } | State::Stopping { .. })
            || matches!(self.next, Some(Next::Underway(_)))
    }
}
