//! The one loop: orders, reports and results in, effects out. It decides nothing and never waits for an effect: each runs as a task
//! whose result comes back as an input. The loop owns the core, so a session's snapshot and its first update have no gap between them.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use super::core::Lifetime;
use super::core::{Command, Core, Effect, Goal, Input, Now, Verb};
use super::hub::Hub;
use super::instance::Problem;
use super::logs::Cap;
use super::probe::{self, Dial};
use super::tail::{Notice, Tail};
use crate::engine::{Attempt, Engine, EngineError, Handle, Outlet, Tagged, TaggedLine};
use crate::event::{Event, InstanceView, Kind, Snapshot, Stamped, VERSION};
use crate::model::{InstanceName, ProjectName};
use crate::plan::unit::{Action, InstanceSpec, Plan};
use crate::session::{self, Attach, LogMode, Reply, Session};

/// Reports that may be under way.
const REPORTS: usize = 256;
/// Lines that may be under way; a guest that floods waits here.
const LINES: usize = 4096;
/// Log lines in a session's channel.
const SESSION_LINES: usize = 1024;
/// How long tasks may take to end once nothing runs any more.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a supervisor is given besides its engine.
pub struct Setup {
    /// The project.
    pub project: ProjectName,
    /// Its directory.
    pub directory: PathBuf,
    /// Its files.
    pub files: Vec<PathBuf>,
    /// Where the output of Wasm instances is kept; absent: nowhere.
    pub logs: Option<PathBuf>,
    /// Whether output that the engine keeps (a container's) is followed for sessions.
    pub follow_linux: bool,
    /// When it ends by itself.
    pub lifetime: Lifetime,
    /// Connects health probes to instances of this process.
    pub dial: Dial,
    /// Where sessions' commands go: whoever loads files and makes plans turns them into orders.
    pub commands: mpsc::Sender<session::Request>,
}

/// What the loop is told from outside.
#[derive(Debug)]
pub enum Order {
    /// A plan replaces the present one.
    Adopt {
        /// The plan.
        plan: Plan,
        /// What becomes of what it does not name.
        goal: Goal,
        /// Answered when it is carried out as far as it can be.
        reply: oneshot::Sender<Reply>,
    },
    /// A wish about known instances.
    Command {
        /// The wish.
        command: Command,
        /// Answered when it is carried out as far as it can be.
        reply: oneshot::Sender<Reply>,
    },
    /// Begin nothing new: what is observed after the answer stays true until the next plan or [`Order::Release`].
    Hold {
        /// Answered when nothing is under way.
        reply: oneshot::Sender<()>,
    },
    /// No plan comes of the hold.
    Release,
    /// Somebody wants to see.
    Attach(Attach),
    /// Something outside the loop happened that views show: an image is pulled or built.
    Tell(Event),
    /// Someone asks the supervisor to end.
    Signal,
}

/// How a supervisor ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Why it ended.
    pub ending: Ending,
    /// The instances as they were last seen.
    pub instances: Vec<InstanceView>,
}

/// Why a supervisor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Nothing runs any more.
    Done,
    /// The third signal: whatever runs was left.
    Quit,
    /// Nobody can give orders any more: what runs was left running.
    Left,
}

/// What a task brings back.
enum Finished {
    Input(Input),
    Started { instance: InstanceName, attempt: Attempt, result: Result<Arc<dyn Handle>, Problem> },
}

enum Waiting {
    Reply(oneshot::Sender<Reply>),
    Held(oneshot::Sender<()>),
}

struct Drive {
    engine: Arc<dyn Engine>,
    setup: Setup,
    core: Core,
    hub: Hub,
    origin: Instant,
    /// Everything that works on an effect.
    tasks: JoinSet<Finished>,
    handles: BTreeMap<InstanceName, (Attempt, Arc<dyn Handle>)>,
    waiting: HashMap<u64, Waiting>,
    requests: u64,
    reports: mpsc::Sender<Tagged>,
    lines: mpsc::Sender<TaggedLine>,
    notices: mpsc::UnboundedSender<Notice>,
    ended: Option<Ending>,
}

