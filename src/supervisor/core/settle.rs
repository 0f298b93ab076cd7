//! What follows once nothing moves any more: telling views what changed, answering requests, and ending.

use std::collections::BTreeSet;

use super::advance::Gate;
use super::{Core, Effect, Hold, Lifetime, StepState, Turn};
use crate::event::{Event, Failure, InstanceView, Phase};
use crate::model::InstanceName;
use crate::plan::unit::{AtEnd, UnitId};
use crate::supervisor::instance::{Instance, Origin, State, Wish, spoken};
use crate::supervisor::request::{Aim, Ready, Request};

impl Core {
    pub(super) fn view(&self, instance: &Instance) -> InstanceView {
        self.view_of(instance, self.blocked(instance))
    }

    fn view_of(&self, instance: &Instance, blocked: Option<usize>) -> InstanceView {
        instance.view(blocked.map(|edge| self.reason(&instance.after[edge])))
    }

    /// The edge that an instance waits for which is to start, by its index.
    pub(super) fn blocked(&self, instance: &Instance) -> Option<usize> {
        let idle = instance.wish == Wish::Run && instance.state == State::Idle;
        match idle.then(|| self.gate(&instance.after, &instance.waived))? {
            Gate::Closed(edge) => Some(edge),
            Gate::Open | Gate::Broken(..) | Gate::Waived(..) => None,
        }
    }

    /// Tells what is different from what views were last told.
    pub(super) fn publish(&mut self, turn: &mut Turn) {
        let mut touched = self.instances.take_touched();
        let waits =
            |(index, instance): (usize, &Instance)| (self.blocked(instance) != instance.blocked).then_some(index);
        touched.extend(self.instances.values().enumerate().filter_map(waits));
        for index in touched {
            let blocked = self.blocked(&self.instances[index]);
            let view = self.view_of(&self.instances[index], blocked);
            let instance = self.instances.shown_mut(index);
            instance.blocked = blocked;
            if instance.shown.as_ref() != Some(&view) {
                instance.shown = Some(view.clone());
                turn.emit(Event::Changed { instance: Box::new(view) });
            }
        }
    }

    /// Answers requests that are carried out, tells the phase, and ends when there is nothing left to own.
    pub(super) fn settle(&mut self, turn: &mut Turn) {
        let mut requests = std::mem::take(&mut self.requests);
        for request in requests.iter_mut().filter(|request| request.ready.is_some()) {
            let carried_out = self.is_carried_out(request);
            self.watch_ready(request, carried_out, turn);
        }
        let (settled, open): (Vec<_>, Vec<_>) = requests.into_iter().partition(|request| self.is_settled(request));
        self.requests = open;
        for request in settled {
            let failures = self.failures(&request);
            turn.emit(Event::Settled { request: request.id, failures: failures.clone() });
            turn.effects.push(Effect::Reply { request: request.id, failures });
        }
        self.forget_removed(turn);
        if self.phase == Phase::Starting && self.adopted && !self.requests.iter().any(|request| request.aim == Aim::Up)
        {
            self.turn_phase(Phase::Running, turn);
        } else if self.phase == Phase::Running && self.requests.iter().any(|request| request.aim == Aim::Up) {
            self.turn_phase(Phase::Starting, turn);
        }
        let quiet = self.is_quiet();
        if let (true, Hold::On(waiting)) = (quiet, &mut self.hold) {
            turn.effects.extend(waiting.drain(..).map(|request| Effect::Held { request }));
        }
        let over = self.ending() || (self.lifetime == Lifetime::UntilIdle && self.adopted && self.hold == Hold::Off);
        if over && quiet && self.requests.is_empty() && self.is_spent() {
            self.turn_phase(Phase::Stopped, turn);
            turn.effects.push(Effect::Done);
        }
    }

