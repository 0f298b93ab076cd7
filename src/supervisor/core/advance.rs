//! Moving everything as far as it can go: steps, starts, stops, probes, and the progress they make.

use std::time::Duration;

use super::{Core, Effect, Hold, StepState, Turn};
use crate::event::Event;
use crate::model::InstanceName;
use crate::plan::unit::{Action, Edge, EdgeCondition, Step, UnitId};
use crate::supervisor::gate::{self, Verdict};
use crate::supervisor::instance::{Awaited, Instance, Next, Origin, Problem, State, Wish, container_label, spoken};

/// What all conditions of a unit say together.
pub(super) enum Gate {
    Open,
    /// By the edge of this index.
    Closed(usize),
    Broken(Problem, Origin),
    /// An optional dependency failed: go on without it.
    Waived(UnitId, Problem),
}

impl Core {
    /// Begins, stops and fails units until nothing more follows.
    pub(super) fn advance(&mut self, turn: &mut Turn) {
        self.probe(turn);
        self.tell_awaited(turn);
        loop {
            let mut moved = self.turn_wishes(turn);
            if self.hold == Hold::Off {
                moved |= self.advance_steps(turn);
                moved |= self.advance_starts(turn);
                moved |= self.advance_stops(turn);
                moved |= self.advance_swaps(turn);
            }
            if !moved {
                break;
            }
        }
        self.tell_waiting(turn);
    }

    /// What had to end before it runs anew is to run now; what was to be started again rests.
    fn turn_wishes(&mut self, turn: &Turn) -> bool {
        let mut moved = false;
        for index in 0..self.instances.len() {
            let instance = &self.instances[index];
            match (instance.wish, &instance.state) {
                (Wish::Again, _) if !instance.is_active() => {
                    let resting = self.resting_dependencies(instance);
                    let instance = self.instances.at_mut(index);
                    instance.wish = Wish::Run;
                    instance.rouse_anew();
                    instance.waived = resting;
                    moved = true;
                }
                (Wish::Rest, State::Backoff { code, reason, .. }) => {
                    let state = State::Exited { code: *code, reason: reason.clone() };
                    let instance = self.instances.at_mut(index);
                    instance.state = state;
                    instance.facts.finished = instance.facts.finished.or(Some(turn.now.at));
                    moved = true;
                }
                _ => {}
            }
        }
        moved
    }

    /// What an instance depends on and nobody wishes to run: what ran before runs anew without.
    fn resting_dependencies(&self, instance: &Instance) -> Vec<UnitId> {
        let ran = instance.attempt.0 > 0 || matches!(instance.state, State::Exited { .. });
        if !ran {
            return Vec::new();
        }
        let rests = |edge: &&Edge| match &edge.on {
            UnitId::Instance(on) => self.instances.get(on).is_some_and(|one| one.wish == Wish::Rest),
            _ => false,
        };
        instance.after.iter().filter(rests).map(|edge| edge.on.clone()).collect()
    }

