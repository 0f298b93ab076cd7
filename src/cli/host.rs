//! A supervisor in this process: engines, the deciding loop, the control socket, and the road from a wish to a plan.
//!
//! Foreground `up` holds one and looks at it through the same [`Session`] that another shell gets over the socket;
//! `up -d` leaves one behind. Preparing an `up` (loading, images) runs beside everything else and is given up
//! when a `down` or another `up` arrives.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use super::known::{self, Known, Stopped};
use super::outcome::{Failure, Outcome};
use super::paths::ProjectPaths;
use super::prepare::{self, Wanted};
use super::resolve::{DryRun, Progress, Step};
use super::settings::Settings;
use super::{errand, load, output, vacancy};
use crate::compose::Loaded;
use crate::control::lock::Lock;
use crate::control::server;
use crate::control::visitors::Visitors;
use crate::engine::Engine as _;
use crate::engine::engines::Engines;
use crate::event::Event;
use crate::model::{Project, ProjectName, ServiceName};
use crate::plan::observed::Observed;
use crate::plan::unit::{AtEnd, Plan};
use crate::plan::{self, DownOptions};
use crate::session::{
    Attach, Command, DownRequest, LoadRequest, LogInterest, Reply, Request, RunRequest, Session, UpRequest,
};
use crate::supervisor::signals::Signals;
use crate::supervisor::{self, Goal, Lifetime, Order, Setup, Verb};

/// How a host is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// For one command: nobody else commands it, and what it started stays when it ends.
    Once,
    /// In the foreground: other shells may command it, containers' output is followed.
    Foreground,
    /// In the foreground as well; what ended may have a new module soon, so that only who asks for the end gets it.
    Watching,
    /// Detached.
    Background,
}

/// A running supervisor.
pub struct Host {
    road: Road,
    requests: mpsc::Sender<Request>,
    drive: JoinHandle<supervisor::Outcome>,
    tasks: JoinSet<()>,
    /// The control socket: ends by itself once the loop did, when the clients have read the end.
    doors: JoinSet<()>,
    socket: Option<PathBuf>,
    /// Held as long as the host lives: one supervisor a project.
    _lock: Option<Lock>,
}

impl Host {
    /// Starts one. `lock` is the project's; [`Use::Once`] needs none when no guests come of it.
    pub fn start(
        settings: &Settings,
        project: &ProjectName,
        paths: &ProjectPaths,
        lock: Option<Lock>,
        usage: Use,
    ) -> Result<Self, Failure> {
        let engines = Arc::new(settings.engines(paths));
        let (orders, taken) = mpsc::channel(64);
        let (requests, wishes) = mpsc::channel(16);
        let setup = Setup {
            project: project.clone(),
            directory: settings.load.directory.clone(),
            files: Vec::new(),
            logs: (usage != Use::Once).then(|| paths.logs.clone()),
            follow_linux: usage != Use::Once,
            lifetime: if usage == Use::Foreground { Lifetime::UntilIdle } else { Lifetime::UntilDown },
            dial: dial(engines.clone()),
            commands: requests.clone(),
        };
        let socket = (usage != Use::Once).then(|| paths.socket.clone());
        let listener = socket.as_deref().map(server::listen).transpose()?;
        #[expect(clippy::disallowed_methods, reason = "the host owns the loop and joins it in `ended`")]
        let drive = tokio::spawn(supervisor::run(engines.clone(), setup, taken));
        let (mut tasks, mut doors) = (JoinSet::new(), JoinSet::new());
        let mut errands_of = None;
        if let Some(listener) = listener {
            let (attaches, attached) = mpsc::channel(16);
            let (opened, errands) = mpsc::channel(16);
            let visitors = Visitors::default();
            doors.spawn(server::serve(listener, attaches, requests.clone(), opened, visitors.clone()));
            errands_of = Some((errands, visitors));
            doors.spawn(pass_on(attached, orders.clone()));
        }
        let (preloaded, turn) = (Arc::default(), Arc::default());
        let road = Road { engines, orders, project: project.clone(), paths: paths.clone(), preloaded, turn };
        if let Some((errands, visitors)) = errands_of {
            if usage == Use::Background {
                tasks.spawn(vacancy::leave_when_vacant(road.clone(), visitors.clone()));
            }
            tasks.spawn(errand::serve(road.clone(), errands, visitors));
        }
        tasks.spawn(Router::new(road.clone()).run(wishes));
        Ok(Self { road, requests, drive, tasks, doors, socket, _lock: lock })
    }

