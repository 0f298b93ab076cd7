//! Every decision of the supervisor: [`Core::step`] takes one fact or wish and says what is to be done about it.
//! No await, no clock, no I/O; time is an argument, and everything done comes back as a fact.
//!
//! The rule is level-triggered: a unit starts when it is wished to run, is idle, and its conditions hold; an instance is stopped when it
//! is not wished to run and none of its dependents that are to stop as well still runs. Start order, stop order and Ctrl-C while starting
//! all follow from it. Laws: a condition gates starting only; a fact about an earlier attempt changes nothing; after the end was asked
//! for, nothing starts; whatever does not run can say why.

mod adopt;
mod advance;
mod command;
mod facts;
#[cfg(test)]
mod laws;
mod ready;
mod replace;
mod roster;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use jiff::Timestamp;

use self::roster::Roster;
use super::check::Probe;
use super::instance::{Instance, Origin, Problem, State, Wish};
use super::request::Request;
use crate::engine::report::{Attempt, Tagged};
use crate::event::{Event, Failure, InstanceView, Phase};
use crate::model::{InstanceName, ServiceName};
use crate::plan::unit::{Action, Edge, InstanceSpec, Plan, Step, UnitId};

/// A moment, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Now {
    /// Since the supervisor's start; never goes back.
    pub elapsed: Duration,
    /// As people read it.
    pub at: Timestamp,
}

/// What happened, or is wished.
#[derive(Debug)]
pub enum Input {
    /// A plan replaces what was planned before.
    Adopt {
        /// Answered when the plan is carried out as far as it can be.
        request: u64,
        /// The plan.
        plan: Plan,
        /// What becomes of what is not in it.
        goal: Goal,
    },
    /// A wish about instances that are known.
    Command {
        /// Answered when it is carried out.
        request: u64,
        /// The wish.
        command: Command,
    },
    /// Begin nothing new until the next plan: what is observed now is to stay true. Answered by [`Effect::Held`].
    Hold {
        /// Its number.
        request: u64,
    },
    /// No plan comes of it: go on.
    Release,
    /// A fact from an engine.
    Report(Tagged),
    /// A step ended.
    StepDone {
        /// Which.
        unit: UnitId,
        /// How.
        result: Result<(), Problem>,
    },
    /// An engine's start (or adoption) returned.
    StartDone {
        /// Of which instance.
        instance: InstanceName,
        /// In which attempt.
        attempt: Attempt,
        /// How.
        result: Result<(), Problem>,
    },
    /// A stop returned.
    StopDone {
        /// Of which instance.
        instance: InstanceName,
        /// In which attempt.
        attempt: Attempt,
        /// How.
        result: Result<(), Problem>,
    },
    /// A running instance took what is new of its specification, or did not.
    ReplaceDone {
        /// Which instance.
        instance: InstanceName,
        /// In which attempt.
        attempt: Attempt,
        /// What it was to take.
        spec: Arc<InstanceSpec>,
        /// How.
        result: Result<(), Problem>,
    },
    /// A signal was sent.
    KillDone {
        /// To which instance.
        instance: InstanceName,
        /// In which attempt.
        attempt: Attempt,
        /// How.
        result: Result<(), Problem>,
    },
    /// A probe ended.
    Probed {
        /// Of which instance.
        instance: InstanceName,
        /// In which attempt.
        attempt: Attempt,
        /// How; text for people.
        result: Result<(), String>,
    },
    /// Someone asks the supervisor itself to end: the first time gracefully, the second by killing, the third at once.
    Signal,
    /// A deadline came.
    Tick,
}

/// What becomes of instances that a plan does not name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// They stay as they are.
    Up,
    /// As [`Goal::Up`], and the plan is carried out only when what it runs is healthy, runs steadily, or did its work.
    Ready {
        /// Not longer than this.
        within: Option<Duration>,
    },
    /// Those of these services end; empty means all, and then the supervisor ends as well.
    Down(Vec<ServiceName>),
}

/// A wish about instances that are known. Empty `services` means all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What is wished.
    pub verb: Verb,
    /// Of which services.
    pub services: Vec<ServiceName>,
}