    fn advance_steps(&mut self, turn: &mut Turn) -> bool {
        let pending: Vec<UnitId> = self
            .steps
            .iter()
            .filter(|(id, unit)| matches!(unit.state, StepState::Pending) && !self.inflight.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        let mut moved = false;
        for id in pending {
            let unit = &self.steps[&id];
            if self.subject(&unit.step).is_some_and(Instance::is_active) {
                continue;
            }
            let state = match self.gate(&unit.after, &[]) {
                Gate::Closed(_) => continue,
                // A step told its failure itself; that of a dependency is told by whoever waits for it.
                Gate::Broken(problem, origin) => {
                    if origin == Origin::Instance {
                        let (label, _) = begins(&unit.step);
                        turn.failed(label, &problem);
                    }
                    StepState::Failed { problem, origin }
                }
                Gate::Open | Gate::Waived(..) => {
                    let (label, status) = begins(&unit.step);
                    turn.began(label, status);
                    self.inflight.insert(id.clone());
                    turn.effects.push(Effect::Apply { unit: id.clone(), step: unit.step.clone() });
                    StepState::Running
                }
            };
            self.steps[&id].state = state;
            moved = true;
        }
        moved
    }

    /// The instance that must not run while a step works on it.
    fn subject(&self, step: &Step) -> Option<&Instance> {
        match step {
            Step::Create { spec, .. } => self.instances.get(&spec.name),
            Step::Remove { existing, .. } => self.instances.get(&existing.instance()?),
            Step::CreateNetwork(_) | Step::CreateVolume(_) | Step::RemoveNetwork(_) | Step::RemoveVolume(_) => None,
        }
    }

    fn advance_starts(&mut self, turn: &mut Turn) -> bool {
        let mut moved = false;
        for index in 0..self.instances.len() {
            let instance = &self.instances[index];
            match &instance.state {
                // A restart by policy asks no conditions: they gate the first start.
                State::Backoff { until, .. } if instance.wish == Wish::Run && *until <= turn.now.elapsed => {
                    let instance = self.instances.at_mut(index);
                    instance.restarts += 1;
                    instance.begin(None, turn);
                    moved = true;
                }
                State::Idle if instance.wish == Wish::Run => moved |= self.try_start(index, turn),
                _ => {}
            }
        }
        moved
    }

    fn try_start(&mut self, index: usize, turn: &mut Turn) -> bool {
        let instance = &self.instances[index];
        let gate = match instance.action {
            Action::Start | Action::Swap(_) | Action::Know(_) => self.gate(&instance.after, &instance.waived),
            // It runs already: there is nothing to hold back.
            Action::Adopt(_) => Gate::Open,
        };
        if matches!(gate, Gate::Closed(_)) {
            return false;
        }
        let replicas = if matches!(gate, Gate::Waived(..)) { self.replicas(&instance.spec.name) } else { 0 };
        let instance = self.instances.at_mut(index);
        match gate {
            Gate::Closed(_) => {}
            Gate::Open => {
                let announce = match instance.action {
                    Action::Start | Action::Swap(_) | Action::Know(_) => "Started",
                    Action::Adopt(_) => "Running",
                };
                instance.begin(Some(announce), turn);
            }
            Gate::Broken(problem, origin) => {
                // A step told its failure itself.
                if origin == Origin::Instance {
                    turn.failed(instance.label(), &problem);
                }
                instance.state = State::Failed { problem, origin };
            }
            Gate::Waived(unit, problem) => {
                let own_name = spoken(&instance.spec.name, replicas);
                let message = format!("{own_name} goes on without an optional dependency: {}", problem.message);
                turn.emit(Event::Warned { message });
                instance.waived.push(unit);
            }
        }
        true
    }

    fn advance_stops(&mut self, turn: &mut Turn) -> bool {
        let mut moved = false;
        for index in 0..self.instances.len() {
            let instance = &self.instances[index];
            let killing = self.signals > 1;
            let reachable = match instance.state {
                State::Running { .. } | State::Restarting { .. } => true,
                State::Stopping { .. } => killing,
                State::Idle
                | State::Starting { .. }
                | State::Exited { .. }
                | State::Backoff { .. }
                | State::Failed { .. } => false,
            };
            if !reachable || instance.wish == Wish::Run {
                continue;
            }
            if killing {
                let instance = self.instances.at_mut(index);
                if !instance.killed {
                    moved |= instance.send_kill("SIGKILL", true, turn);
                }
            } else if instance.is_restarting_in_place() {
                continue;
            } else if self.can_restart_in_place(instance) {
                self.instances.at_mut(index).begin_again(turn);
                moved = true;
            } else if !self.has_leaving_dependents(&instance.spec.name) {
                self.instances.at_mut(index).begin_stop(turn);
                moved = true;
            }
        }
        moved
    }

    /// Whether an instance that depends on this one still runs although it is to stop as well.
    fn has_leaving_dependents(&self, name: &InstanceName) -> bool {
        self.instances.values().any(|instance| {
            instance.is_active()
                && instance.wish != Wish::Run
                && instance
                    .after
                    .iter()
                    .any(|edge| matches!(&edge.on, UnitId::Instance(on) if on == name && on != &instance.spec.name))
        })
    }

    pub(super) fn gate(&self, after: &[Edge], waived: &[UnitId]) -> Gate {
        let mut closed = None;
        for (index, edge) in after.iter().enumerate().filter(|(_, edge)| !waived.contains(&edge.on)) {
            let (verdict, origin) = self.verdict(edge);
            match verdict {
                Verdict::Holds => {}
                Verdict::Waits => closed = closed.or(Some(index)),
                Verdict::Broken(problem) if edge.required => return Gate::Broken(problem, origin),
                Verdict::Broken(problem) => return Gate::Waived(edge.on.clone(), problem),
            }
        }
        closed.map_or(Gate::Open, Gate::Closed)
    }

    /// A unit that is not known has nothing to be waited for.
    fn verdict(&self, edge: &Edge) -> (Verdict, Origin) {
        if let UnitId::Instance(name) = &edge.on {
            let dependency = self.instances.get(name);
            let replicas = || self.replicas(name);
            let verdict =
                dependency.map_or(Verdict::Holds, |dependency| gate::verdict(dependency, replicas, edge.condition));
            return (verdict, Origin::Instance);
        }
        let verdict = match self.steps.get(&edge.on).map(|unit| (&unit.state, &unit.step)) {
            None | Some((StepState::Done, _)) => Verdict::Holds,
            Some((StepState::Pending | StepState::Running, _)) => Verdict::Waits,
            // An engine's error names what it was doing, and to what.
            Some((StepState::Failed { problem, .. }, _)) => Verdict::Broken(problem.clone()),
        };
        (verdict, Origin::Step)
    }

    /// What is waited for at an edge that does not hold yet; "waits for …".
    pub(super) fn reason(&self, edge: &Edge) -> String {
        match &edge.on {
            UnitId::Instance(name) => gate::reason(name, self.replicas(name), edge.condition),
            step => self.steps.get(step).map(|unit| awaited(&unit.step)).unwrap_or_default(),
        }
    }

    pub(super) fn replicas(&self, name: &InstanceName) -> usize {
        self.instances.keys().filter(|other| other.service == name.service).count()
    }

    fn probe(&mut self, turn: &mut Turn) {
        for index in 0..self.instances.len() {
            let Some(monitor) = &self.instances[index].monitor else { continue };
            if monitor.deadline().is_none_or(|deadline| deadline > turn.now.elapsed) {
                continue;
            }
            let instance = self.instances.at_mut(index);
            let (Some(monitor), Ok(Some(check))) = (&mut instance.monitor, &instance.check) else {
                // A plan may take the check away from what runs.
                instance.monitor = None;
                continue;
            };
            if monitor.take_due(turn.now.elapsed) {
                turn.effects.push(Effect::Probe {
                    instance: instance.spec.name.clone(),
                    attempt: instance.attempt,
                    probe: check.probe.clone(),
                    timeout: monitor.timeout(),
                });
            }
        }
    }

    /// Progress: `Waiting` for whatever runs and holds somebody back.
    fn tell_waiting(&mut self, turn: &mut Turn) {
        let mut waited: Vec<(InstanceName, EdgeCondition)> = Vec::new();
        for instance in self.instances.values().filter(|one| one.wish == Wish::Run && one.state == State::Idle) {
            for edge in instance.after.iter().filter(|edge| !instance.waived.contains(&edge.on)) {
                let UnitId::Instance(on) = &edge.on else { continue };
                let waits = matches!(edge.condition, EdgeCondition::Healthy | EdgeCondition::Completed)
                    && self.verdict(edge).0 == Verdict::Waits;
                if waits
                    && self
                        .instances
                        .get(on)
                        .is_some_and(|dependency| matches!(dependency.state, State::Running { .. }))
                {
                    waited.push((on.clone(), edge.condition));
                }
            }
        }
        for (name, condition) in waited {
            let Some(dependency) = self.instances.get_mut(&name).filter(|dependency| dependency.awaited.is_none())
            else {
                continue;
            };
            dependency.awaited = Some(Awaited::Condition(condition));
            turn.began(dependency.label(), "Waiting");
        }
        self.tell_unready(turn);
    }

    /// Progress: what became of those waited for.
    fn tell_awaited(&mut self, turn: &mut Turn) {
        for index in 0..self.instances.len() {
            let instance = &self.instances[index];
            let condition = match instance.awaited {
                None => continue,
                Some(Awaited::Ready) if self.tell_ready(instance, turn) => {
                    self.instances.at_mut(index).awaited = None;
                    continue;
                }
                Some(Awaited::Ready) => continue,
                Some(Awaited::Condition(condition)) => condition,
            };
            match gate::verdict(instance, || self.replicas(&instance.spec.name), condition) {
                Verdict::Waits if instance.wish == Wish::Run => continue,
                Verdict::Holds if condition == EdgeCondition::Completed => turn.ended(instance.label(), "Exited"),
                Verdict::Holds => turn.ended(instance.label(), "Healthy"),
                Verdict::Broken(problem) if instance.wish == Wish::Run => turn.failed(instance.label(), &problem),
                Verdict::Waits | Verdict::Broken(_) => {}
            }
            self.instances.at_mut(index).awaited = None;
        }
    }
}

impl Instance {
    /// To be started as if for the first time.
    fn rouse_anew(&mut self) {
        self.state = State::Idle;
        self.action = Action::Start;
        self.backoff = Default::default();
        self.waived.clear();
    }