    /// A session on it, as another shell would get one.
    pub async fn session(&self, logs: LogInterest) -> Result<Session, Failure> {
        self.road.session(logs).await
    }

    /// The way to its plans, for a command that prepares one itself.
    pub fn road(&self) -> Road {
        self.road.clone()
    }

    /// Where its wishes go.
    pub fn requests(&self) -> mpsc::Sender<Request> {
        self.requests.clone()
    }

    /// Asks it to end: gracefully the first time, by killing the second, at once the third.
    pub async fn signal(&self) {
        let _ = self.road.orders.send(Order::Signal).await;
    }

    /// Waits until it ended, and takes its socket away.
    pub async fn ended(mut self) {
        if let Err(error) = (&mut self.drive).await
            && error.is_panic()
        {
            output::error("the supervisor failed", &["this is a bug in wcompose: please report it".to_owned()]);
        }
        while self.doors.join_next().await.is_some() {}
        self.tasks.shutdown().await;
        if let Some(socket) = &self.socket {
            let _ = std::fs::remove_file(socket);
        }
    }

    /// Lets go: what runs goes on without a supervisor.
    pub async fn leave(self) {
        let Self { road, requests, drive, mut tasks, mut doors, .. } = self;
        doors.shutdown().await;
        tasks.shutdown().await;
        drop((road, requests));
        let _ = drive.await;
    }
}

/// `wcompose supervise`: holds a project until it is taken down.
pub async fn supervise(settings: Settings) -> Outcome {
    let name =
        settings.load.project_name.clone().ok_or_else(|| Failure::new("`supervise` needs `--project-name`", []))?;
    let project = ProjectName::new(name);
    let paths = settings.paths.project(&project);
    paths.make()?;
    let lock = Lock::acquire(&paths.lock)?
        .map_err(|holder| Failure::new(format!("project `{project}` has a supervisor already ({holder})"), []))?;
    let mut signals = Signals::listen()?;
    let host = Host::start(&settings, &project, &paths, Some(lock), Use::Background)?;
    super::detach::tell_ready()?;
    let orders = host.road.orders.clone();
    let mut ended = Box::pin(host.ended());
    loop {
        tokio::select! {
            () = &mut ended => return Ok(ExitCode::SUCCESS),
            _ = signals.next() => {
                let _ = orders.send(Order::Signal).await;
            }
        }
    }
}

/// Until the loop ends: then nobody takes sessions any more.
async fn pass_on(mut attached: mpsc::Receiver<Attach>, orders: mpsc::Sender<Order>) {
    loop {
        tokio::select! {
            attach = attached.recv() => match attach {
                Some(attach) => drop(orders.send(Order::Attach(attach)).await),
                None => return,
            },
            () = orders.closed() => return,
        }
    }
}

/// How probes reach a guest.
fn dial(engines: Arc<Engines>) -> supervisor::probe::Dial {
    Arc::new(move |instance, port| {
        let wasm = engines.wasm().clone();
        Box::pin(async move { wasm.dial(&instance, port).await })
    })
}

/// Turns wishes into orders. `Up` and `Down` need files and engines; the loop is given plans only.
struct Router {
    road: Road,
    /// Ups and downs that have no plan yet.
    preparing: JoinSet<()>,
    /// Looks at what is used: they change nothing, and wait for engines.
    looks: JoinSet<()>,
}

impl Router {
    fn new(road: Road) -> Self {
        Self { road, preparing: JoinSet::new(), looks: JoinSet::new() }
    }

