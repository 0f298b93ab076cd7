//! Taking over a plan: what is as planned stays, what differs is wished otherwise, what was planned before and not begun is forgotten.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Core, Effect, Goal, StepState, StepUnit, Turn};
use crate::event::Event;
use crate::model::InstanceName;
use crate::plan::unit::{Action, Plan, Step, Unit, UnitId, Work};
use crate::supervisor::instance::{Instance, State, Wish};
use crate::supervisor::request::{Aim, Ready, Request};

impl Core {
    pub(super) fn adopt(&mut self, request: u64, plan: Plan, goal: Goal, turn: &mut Turn) {
        if !matches!(goal, Goal::Down(_)) && self.ending() {
            let message = "the project is being stopped".into();
            turn.effects.push(Effect::Refuse { request, message });
            return;
        }
        self.release(turn);
        self.adopted = true;
        for warning in &plan.warnings {
            turn.emit(Event::Warned { message: warning.clone() });
        }
        let mut record = Request::new(request, Aim::Up);
        match &goal {
            Goal::Up => {}
            Goal::Ready { within } => record.ready = Some(Ready { within: *within, ..Ready::default() }),
            Goal::Down(services) => {
                record.aim = Aim::Down;
                self.take_down(services, &mut record, turn);
            }
        }
        self.steps.retain(|_, unit| matches!(unit.state, StepState::Pending | StepState::Running));
        self.take_steps(&plan.units, &mut record);
        let planned = self.take_instances(plan.units, &mut record, turn);
        self.restart_dependents(&mut record);
        // The plan's order first, then what it does not name.
        self.instances.order(&planned);
        self.show_all(turn);
        self.requests.push(record);
    }

    /// What is not wished any more is not begun either.
    fn take_down(&mut self, services: &[crate::model::ServiceName], record: &mut Request, turn: &mut Turn) {
        let leaves = |name: &InstanceName| services.is_empty() || services.contains(&name.service);
        if services.is_empty() {
            self.end(turn);
        }
        self.steps.retain(|id, unit| match (id, &unit.state) {
            (UnitId::Create(name), StepState::Pending) => !leaves(name),
            (_, StepState::Pending) => !services.is_empty(),
            (_, StepState::Running | StepState::Done | StepState::Failed { .. }) => true,
        });
        let names: BTreeSet<InstanceName> = self.instances.keys().filter(|name| leaves(name)).cloned().collect();
        self.wish_rest(&names, None, record);
    }

    fn take_steps(&mut self, units: &[Unit], record: &mut Request) {
        for unit in units {
            let Work::Step(step) = &unit.work else { continue };
            match step {
                // Whoever attaches to a one-off starts it, and its end is nobody else's.
                Step::Create { spec, .. } if spec.is_one_off() => {}
                Step::Create { spec, .. } => {
                    self.instances.get_or_insert_with(&spec.name, || Instance::new(Arc::clone(spec)));
                }
                Step::Remove { existing, grace, .. } => {
                    let instance = existing.instance().and_then(|name| self.instances.get_mut(&name));
                    if let Some(instance) = instance {
                        instance.wish = Wish::Rest;
                        instance.grace = *grace;
                    }
                }
                Step::CreateNetwork(_) | Step::CreateVolume(_) | Step::RemoveNetwork(_) | Step::RemoveVolume(_) => {}
            }
            record.steps.insert(unit.id.clone());
            let (step, after) = (step.clone(), unit.after.clone());
            self.steps.insert(unit.id.clone(), StepUnit { step, after, state: StepState::Pending });
        }
    }

    fn take_instances(&mut self, units: Vec<Unit>, record: &mut Request, turn: &mut Turn) -> Vec<InstanceName> {
        let mut planned = Vec::new();
        for unit in units {
            let Work::Instance(spec, action) = unit.work else { continue };
            let name = spec.name.clone();
            let created = self.steps.contains_key(&UnitId::Create(name.clone()));
            let instance = self.instances.get_or_insert_with(&name, || Instance::new(Arc::clone(&spec)));
            instance.after = unit.after;
            instance.waived.clear();
            instance.next = None;
            if let Action::Know(existing) = action {
                if !instance.is_active() {
                    instance.leave(&existing);
                    instance.respecify(spec);
                }
                planned.push(name);
                continue;
            }
            record.instances.insert(name.clone());
            if matches!(action, Action::Swap(_)) && instance.take_swap(&spec) {
                planned.push(name);
                continue;
            }
            if let Action::Adopt(existing) = &action
                && !instance.is_active()
            {
                instance.recall(existing);
            }
            if created && instance.is_active() {
                // The new spec is taken now: whatever is told of the old run until it ends is told by the same name.
                instance.wish = Wish::Again;
                instance.action = Action::Start;
            } else {
                if matches!(instance.state, State::Running { .. }) {
                    turn.ended(instance.label(), "Running");
                }
                // What this supervisor runs itself is adopted by being left alone; its next start is one.
                instance.action = if instance.is_active() { Action::Start } else { action };
                instance.rouse();
            }
            instance.respecify(spec);
            planned.push(name);
        }
        planned
    }

    /// Dependents that declare `restart: true` on something that is replaced are stopped before and started after.
    fn restart_dependents(&mut self, record: &mut Request) {
        let replaced: BTreeSet<InstanceName> = self
            .instances
            .iter()
            .filter(|(_, instance)| instance.wish == Wish::Again)
            .map(|(name, _)| name.clone())
            .collect();
        let mut names = replaced.clone();
        self.add_restarting_dependents(&mut names);
        for name in names.difference(&replaced).cloned().collect::<Vec<_>>() {
            if let Some(instance) = self.instances.get_mut(&name) {
                instance.wish = Wish::Again;
                record.instances.insert(name);
            }
        }
    }

    fn show_all(&mut self, turn: &mut Turn) {
        let views: Vec<_> = self.instances.values().map(|instance| self.view(instance)).collect();
        for (instance, view) in self.instances.values_mut().zip(&views) {
            instance.shown = Some(view.clone());
        }
        turn.emit(Event::Planned { instances: views });
    }
}