/// Runs the supervisor of one project until nothing is left to own, or nobody is left to give orders.
pub async fn run(engine: Arc<dyn Engine>, setup: Setup, mut orders: mpsc::Receiver<Order>) -> Outcome {
    let (reports, mut facts) = mpsc::channel(REPORTS);
    let (lines, output) = mpsc::channel(LINES);
    let (notices, notes) = mpsc::unbounded_channel();
    let (warnings, mut warned) = mpsc::channel(1);
    let mut log_task = JoinSet::new();
    log_task.spawn(Tail::new(setup.logs.clone(), warnings).run(notes, output));
    let mut drive = Drive {
        core: Core::new(setup.lifetime),
        engine,
        setup,
        hub: Hub::default(),
        origin: now(),
        tasks: JoinSet::new(),
        handles: BTreeMap::new(),
        waiting: HashMap::new(),
        requests: 0,
        reports,
        lines,
        notices,
        ended: None,
    };
    while drive.ended.is_none() {
        let deadline = drive.core.next_deadline().map(|elapsed| drive.origin + elapsed);
        // Reports before results: what was reported before a call returned is known before it.
        tokio::select! {
            biased;
            order = orders.recv() => drive.order(order),
            Some(tagged) = facts.recv() => {
                let more = std::iter::from_fn(|| facts.try_recv().ok());
                drive.inputs(std::iter::once(tagged).chain(more.take(REPORTS)).map(Input::Report).collect());
            }
            Some(finished) = drive.tasks.join_next() => drive.finished(finished),
            () = sleep_until(deadline) => drive.input(Input::Tick),
            () = drive.hub.wants_resync() => {
                let snapshot = drive.snapshot();
                drive.hub.resync(&snapshot);
            }
            Some(message) = warned.recv() => drive.emit(Event::Warned { message }),
        }
    }
    drive.part(log_task).await
}

impl Drive {
    fn order(&mut self, order: Option<Order>) {
        match order {
            None => self.ended = Some(Ending::Left),
            Some(Order::Adopt { plan, goal, reply }) => {
                let request = self.number(Waiting::Reply(reply));
                self.input(Input::Adopt { request, plan, goal });
            }
            Some(Order::Command { command, reply }) => {
                let request = self.number(Waiting::Reply(reply));
                self.input(Input::Command { request, command });
            }
            Some(Order::Hold { reply }) => {
                let request = self.number(Waiting::Held(reply));
                self.input(Input::Hold { request });
            }
            Some(Order::Release) => self.input(Input::Release),
            Some(Order::Attach(attach)) => self.attach(attach),
            Some(Order::Tell(event)) => self.emit(event),
            Some(Order::Signal) => self.input(Input::Signal),
        }
    }

    fn number(&mut self, waiting: Waiting) -> u64 {
        self.requests += 1;
        self.waiting.insert(self.requests, waiting);
        self.requests
    }