    /// What its engine removes at its end is not known any more once whoever waits for it was told how it ended.
    fn forget_removed(&mut self, turn: &mut Turn) {
        let gone = |(name, instance): &(&InstanceName, &Instance)| {
            let awaited = || self.requests.iter().any(|request| request.instances.contains(*name));
            instance.spec.at_end == AtEnd::Removed
                && matches!(instance.state, State::Exited { .. } | State::Failed { .. })
                && !awaited()
        };
        let gone: Vec<InstanceName> = self.instances.iter().filter(gone).map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.instances.remove(&name);
            turn.effects.push(Effect::Forget { instance: name.clone() });
            turn.emit(Event::Removed { instance: name });
        }
    }

    fn turn_phase(&mut self, phase: Phase, turn: &mut Turn) {
        self.phase = phase;
        turn.emit(Event::PhaseChanged { phase });
    }

    /// Whether nothing is under way.
    fn is_quiet(&self) -> bool {
        self.inflight.is_empty() && !self.instances.values().any(Instance::is_moving)
    }

    /// Whether nothing runs and nothing will by itself.
    fn is_spent(&self) -> bool {
        let pending = self.steps.values().any(|unit| matches!(unit.state, StepState::Pending));
        !pending
            && !self.instances.values().any(|instance| {
                let will = instance.wish != Wish::Rest && matches!(instance.state, State::Idle | State::Backoff { .. });
                instance.is_active() || will
            })
    }

    /// Whether nothing is left to be done about it. Who waits for readiness is done with what did not work as well.
    fn is_settled(&self, request: &Request) -> bool {
        match &request.ready {
            Some(Ready { over: Some(_), .. }) => true,
            Some(_) => self.is_carried_out(request) && !self.failures(request).is_empty(),
            None => self.is_carried_out(request),
        }
    }

    /// Whether it came as far as it can.
    fn is_carried_out(&self, request: &Request) -> bool {
        let steps = request.steps.iter().all(|id| match self.steps.get(id).map(|unit| &unit.state) {
            Some(StepState::Pending) => false,
            _ => !self.inflight.contains(id),
        });
        let instances = || {
            request.instances.iter().filter_map(|name| self.instances.get(name)).all(|instance| match request.aim {
                Aim::Up => instance.has_arrived(),
                // Whoever asked for its end got it, also when it runs anew since.
                Aim::Down | Aim::Signals => instance.wish == Wish::Run || !instance.is_active(),
            })
        };
        steps && request.kills.is_empty() && instances()
    }

    fn failures(&self, request: &Request) -> Vec<Failure> {
        let mut failures = request.failures.clone();
        for id in &request.steps {
            if let Some(StepState::Failed { problem, origin: Origin::Instance }) =
                self.steps.get(id).map(|unit| &unit.state)
            {
                let service = match id {
                    UnitId::Create(name) | UnitId::Instance(name) => Some(name.service.clone()),
                    UnitId::Remove(_)
                    | UnitId::Network(_)
                    | UnitId::Volume(_)
                    | UnitId::RemoveNetwork(_)
                    | UnitId::RemoveVolume(_) => None,
                };
                failures.push(Failure { service, message: problem.message.clone(), hint: problem.hint.clone() });
            }
        }
        for name in &request.instances {
            let Some(instance) = self.instances.get(name) else { continue };
            let mut fail = |message: String, hint: Option<String>| {
                failures.push(Failure { service: Some(name.service.clone()), message, hint });
            };
            match &instance.state {
                State::Failed { problem, origin: Origin::Instance } => {
                    fail(problem.message.clone(), problem.hint.clone())
                }
                State::Idle if request.aim == Aim::Up && instance.wish == Wish::Rest => {
                    fail(format!("{} was stopped before it was started", spoken(name, self.replicas(name))), None);
                }
                _ => {}
            }
        }
        // What did not become ready is told where nothing explains it.
        if let (true, Some(Ready { over: Some(unready), .. })) = (failures.is_empty(), &request.ready) {
            failures.extend(unready.iter().cloned());
        }
        let mut seen = BTreeSet::new();
        failures.retain(|failure| seen.insert((failure.service.clone(), failure.message.clone())));
        failures
    }
}
