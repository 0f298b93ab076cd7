//! Wishes about instances that are known: what each makes of whom, and whom it takes along.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Command, Core, Effect, Turn, Verb};
use crate::model::InstanceName;
use crate::plan::unit::{EdgeCondition, InstanceSpec, UnitId};
use crate::supervisor::instance::{Instance, State, Wish};
use crate::supervisor::request::{Aim, Request};

impl Core {
    pub(super) fn command(&mut self, request: u64, command: Command, turn: &mut Turn) {
        let Command { verb, services } = command;
        let starts = matches!(verb, Verb::Start | Verb::Restart { .. });
        // Of what there is nothing of, nothing is to be stopped.
        if starts
            && let Some(unknown) =
                services.iter().find(|service| !self.instances.keys().any(|name| name.service == **service))
        {
            let message = format!("service \"{unknown}\" has no container to start");
            turn.effects.push(Effect::Refuse { request, message });
            return;
        }
        if starts && self.ending() {
            let message = "the project is being stopped".into();
            turn.effects.push(Effect::Refuse { request, message });
            return;
        }
        if starts && self.instances.is_empty() {
            turn.effects.push(Effect::Refuse { request, message: "no container to start".into() });
            return;
        }
        let mut names: BTreeSet<InstanceName> = self
            .instances
            .keys()
            .filter(|name| services.is_empty() || services.contains(&name.service))
            .cloned()
            .collect();
        let mut record = Request::new(request, Aim::Down);
        match verb {
            Verb::Stop { timeout } => self.wish_rest(&names, timeout, &mut record),
            Verb::Start => {
                record.aim = Aim::Up;
                self.add_resting_dependencies(&mut names);
                self.wish_run(&names, &mut record);
            }
            Verb::Restart { timeout } => {
                record.aim = Aim::Up;
                self.add_restarting_dependents(&mut names);
                self.wish_again(&names, timeout, &mut record);
            }
            Verb::Kill { signal } => self.kill(&names, &signal, &mut record, turn),
        }
        self.requests.push(record);
    }

    pub(super) fn wish_rest(&mut self, names: &BTreeSet<InstanceName>, grace: Option<Duration>, request: &mut Request) {
        for name in names {
            let Some(instance) = self.instances.get_mut(name) else { continue };
            instance.wish = Wish::Rest;
            instance.grace = grace;
            if instance.is_active() {
                request.instances.insert(name.clone());
            }
        }
    }

    fn wish_run(&mut self, names: &BTreeSet<InstanceName>, request: &mut Request) {
        for name in names {
            let Some(instance) = self.instances.get_mut(name) else { continue };
            instance.rouse();
            request.instances.insert(name.clone());
        }
    }

    fn wish_again(&mut self, names: &BTreeSet<InstanceName>, grace: Option<Duration>, request: &mut Request) {
        for name in names {
            let Some(instance) = self.instances.get_mut(name) else { continue };
            instance.wish = Wish::Again;
            instance.grace = grace;
            request.instances.insert(name.clone());
        }
    }

    /// A signal that surely ends it is a stop by hand; any other is just delivered.
    fn kill(&mut self, names: &BTreeSet<InstanceName>, signal: &str, request: &mut Request, turn: &mut Turn) {
        request.aim = Aim::Signals;
        for name in names {
            let Some(instance) = self.instances.get_mut(name) else { continue };
            let lethal = is_lethal(signal, &instance.spec);
            if lethal {
                instance.wish = Wish::Rest;
            }
            if instance.send_kill(signal, lethal, turn) {
                request.kills.insert(name.clone());
            }
            if lethal && instance.is_active() {
                request.instances.insert(name.clone());
            }
        }
    }

    /// Dependencies that do not run start with what depends on them; a one-shot that did its work does not.
    fn add_resting_dependencies(&self, names: &mut BTreeSet<InstanceName>) {
        let mut open: Vec<InstanceName> = names.iter().cloned().collect();
        while let Some(name) = open.pop() {
            for edge in self.instances.get(&name).map(|instance| &instance.after[..]).unwrap_or_default() {
                let UnitId::Instance(on) = &edge.on else { continue };
                let rests = self.instances.get(on).is_some_and(|dependency| match dependency.state {
                    State::Exited { code: 0, .. } => edge.condition != EdgeCondition::Completed,
                    _ => !dependency.is_active(),
                });
                if rests && names.insert(on.clone()) {
                    open.push(on.clone());
                }
            }
        }
    }

    /// Dependents that run and declare `restart: true` on one of these.
    pub(super) fn add_restarting_dependents(&self, names: &mut BTreeSet<InstanceName>) {
        loop {
            let found: Vec<InstanceName> = self
                .instances
                .iter()
                .filter(|(name, instance)| {
                    !names.contains(*name) && instance.is_active() && instance.wish != Wish::Rest
                })
                .filter(|(_, instance)| {
                    let mut dependencies = instance.spec.service.depends_on.iter();
                    dependencies.any(|(service, dependency)| {
                        dependency.restart && names.iter().any(|name| name.service == *service)
                    })
                })
                .map(|(name, _)| name.clone())
                .collect();
            if found.is_empty() {
                return;
            }
            names.extend(found);
        }
    }
}

impl Instance {
    /// Sends a signal where there is somebody to take it; one that ends it makes it stop.
    pub(super) fn send_kill(&mut self, signal: &str, lethal: bool, turn: &mut Turn) -> bool {
        let last = match &self.state {
            State::Running { .. } | State::Stopping { .. } => None,
            State::Restarting { code, reason } => Some((*code, reason.clone())),
            State::Idle
            | State::Starting { .. }
            | State::Exited { .. }
            | State::Backoff { .. }
            | State::Failed { .. } => return false,
        };
        if lethal {
            if !matches!(self.state, State::Stopping { .. }) {
                self.state = State::Stopping { last };
            }
            self.killed = true;
            turn.began(self.label(), "Killing");
        }
        turn.effects.push(Effect::Kill {
            instance: self.spec.name.clone(),
            attempt: self.attempt,
            signal: signal.to_owned(),
        });
        true
    }
}

/// Whether a signal surely ends an instance and is thus a stop by hand. A guest has no handlers, so its stop signal does;
/// a container may catch its own, and its engine knows by itself that it is not to be restarted.
fn is_lethal(signal: &str, spec: &InstanceSpec) -> bool {
    let name = |signal: &str| signal.trim().to_ascii_uppercase().trim_start_matches("SIG").to_owned();
    let stop = spec.service.stop_signal.as_deref().or(spec.resolved.config().stop_signal.as_deref());
    let asked = name(signal);
    let stops = asked == name(stop.unwrap_or("SIGTERM")) || ["TERM", "15"].contains(&asked.as_str());
    ["KILL", "9"].contains(&asked.as_str()) || (spec.resolved.is_wasm() && stops)
}