    async fn run(mut self, mut wishes: mpsc::Receiver<Request>) {
        while let Some(Request { command, reply }) = wishes.recv().await {
            while self.preparing.try_join_next().is_some() {}
            while self.looks.try_join_next().is_some() {}
            match command {
                Command::Up(up) => {
                    // A new module takes nothing over: whoever else wants something gets it first.
                    if !up.options.reload {
                        self.preparing.abort_all();
                    }
                    let road = self.road.clone();
                    self.prepare(async move { road.up(*up).await }, reply);
                }
                Command::Run(run) => {
                    let road = self.road.clone();
                    self.in_turn(async move {
                        let unclaimed = (!run.start).then(|| run.container.clone());
                        // Nobody is left to start what was made.
                        if let (Err(_), Some(container)) = (reply.send(road.run(*run).await), unclaimed) {
                            road.discard(&container).await;
                        }
                    });
                }
                Command::Usage => {
                    let road = self.road.clone();
                    self.looks.spawn(async move {
                        let _ = reply.send(road.usage().await);
                    });
                }
                Command::Down(down) => {
                    self.preparing.abort_all();
                    let road = self.road.clone();
                    self.prepare(async move { road.down(down).await }, reply);
                }
                Command::Stop { services, timeout } => self.command(Verb::Stop { timeout }, services, reply).await,
                Command::Start { services } => self.command(Verb::Start, services, reply).await,
                Command::Restart { services, timeout } => {
                    self.command(Verb::Restart { timeout }, services, reply).await
                }
                Command::Kill { services, signal } => self.command(Verb::Kill { signal }, services, reply).await,
            }
        }
    }

    /// Works on a wish beside everything else, after what is being worked on. An `up` that is aborted before it is planned
    /// tells its asker so by the dropped reply.
    fn prepare(&mut self, work: impl Future<Output = Reply> + Send + 'static, reply: oneshot::Sender<Reply>) {
        self.in_turn(async move {
            let _ = reply.send(work.await);
        });
    }

    fn in_turn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        let turn = self.road.turn.clone();
        self.preparing.spawn(async move {
            let _turn = turn.lock().await;
            work.await;
        });
    }

    async fn command(&self, verb: Verb, services: Vec<ServiceName>, reply: oneshot::Sender<Reply>) {
        let command = supervisor::Command { verb, services };
        let _ = self.road.orders.send(Order::Command { command, reply }).await;
    }
}

/// The road from files to a plan in the loop.
#[derive(Clone)]
pub struct Road {
    engines: Arc<Engines>,
    orders: mpsc::Sender<Order>,
    project: ProjectName,
    paths: ProjectPaths,
    /// What the command that began all this has loaded already.
    preloaded: Arc<std::sync::Mutex<Option<(LoadRequest, Loaded)>>>,
    /// Held by the one wish that is prepared now.
    turn: Arc<Mutex<()>>,
}

impl Road {
    /// Saves the next `up` or `run` of this request the load.
    pub fn preload(&self, request: &LoadRequest, loaded: Loaded) {
        *self.preloaded.lock().expect("no panic while it is held") = Some((request.clone(), loaded));
    }

    async fn load(&self, request: &LoadRequest) -> Result<Loaded, Failure> {
        let preloaded = self.preloaded.lock().expect("no panic while it is held").take();
        match preloaded {
            Some((of, loaded)) if of == *request => Ok(loaded),
            _ => load::load(request).await,
        }
    }

    /// The engines.
    pub fn engines(&self) -> &Arc<Engines> {
        &self.engines
    }

    /// A whole `up`: load, resolve, plan, carry out.
    async fn up(&self, up: UpRequest) -> Reply {
        let reloaded = if up.options.reload { up.options.services.clone() } else { Vec::new() };
        let outcome = match self.resolve(up).await {
            Ok(wanted) => self.carry_out(&wanted).await,
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(reply) => reply,
            Err(failure) => {
                // Who looks at the service's log only learns of it, too.
                let text = anstream::adapter::strip_str(&output::text(&failure)).to_string();
                for service in &reloaded {
                    let wasm = self.engines.wasm();
                    wasm.say(service, "there is no new module, the old one goes on:");
                    text.lines().for_each(|line| wasm.say(service, line));
                }
                self.end_if_empty().await;
                Reply::Refused(output::text(&failure))
            }
        }
    }

