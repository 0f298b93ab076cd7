//! What facts change: reports of engines, ends of steps, starts, stops, probes. A fact of an earlier attempt changes nothing.

use super::advance::{progress, ran};
use super::{Core, Effect, StepState, Turn};
use crate::engine::report::{Attempt, ErrorKind, Exit, Report, Started, Tagged};
use crate::event::{Event, Failure};
use crate::model::InstanceName;
use crate::plan::observed::Health;
use crate::plan::unit::{AtEnd, Step, UnitId};
use crate::supervisor::health::Monitor;
use crate::supervisor::instance::{Instance, Origin, Problem, State, Wish};

impl Core {
    /// The instance, if this is its present attempt.
    pub(super) fn current(&mut self, name: &InstanceName, attempt: Attempt) -> Option<&mut Instance> {
        self.instances.get_mut(name).filter(|instance| instance.attempt == attempt)
    }

    /// Whether what ran last makes way for what a `Create` unit makes or made: its removal is our own doing.
    fn is_replaced(&self, name: &InstanceName) -> bool {
        let rests = self.instances.get(name).is_some_and(|instance| !instance.is_active());
        let made = self.steps.get(&UnitId::Create(name.clone()));
        rests && made.is_some_and(|unit| !matches!(unit.state, StepState::Failed { .. }))
    }

    pub(super) fn report(&mut self, tagged: Tagged, turn: &mut Turn) {
        let ending = self.ending();
        let replaced = self.is_replaced(&tagged.instance);
        let Some(instance) = self.current(&tagged.instance, tagged.attempt) else { return };
        match tagged.report {
            Report::Started(facts) => {
                if let State::Starting { started, .. } = &mut instance.state {
                    *started = true;
                    instance.learn(facts);
                    instance.try_running(ending, turn);
                }
            }
            Report::Moved(addresses) => instance.moved(addresses),
            Report::Health(health) => instance.health = Some(health),
            Report::Paused(frozen) => {
                if let State::Running { paused, .. } = &mut instance.state {
                    *paused = frozen;
                }
            }
            Report::Exited(end) => match &mut instance.state {
                State::Starting { exit, .. } => *exit = Some(end),
                State::Running { .. } | State::Stopping { .. } | State::Restarting { .. } | State::Failed { .. } => {
                    instance.exited(end, ending, turn)
                }
                State::Idle | State::Exited { .. } | State::Backoff { .. } => {}
            },
            Report::Restarted(started) => instance.restarted(started, ending, turn),
            Report::Removed if replaced || instance.spec.at_end == AtEnd::Removed => {}
            Report::Removed => instance.vanished(),
            Report::Refused(refusal) => turn.emit(Event::Refused {
                instance: tagged.instance,
                what: refusal.what,
                why: refusal.why,
                grant: refusal.grant,
            }),
        }
    }

    pub(super) fn step_done(&mut self, id: UnitId, result: Result<(), Problem>, turn: &mut Turn) {
        self.inflight.remove(&id);
        let Some(unit) = self.steps.get_mut(&id).filter(|unit| matches!(unit.state, StepState::Running)) else {
            return;
        };
        let (label, _, done) = progress(&unit.step);
        if let Err(problem) = result {
            if let (Step::RemoveNetwork(_), Some(ErrorKind::Conflict)) = (&unit.step, problem.kind) {
                // As compose does: whoever still uses it is none of this project's, and the rest is down.
                turn.ended(label, "Resource is still in use");
                turn.emit(Event::Warned { message: problem.message });
                unit.state = StepState::Done;
                return;
            }
            turn.failed(label, &problem);
            unit.state = StepState::Failed { problem, origin: Origin::Instance };
            return;
        }
        turn.ended(label, done);
        unit.state = StepState::Done;
        match &unit.step {
            Step::Create { spec, replace } => {
                if replace.is_some() {
                    turn.effects.push(Effect::Forget { instance: spec.name.clone() });
                }
                if let Some(instance) = self.instances.get_mut(&spec.name) {
                    instance.facts.created = Some(turn.now.at);
                }
            }
            Step::Remove { existing, .. } => {
                let rests = |instance: &Instance| instance.wish == Wish::Rest && !instance.is_active();
                let gone = existing.instance().filter(|name| self.instances.get(name).is_none_or(rests));
                if let Some(name) = gone {
                    turn.effects.push(Effect::Forget { instance: name.clone() });
                    if self.instances.remove(&name) {
                        turn.emit(Event::Removed { instance: name });
                    }
                }
            }
            Step::CreateNetwork(_) | Step::CreateVolume(_) | Step::RemoveNetwork(_) | Step::RemoveVolume(_) => {}
        }
    }

    pub(super) fn start_done(
        &mut self,
        name: &InstanceName,
        attempt: Attempt,
        result: Result<(), Problem>,
        turn: &mut Turn,
    ) {
        let ending = self.ending();
        let Some(instance) = self.current(name, attempt) else { return };
        let State::Starting { returned, .. } = &mut instance.state else { return };
        match result {
            Ok(()) => {
                *returned = true;
                instance.try_running(ending, turn);
            }
            Err(problem) => {
                turn.failed(instance.label(), &problem);
                instance.ended(turn.now.at);
                instance.state = State::Failed { problem, origin: Origin::Instance };
            }
        }
    }