/// What is wished of instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// To end, in reverse dependency order; `timeout` instead of their own grace periods.
    Stop {
        /// Instead of their own grace periods.
        timeout: Option<Duration>,
    },
    /// To run, in dependency order.
    Start,
    /// To end and run anew, with dependents that declare `restart: true`.
    Restart {
        /// Instead of their own grace periods.
        timeout: Option<Duration>,
    },
    /// To get a signal.
    Kill {
        /// `SIGKILL`, `SIGHUP`, …
        signal: String,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Carry out a step; answered by [`Input::StepDone`].
    Apply {
        /// Its unit.
        unit: UnitId,
        /// The step.
        step: Step,
    },
    /// Start or adopt an instance; answered by [`Input::StartDone`], and by reports.
    Start {
        /// Which.
        instance: InstanceName,
        /// The attempt this begins.
        attempt: Attempt,
        /// How.
        spec: Arc<InstanceSpec>,
        /// From nothing, or what runs already.
        action: Box<Action>,
    },
    /// Stop an instance; answered by [`Input::StopDone`], after its exit was reported.
    Stop {
        /// Which.
        instance: InstanceName,
        /// In which attempt.
        attempt: Attempt,
        /// Instead of its own grace period.
        grace: Option<Duration>,
    },
    /// Have a running instance take what is new of its specification; answered by [`Input::ReplaceDone`].
    Replace {
        /// Which.
        instance: InstanceName,
        /// In which attempt.
        attempt: Attempt,
        /// What it is from now on.
        spec: Arc<InstanceSpec>,
    },
    /// Send a signal; answered by [`Input::KillDone`].
    Kill {
        /// To which instance.
        instance: InstanceName,
        /// In which attempt.
        attempt: Attempt,
        /// Which signal.
        signal: String,
    },
    /// Probe an instance once; answered by [`Input::Probed`].
    Probe {
        /// Which.
        instance: InstanceName,
        /// In which attempt.
        attempt: Attempt,
        /// What is asked.
        probe: Probe,
        /// After this it failed.
        timeout: Duration,
    },
    /// The instance, or what it was before it was replaced, is gone for good: let go of it and of its kept output.
    Forget {
        /// Which.
        instance: InstanceName,
    },
    /// Tell the views.
    Emit(Event),
    /// A request is settled.
    Reply {
        /// Its number.
        request: u64,
        /// What did not work.
        failures: Vec<Failure>,
    },
    /// A request cannot be taken.
    Refuse {
        /// Its number.
        request: u64,
        /// Why, for people.
        message: String,
    },
    /// Nothing is under way, and nothing begins until the next plan.
    Held {
        /// The number of the hold.
        request: u64,
    },
    /// Nothing runs and nothing will: the supervisor can end.
    Done,
    /// End at once, whatever runs.
    Quit,
}

/// When a supervisor that nobody stops ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Only when it is asked to.
    UntilDown,
    /// Also when every instance ended and none will be started again.
    UntilIdle,
}

/// The state of one project's supervisor.
#[derive(Debug)]
pub struct Core {
    lifetime: Lifetime,
    instances: Roster,
    steps: IndexMap<UnitId, StepUnit, foldhash::fast::RandomState>,
    /// Steps whose end was not reported yet, also of plans that were replaced.
    inflight: BTreeSet<UnitId>,
    requests: Vec<Request>,
    hold: Hold,
    signals: u32,
    phase: Phase,
    /// A plan was adopted: being idle is not just not having begun.
    adopted: bool,
}

#[derive(Debug)]
struct StepUnit {
    step: Step,
    after: Vec<Edge>,
    state: StepState,
}

#[derive(Debug)]
enum StepState {
    Pending,
    Running,
    Done,
    Failed { problem: Problem, origin: Origin },
}

#[derive(Debug, PartialEq, Eq)]
enum Hold {
    /// Units begin as they can.
    Off,
    /// Nothing begins; these want to know once nothing is under way.
    On(Vec<u64>),
}

/// One step of the core: its time, and the effects so far.
struct Turn {
    now: Now,
    effects: Vec<Effect>,
}

impl Turn {
    fn emit(&mut self, event: Event) {
        self.effects.push(Effect::Emit(event));
    }

    fn began(&mut self, id: String, status: &str) {
        self.emit(Event::StepStarted { id, status: status.into() });
    }

    fn ended(&mut self, id: String, status: &str) {
        self.emit(Event::StepFinished { id, status: status.into() });
    }

    fn failed(&mut self, id: String, problem: &Problem) {
        self.emit(Event::StepFailed { id, error: problem.message.clone(), hint: problem.hint.clone() });
    }
}

impl Core {
    /// Of a project of which nothing is known yet.
    pub fn new(lifetime: Lifetime) -> Self {
        Self {
            lifetime,
            instances: Roster::default(),
            steps: IndexMap::default(),
            inflight: BTreeSet::new(),
            requests: Vec::new(),
            hold: Hold::Off,
            signals: 0,
            phase: Phase::Starting,
            adopted: false,
        }
    }