    /// Loads and resolves images; progress goes to the sessions.
    pub async fn resolve(&self, up: UpRequest) -> Result<Wanted, Failure> {
        let loaded = self.load(&up.load).await?;
        prepare::resolve(up, loaded, &self.engines, &self.paths.image_folders(), &self.progress(), DryRun::No).await
    }

    /// Plans from what is there now and has the plan carried out. What fails before anything ran leaves nothing behind.
    pub async fn carry_out(&self, wanted: &Wanted) -> Result<Reply, Failure> {
        self.hold().await?;
        let prepared = match wanted.plan(&self.engines).await {
            Ok(prepared) => prepared,
            Err(failure) => {
                let _ = self.orders.send(Order::Release).await;
                return Err(failure);
            }
        };
        if self.engines.is_connected() {
            self.paths.note_engine();
        }
        let fresh = prepared.observed.instances.is_empty();
        let reply = self.adopt(prepared.plan, wanted.goal()).await?;
        let failed = matches!(&reply, Reply::Settled { failures } if !failures.is_empty());
        if failed && fresh && self.nothing_ran().await {
            self.take_down(&DownRequest::default(), Some(&wanted.project)).await?;
        }
        Ok(reply)
    }

    /// A whole `run`, up to what attaching starts.
    async fn run(&self, run: RunRequest) -> Reply {
        let outcome = match self.resolve(run.up.clone()).await {
            Ok(wanted) => self.carry_out_run(&wanted, &run).await,
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(reply) => reply,
            Err(failure) => {
                self.end_if_empty().await;
                Reply::Refused(output::text(&failure))
            }
        }
    }

    /// Plans a one-off from what is there now, and has it made.
    pub async fn carry_out_run(&self, wanted: &Wanted, run: &RunRequest) -> Result<Reply, Failure> {
        let one_off = plan::OneOff {
            service: run.service.clone(),
            container: run.container.clone(),
            slug: run.slug.clone(),
            use_aliases: run.use_aliases,
            start: run.start,
            at_end: if run.remove { AtEnd::Removed } else { AtEnd::Kept },
        };
        self.hold().await?;
        let prepared = match wanted.plan_run(&self.engines, &one_off).await {
            Ok(prepared) => prepared,
            Err(failure) => {
                let _ = self.orders.send(Order::Release).await;
                return Err(failure);
            }
        };
        if self.engines.is_connected() {
            self.paths.note_engine();
        }
        self.adopt(prepared.plan, Goal::Up).await
    }

    /// What instances use now.
    async fn usage(&self) -> Reply {
        match self.engines.usage(&self.project).await {
            Ok(usage) => Reply::Usage(usage),
            Err(error) => Reply::Refused(output::text(&error.into())),
        }
    }

    async fn down(&self, down: DownRequest) -> Reply {
        let project = match down.load.as_deref() {
            Some(request) => match load::load(request).await {
                Ok(loaded) => Some(loaded.project),
                Err(failure) => return Reply::Refused(output::text(&failure)),
            },
            None => None,
        };
        match self.take_down(&down, project.as_ref()).await {
            Ok(reply) => reply,
            Err(failure) => Reply::Refused(output::text(&failure)),
        }
    }

    /// What is there is taken down, in the order of the files if there are any.
    pub async fn take_down(&self, down: &DownRequest, project: Option<&Project>) -> Result<Reply, Failure> {
        self.hold().await?;
        match self.plan_down(down, project).await {
            Ok(plan) => self.adopt(plan, Goal::Down(down.services.clone())).await,
            Err(failure) => {
                let _ = self.orders.send(Order::Release).await;
                Err(failure)
            }
        }
    }