    fn attach(&mut self, attach: Attach) {
        let (sender, logs) = mpsc::channel(SESSION_LINES);
        if attach.logs.mode != LogMode::Off {
            // Without a log task there are no lines, and the channel closes at once.
            let _ = self.notices.send(Notice::Attach { interest: attach.logs, lines: sender });
        }
        let session = Session {
            snapshot: self.snapshot(),
            updates: self.hub.subscribe(),
            logs,
            commands: self.setup.commands.clone(),
        };
        let _ = attach.reply.send(session);
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            version: VERSION,
            project: self.setup.project.clone(),
            directory: self.setup.directory.clone(),
            files: self.setup.files.clone(),
            supervisor: std::process::id(),
            phase: self.core.phase(),
            instances: self.core.views().map(|view| (view.name.clone(), view.clone())).collect(),
        }
    }

    /// Takes a result, and those that are there as well.
    fn finished(&mut self, finished: Result<Finished, tokio::task::JoinError>) {
        let mut inputs = Vec::new();
        let mut next = Some(finished);
        while let Some(finished) = next {
            match finished {
                Ok(Finished::Input(input)) => inputs.push(input),
                Ok(Finished::Started { instance, attempt, result }) => {
                    let result = result.map(|handle| {
                        self.handles.insert(instance.clone(), (attempt, handle));
                    });
                    inputs.push(Input::StartDone { instance, attempt, result });
                }
                // Panics are caught within the tasks, and nobody aborts them before the end.
                Err(_) => {}
            }
            next = (inputs.len() < REPORTS).then(|| self.tasks.try_join_next()).flatten();
        }
        self.inputs(inputs);
    }

    fn input(&mut self, input: Input) {
        self.inputs(vec![input]);
    }

    fn inputs(&mut self, inputs: Vec<Input>) {
        let mut inputs = inputs;
        while !inputs.is_empty() {
            let now = Now { elapsed: now() - self.origin, at: Timestamp::now() };
            let effects = self.core.steps(now, std::mem::take(&mut inputs));
            inputs.extend(effects.into_iter().filter_map(|effect| self.carry_out(effect)));
        }
    }

    /// Begins an effect; what is known at once comes back.
    fn carry_out(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Apply { unit, step } => {
                let engine = Arc::clone(&self.engine);
                self.tasks.spawn(async move {
                    let result = guarded(engine.apply(&step)).await;
                    Finished::Input(Input::StepDone { unit, result })
                });
            }
            Effect::Start { instance, attempt, spec, action } => self.start(instance, attempt, spec, *action),
            Effect::Stop { instance, attempt, grace } => {
                let Some(handle) = self.handle(&instance, attempt) else {
                    return Some(Input::StopDone { instance, attempt, result: Ok(()) });
                };
                self.tasks.spawn(async move {
                    let result = guarded(handle.stop(grace)).await;
                    Finished::Input(Input::StopDone { instance, attempt, result })
                });
            }
            Effect::Replace { instance, attempt, spec } => {
                let Some(handle) = self.handle(&instance, attempt) else {
                    let result = Err(Problem::new("it ended before its new module could take over"));
                    return Some(Input::ReplaceDone { instance, attempt, spec, result });
                };
                self.tasks.spawn(async move {
                    let result = guarded(handle.replace(Arc::clone(&spec))).await;
                    Finished::Input(Input::ReplaceDone { instance, attempt, spec, result })
                });
            }
            Effect::Kill { instance, attempt, signal } => {
                let Some(handle) = self.handle(&instance, attempt) else {
                    return Some(Input::KillDone { instance, attempt, result: Ok(()) });
                };
                self.tasks.spawn(async move {
                    let result = guarded(handle.kill(&signal)).await;
                    Finished::Input(Input::KillDone { instance, attempt, result })
                });
            }
            Effect::Probe { instance, attempt, probe, timeout } => {
                let dial = Arc::clone(&self.setup.dial);
                self.tasks.spawn(async move {
                    let asked = AssertUnwindSafe(probe::ask(&dial, &instance, &probe)).catch_unwind();
                    let result = match tokio::time::timeout(timeout, asked).await {
                        Ok(Ok(result)) => result,
                        Ok(Err(panic)) => Err(panicked(&*panic)),
                        Err(_) => {
                            Err(format!("{probe}: no answer within {}", crate::model::quantity::go_duration(timeout)))
                        }
                    };
                    Finished::Input(Input::Probed { instance, attempt, result })
                });
            }
            Effect::Forget { instance } => {
                self.handles.remove(&instance);
                let _ = self.notices.send(Notice::Forget { instance });
            }
            Effect::Emit(event) => self.emit(event),
            Effect::Reply { request, failures } => self.reply(request, Reply::Settled { failures }),
            Effect::Refuse { request, message } => self.reply(request, Reply::Refused(message)),
            Effect::Held { request } => {
                if let Some(Waiting::Held(held)) = self.waiting.remove(&request) {
                    let _ = held.send(());
                }
            }
            Effect::Done => self.ended = Some(Ending::Done),
            Effect::Quit => self.ended = Some(Ending::Quit),
        }
        None
    }

    fn start(&mut self, instance: InstanceName, attempt: Attempt, spec: Arc<InstanceSpec>, action: Action) {
        let keep = spec.resolved.is_wasm().then(|| Cap::of(spec.service.logging.as_ref()));
        let _ = self.notices.send(Notice::Known { instance: instance.clone(), keep });
        let (reports, lines) = (self.reports.clone(), self.lines.clone());
        let outlet = Outlet::new(instance.clone(), attempt, reports, lines, self.setup.follow_linux);
        let engine = Arc::clone(&self.engine);
        self.tasks.spawn(async move {
            let begun = async {
                match &action {
                    // The core swaps what runs, and starts what is known only when it is wished to run.
                    Action::Start | Action::Swap(_) | Action::Know(_) => engine.start(spec, outlet).await,
                    Action::Adopt(existing) => engine.adopt(spec, existing, outlet).await,
                }
            };
            let result = guarded(begun).await.map(Arc::from);
            Finished::Started { instance, attempt, result }
        });
    }

    fn handle(&self, instance: &InstanceName, attempt: Attempt) -> Option<Arc<dyn Handle>> {
        self.handles.get(instance).filter(|(of, _)| *of == attempt).map(|(_, handle)| Arc::clone(handle))
    }

    fn emit(&mut self, event: Event) {
        if let Event::Changed { instance } = &event
            && let (Kind::Wasm, Some(health)) = (instance.kind, instance.health)
            && let Some((_, handle)) = self.handles.get(&instance.name)
        {
            handle.tell_health(health);
        }
        self.hub.publish(&Stamped { at: Timestamp::now(), event });
    }

    fn reply(&mut self, request: u64, reply: Reply) {
        if let Some(Waiting::Reply(waiting)) = self.waiting.remove(&request) {
            let _ = waiting.send(reply);
        }
    }

    /// Cancels what still works, lets sessions have their last lines, and ends.
    async fn part(mut self, mut log_task: JoinSet<()>) -> Outcome {
        let ending = self.ended.unwrap_or(Ending::Left);
        let instances = self.core.views().cloned().collect();
        self.tasks.abort_all();
        let joined = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FAREWELL, joined).await;
        // The log task ends with the last sender of lines; engines let go of theirs with the handles.
        drop(self);
        let _ = tokio::time::timeout(FAREWELL, log_task.join_next()).await;
        log_task.shutdown().await;
        Outcome { ending, instances }
    }
}

impl Command {
    /// The wish a view sent; what needs files, a plan or an engine comes back.
    pub fn of(command: session::Command) -> Result<Self, session::Command> {
        let (verb, services) = match command {
            session::Command::Stop { services, timeout } => (Verb::Stop { timeout }, services),
            session::Command::Start { services } => (Verb::Start, services),
            session::Command::Restart { services, timeout } => (Verb::Restart { timeout }, services),
            session::Command::Kill { services, signal } => (Verb::Kill { signal }, services),
            other @ (session::Command::Up(_)
            | session::Command::Run(_)
            | session::Command::Down(_)
            | session::Command::Usage) => return Err(other),
        };
        Ok(Self { verb, services })
    }
}

/// An engine's call, with a panic as a problem: the loop survives whatever an engine does.
async fn guarded<T>(call: impl Future<Output = Result<T, EngineError>>) -> Result<T, Problem> {
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(result) => {
            result.map_err(|error| Problem { message: error.to_string(), hint: error.hint, kind: Some(error.kind) })
        }
        Err(panic) => Err(Problem::new(panicked(&*panic))),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("internal error: {}", text.unwrap_or("a task panicked"))
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Tokio's clock, so that tests can pause it.
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;