    pub(super) fn stop_done(
        &mut self,
        name: &InstanceName,
        attempt: Attempt,
        result: Result<(), Problem>,
        turn: &mut Turn,
    ) {
        let ending = self.ending();
        let Some(instance) = self.current(name, attempt) else { return };
        let State::Stopping { last } = &mut instance.state else { return };
        match result {
            // The exit is reported before the stop returns; without one there was no run to end.
            Ok(()) => {
                let unknown = || (137, Some("it was gone before it was stopped".to_owned()));
                let (code, reason) = last.take().unwrap_or_else(unknown);
                instance.exited(Exit { code, at: turn.now.at, reason, restarting: false }, ending, turn);
            }
            Err(problem) => instance.stuck(problem, turn),
        }
    }

    pub(super) fn kill_done(
        &mut self,
        name: &InstanceName,
        attempt: Attempt,
        result: Result<(), Problem>,
        turn: &mut Turn,
    ) {
        for request in &mut self.requests {
            if request.kills.remove(name)
                && let Err(problem) = &result
            {
                request.failures.push(Failure {
                    service: Some(name.service.clone()),
                    message: problem.message.clone(),
                    hint: problem.hint.clone(),
                });
            }
        }
        let Some(instance) = self.current(name, attempt) else { return };
        if let (Err(problem), State::Stopping { .. }, true) = (result, &instance.state, instance.killed) {
            instance.stuck(problem, turn);
        }
    }

    pub(super) fn probed(&mut self, name: &InstanceName, attempt: Attempt, result: Result<(), String>, turn: &Turn) {
        let Some(instance) = self.current(name, attempt) else { return };
        let Some(monitor) = &mut instance.monitor else { return };
        match result {
            Ok(()) => {
                monitor.passed(turn.now.elapsed);
                instance.last_probe = None;
            }
            Err(text) => {
                monitor.failed(turn.now.elapsed);
                instance.last_probe = Some(text);
            }
        }
        instance.health = Some(monitor.verdict());
    }
}

impl Instance {
    /// Runs once the engine both returned and told that it runs; what it told meanwhile counts then.
    fn try_running(&mut self, ending: bool, turn: &mut Turn) {
        let State::Starting { announce, started: true, returned: true, exit } = &mut self.state else { return };
        let (announce, exit) = (*announce, exit.take());
        self.runs(turn);
        if let Some(status) = announce {
            turn.ended(self.label(), status);
            if let Err(unrecognised) = &self.check {
                turn.emit(Event::Warned { message: format!("`{}`: {}", self.spec.name.service, unrecognised.0) });
            }
        }
        if let Some(exit) = exit {
            self.exited(exit, ending, turn);
        }
    }

    /// It was restarted in its own place.
    pub(super) fn runs_anew(&mut self, turn: &Turn) {
        self.facts.started = Some(turn.now.at);
        self.last_probe = None;
        self.runs(turn);
    }

    fn runs(&mut self, turn: &Turn) {
        self.state = State::Running { since: turn.now.elapsed, paused: false };
        if let Ok(Some(check)) = &self.check {
            self.monitor = Some(Monitor::new(check.timing, turn.now.elapsed));
            self.health = Some(Health::Starting);
        }
    }

    /// The engine restarted it by itself, or somebody started it behind our back.
    fn restarted(&mut self, started: Started, ending: bool, turn: &Turn) {
        match self.state {
            State::Restarting { .. } => self.restarts += 1,
            // Whoever started it by hand wishes it to run, unless everything is to end.
            State::Exited { .. } | State::Failed { .. } if !ending => self.wish = Wish::Run,
            State::Running { .. } | State::Exited { .. } | State::Failed { .. } => {}
            State::Idle | State::Starting { .. } | State::Stopping { .. } | State::Backoff { .. } => return,
        }
        self.learn(started);
        self.runs(turn);
    }

    fn exited(&mut self, exit: Exit, ending: bool, turn: &mut Turn) {
        let Exit { code, at, reason, restarting } = exit;
        let stopping = matches!(self.state, State::Stopping { .. });
        let lasted = ran(&self.state, turn.now.elapsed);
        let rests = ending || stopping || self.wish != Wish::Run;
        self.ended(at);
        self.state = if rests {
            State::Exited { code, reason }
        } else if restarting {
            State::Restarting { code, reason }
        } else if let Some(wait) = self.again(code, lasted) {
            State::Backoff { until: turn.now.elapsed + wait, code, reason }
        } else {
            State::Exited { code, reason }
        };
        if stopping {
            turn.ended(self.label(), if self.killed { "Killed" } else { "Stopped" });
        }
    }

    /// The wait before it is started again. A container's engine restarts it by itself.
    fn again(&mut self, code: i64, lasted: std::time::Duration) -> Option<std::time::Duration> {
        let policy = self.spec.service.restart;
        self.spec.resolved.is_wasm().then(|| self.backoff.after(policy, code, lasted)).flatten()
    }

    /// It could not be stopped: nothing more can be done from here.
    fn stuck(&mut self, problem: Problem, turn: &mut Turn) {
        turn.failed(self.label(), &problem);
        self.monitor = None;
        self.state = State::Failed { problem, origin: Origin::Instance };
    }

    /// Somebody else removed it.
    fn vanished(&mut self) {
        if self.wish == Wish::Run || self.is_active() {
            let message = format!("container `{}` was removed by someone else", self.spec.container);
            self.state = State::Failed { problem: Problem::new(message), origin: Origin::Instance };
        }
    }
}