    /// The plan of a `down`.
    pub async fn plan_down(&self, down: &DownRequest, project: Option<&Project>) -> Result<Plan, Failure> {
        let observed = self.observe().await?;
        let options = DownOptions {
            services: down.services.clone(),
            volumes: down.volumes,
            remove_orphans: down.remove_orphans,
            timeout: down.timeout.map(Duration::from_secs),
        };
        let target = project.map_or(plan::Target::Labels, plan::Target::Project);
        Ok(plan::down(target, &observed, &options))
    }

    /// Makes what exists known to the loop.
    pub async fn know(&self, project: &Project, observed: &Observed, stopped: &Stopped) -> Result<Known, Failure> {
        let mut known = known::known(project, observed, stopped);
        self.adopt(std::mem::take(&mut known.plan), Goal::Up).await?;
        Ok(known)
    }

    /// Connects the Docker engine.
    pub async fn connect(&self) -> Result<(), Failure> {
        self.engines.docker().await?;
        self.paths.note_engine();
        Ok(())
    }

    /// What exists now.
    pub async fn observe(&self) -> Result<Observed, Failure> {
        Ok(self.engines.observe(&self.project).await?)
    }

    /// Hands a plan to the loop and waits until it is carried out as far as it can be.
    pub async fn adopt(&self, plan: Plan, goal: Goal) -> Result<Reply, Failure> {
        let (reply, answer) = oneshot::channel();
        let _ = self.orders.send(Order::Adopt { plan, goal, reply }).await;
        answer.await.map_err(|_| ending())
    }

    /// A session on the loop.
    pub async fn session(&self, logs: LogInterest) -> Result<Session, Failure> {
        let (reply, answer) = oneshot::channel();
        let _ = self.orders.send(Order::Attach(Attach { logs, reply })).await;
        answer.await.map_err(|_| ending())
    }

    /// Asks the loop to begin nothing until the next plan, and waits until nothing is under way.
    async fn hold(&self) -> Result<(), Failure> {
        let (reply, held) = oneshot::channel();
        let _ = self.orders.send(Order::Hold { reply }).await;
        held.await.map_err(|_| ending())
    }

    async fn nothing_ran(&self) -> bool {
        let session = self.session(LogInterest::default()).await;
        session.is_ok_and(|session| session.snapshot.instances.values().all(|instance| instance.started.is_none()))
    }

    /// Removes a one-off that was made and never started.
    pub async fn discard(&self, container: &str) {
        let unstarted = self.engines.wasm().unstarted();
        for spec in unstarted.iter().filter(|spec| spec.container == container) {
            // What cannot be removed is cleared with the project.
            let _ = self.engines.wasm().discard(spec).await;
        }
    }

    /// Waits until nothing is prepared; nothing is until what comes back is dropped.
    pub async fn pause(&self) -> OwnedMutexGuard<()> {
        self.turn.clone().lock_owned().await
    }

    /// A supervisor that holds nothing, as after a failed `up`, has no reason to stay.
    pub async fn end_if_empty(&self) {
        let session = self.session(LogInterest::default()).await;
        let knows_nothing = session.is_ok_and(|session| session.snapshot.instances.is_empty());
        if knows_nothing && self.engines.wasm().is_empty() {
            let _ = self.adopt(Plan::default(), Goal::Down(Vec::new())).await;
        }
    }

    /// Progress of images, as events beside all others. A full channel drops a line of output, never a state.
    pub fn progress(&self) -> Progress {
        let orders = self.orders.clone();
        Arc::new(move |id, status, step| {
            let (id, status) = (id.to_owned(), status.to_owned());
            let event = match step {
                Step::Working | Step::Output => Event::StepStarted { id, status },
                Step::Done | Step::Planned => Event::StepFinished { id, status },
            };
            let _ = orders.try_send(Order::Tell(event));
        })
    }
}

fn ending() -> Failure {
    Failure::new("the supervisor is ending", [])
}