    /// Takes one fact or wish; says what is to be done.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        self.steps(now, [input])
    }

    /// Takes what happened at once, in its order; says what is to be done after all of it.
    pub fn steps(&mut self, now: Now, inputs: impl IntoIterator<Item = Input>) -> Vec<Effect> {
        if self.phase == Phase::Stopped {
            return inputs.into_iter().flat_map(over).collect();
        }
        let mut turn = Turn { now, effects: Vec::new() };
        for input in inputs {
            self.take(input, &mut turn);
        }
        self.advance(&mut turn);
        self.publish(&mut turn);
        self.settle(&mut turn);
        turn.effects
    }

    fn take(&mut self, input: Input, turn: &mut Turn) {
        match input {
            Input::Adopt { request, plan, goal } => self.adopt(request, plan, goal, turn),
            Input::Command { request, command } => self.command(request, command, turn),
            Input::Hold { request } => match &mut self.hold {
                Hold::Off => self.hold = Hold::On(vec![request]),
                Hold::On(waiting) => waiting.push(request),
            },
            Input::Release => self.release(turn),
            Input::Report(tagged) => self.report(tagged, turn),
            Input::StepDone { unit, result } => self.step_done(unit, result, turn),
            Input::StartDone { instance, attempt, result } => self.start_done(&instance, attempt, result, turn),
            Input::StopDone { instance, attempt, result } => self.stop_done(&instance, attempt, result, turn),
            Input::ReplaceDone { instance, attempt, spec, result } => {
                self.replace_done(&instance, attempt, &spec, result, turn);
            }
            Input::KillDone { instance, attempt, result } => self.kill_done(&instance, attempt, result, turn),
            Input::Probed { instance, attempt, result } => self.probed(&instance, attempt, result, turn),
            Input::Signal => self.signal(turn),
            Input::Tick => {}
        }
    }

    /// When the core wants to be asked again although nothing happened.
    pub fn next_deadline(&self) -> Option<Duration> {
        let restart = |instance: &Instance| match instance.state {
            State::Backoff { until, .. } if self.hold == Hold::Off => Some(until),
            State::Backoff { .. }
            | State::Idle
            | State::Starting { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::Exited { .. }
            | State::Restarting { .. }
            | State::Failed { .. } => None,
        };
        let probe = |instance: &Instance| instance.monitor.as_ref().and_then(|monitor| monitor.deadline());
        let instances = self.instances.values().flat_map(|instance| [restart(instance), probe(instance)]).flatten();
        instances.chain(self.ready_deadline()).min()
    }

    /// What it is at.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Every instance as views were last told, in start order.
    pub fn views(&self) -> impl Iterator<Item = &InstanceView> {
        self.instances.values().filter_map(|instance| instance.shown.as_ref())
    }

    /// How a known instance is run.
    pub fn spec(&self, name: &InstanceName) -> Option<&Arc<InstanceSpec>> {
        self.instances.get(name).map(|instance| &instance.spec)
    }

    fn ending(&self) -> bool {
        matches!(self.phase, Phase::Stopping | Phase::Stopped)
    }

    fn end(&mut self, turn: &mut Turn) {
        if !self.ending() {
            self.phase = Phase::Stopping;
            turn.emit(Event::PhaseChanged { phase: Phase::Stopping });
        }
        for instance in self.instances.values_mut() {
            instance.wish = Wish::Rest;
        }
    }

    fn release(&mut self, turn: &mut Turn) {
        if let Hold::On(waiting) = std::mem::replace(&mut self.hold, Hold::Off) {
            turn.effects.extend(waiting.into_iter().map(|request| Effect::Held { request }));
        }
    }

    /// First: nothing is wished any more, and what was not begun is not begun. Second: kill. Third: go.
    fn signal(&mut self, turn: &mut Turn) {
        self.signals += 1;
        if self.signals > 2 {
            turn.effects.push(Effect::Quit);
            return;
        }
        self.release(turn);
        self.end(turn);
        self.steps.retain(|_, unit| !matches!(unit.state, StepState::Pending));
    }
}

impl Instance {
    /// Wishes it to run, and forgets how it ended before.
    fn rouse(&mut self) {
        match self.state {
            State::Stopping { .. } => self.wish = Wish::Again,
            State::Starting { .. } | State::Running { .. } | State::Restarting { .. } => self.wish = Wish::Run,
            State::Idle | State::Exited { .. } | State::Backoff { .. } | State::Failed { .. } => {
                self.wish = Wish::Run;
                self.state = State::Idle;
                self.backoff = Default::default();
                self.waived.clear();
            }
        }
    }
}

/// Answers after the end: nothing happens any more, but nobody is left waiting.
fn over(input: Input) -> Vec<Effect> {
    match input {
        Input::Adopt { request, .. } | Input::Command { request, .. } => {
            vec![Effect::Refuse { request, message: "the supervisor has ended".into() }]
        }
        Input::Hold { request } => vec![Effect::Held { request }],
        Input::Release
        | Input::Report(_)
        | Input::StepDone { .. }
        | Input::StartDone { .. }
        | Input::StopDone { .. }
        | Input::ReplaceDone { .. }
        | Input::KillDone { .. }
        | Input::Probed { .. }
        | Input::Signal
        | Input::Tick => Vec::new(),
    }
}