    fn begin(&mut self, announce: Option<&'static str>, turn: &mut Turn) {
        // What it was to become while it ran, it is from its start; an answer about an earlier attempt is not heard.
        if let Some(Next::Wanted(spec) | Next::Underway(spec) | Next::Anew(spec)) = self.next.take() {
            self.respecify(spec);
        }
        self.attempt.0 += 1;
        self.killed = false;
        self.last_probe = None;
        self.state = State::Starting { announce, started: false, returned: false, exit: None };
        let action = std::mem::replace(&mut self.action, Action::Start);
        if announce == Some("Started") {
            turn.began(self.label(), "Starting");
        }
        turn.effects.push(Effect::Start {
            instance: self.spec.name.clone(),
            attempt: self.attempt,
            spec: self.spec.clone(),
            action: Box::new(action),
        });
    }

    fn begin_stop(&mut self, turn: &mut Turn) {
        let last = match &self.state {
            State::Restarting { code, reason } => Some((*code, reason.clone())),
            _ => None,
        };
        self.state = State::Stopping { last };
        turn.began(self.label(), "Stopping");
        turn.effects.push(Effect::Stop {
            instance: self.spec.name.clone(),
            attempt: self.attempt,
            grace: self.grace.take(),
        });
    }
}

/// What a dependent of a step waits for.
fn awaited(step: &Step) -> String {
    match step {
        Step::CreateNetwork(spec) => format!("network `{}` to be created", spec.network.name),
        Step::CreateVolume(spec) => format!("volume `{}` to be created", spec.volume.name),
        Step::Create { spec, .. } => format!("`{}` to be created", spec.name.service),
        Step::Remove { existing, .. } => format!("`{}` to be removed", existing.name),
        Step::RemoveNetwork(name) => format!("network `{name}` to be removed"),
        Step::RemoveVolume(name) => format!("volume `{name}` to be removed"),
    }
}

/// A step as compose's progress calls it: its id, and its status while it lasts.
fn begins(step: &Step) -> (String, &'static str) {
    let (id, begins, _) = progress(step);
    (id, begins)
}

/// Id, status while it lasts, status when it is done.
pub(super) fn progress(step: &Step) -> (String, &'static str, &'static str) {
    match step {
        Step::CreateNetwork(spec) => (format!("Network {}", spec.network.name), "Creating", "Created"),
        Step::CreateVolume(spec) => (format!("Volume \"{}\"", spec.volume.name), "Creating", "Created"),
        Step::Create { spec, replace: None } => (container_label(&spec.container), "Creating", "Created"),
        Step::Create { spec, replace: Some(_) } => (container_label(&spec.container), "Recreate", "Recreated"),
        Step::Remove { existing, .. } => (container_label(&existing.name), "Removing", "Removed"),
        Step::RemoveNetwork(name) => (format!("Network {name}"), "Removing", "Removed"),
        Step::RemoveVolume(name) => (format!("Volume {name}"), "Removing", "Removed"),
    }
}

/// How long a run lasted.
pub(super) fn ran(state: &State, now: Duration) -> Duration {
    match state {
        State::Running { since, .. } => now.saturating_sub(*since),
        State::Idle
        | State::Starting { .. }
        | State::Stopping { .. }
        | State::Exited { .. }
        | State::Backoff { .. }
        | State::Restarting { .. }
        | State::Failed { .. } => Duration::ZERO,
    }
}
