//! One run of an instance, from its start to the report of its end.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Handle as Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::answer::{Component, Generation};
use super::application::Linked as LinkedApplication;
use super::blocking;
use super::command::{Entry, Program};
use super::compile::{Code, CompileError, Compiler, Metering, Profile};
use super::cpu::measured;
use super::host::Grants;
use super::limits::Limits;
use super::linkers::Linkers;
use super::reload::Swap;
use super::serve::{Served, Server, Site};
use super::stop::{SIGKILL, Switch, Wish, wanted};
use super::trap::{Ended, TRAPPED};
use crate::engine::docker::Docker;
use crate::engine::{Exit, Outlet, Refusal, Report, Result, Stream};
use crate::model::{Module, ModuleKind};
use crate::net::agent::{Agent, AgentEvent};
use crate::net::stack::{Fabric, Gap, Listener, Refused};
use crate::plan::unit::InstanceSpec;

/// A module that was compiled and linked: what each start begins with.
#[derive(Clone)]
pub enum Template {
    /// Runs from start to end.
    Program(Program, Entry),
    /// Answers requests.
    Service {
        /// The component.
        component: Component,
        /// Instances are kept between requests.
        reuse: bool,
    },
    /// Answers requests by several components.
    Application(LinkedApplication),
}

impl Template {
    /// The profile a module is compiled for.
    pub fn profile(module: &Module) -> Profile {
        match (module.kind, &module.function) {
            (kind, _) if kind.is_async() => Profile::Concurrent,
            (ModuleKind::Http, None) => Profile::Serve,
            _ => Profile::Program,
        }
    }

    /// Links compiled code; an import that does not fit is an error here, not at a request.
    pub fn link(linkers: &Linkers, code: &Code, module: &Module, reuse: bool) -> wasmtime::Result<Self> {
        let entry = module.function.clone().map_or(Entry::Main, Entry::Export);
        Ok(match code {
            Code::Module(code) => Self::Program(Program::Core(linkers.core(code)?), entry),
            Code::Component(code) => {
                let linked = linkers.component(code, Self::profile(module))?;
                if module.kind.is_http() && entry == Entry::Main {
                    Self::Service { component: Component::new(linked)?, reuse }
                } else {
                    Self::Program(Program::Component(linked), entry)
                }
            }
        })
    }
}

/// Makes what a run begins with. Cheap to clone.
#[derive(Clone)]
pub struct Compiled(Arc<(Compiler, Linkers)>);

impl Compiled {
    /// By a compiler.
    pub fn new(compiler: Compiler) -> Self {
        Self(Arc::new((compiler, Linkers::default())))
    }

    /// Makes what modules are compiled and linked with, unless they need what few do.
    pub fn warm(&self) {
        let (compiler, linkers) = &*self.0;
        for profile in [Profile::Serve, Profile::Program] {
            // What fails here is told where it is needed.
            let _ = compiler.engine(profile, Metering::Off).map(|engine| linkers.warm(&engine, profile));
        }
    }

    /// The template of an instance that runs this module.
    pub async fn template(&self, spec: &InstanceSpec, module: &Module) -> Result<Template> {
        let reuse = spec.service.wasm.as_ref().is_some_and(|options| options.http_reuse);
        let metering = if Limits::of(&spec.service).fuel.is_some() { Metering::Fuel } else { Metering::Off };
        let (made, module) = (self.0.clone(), module.clone());
        let link = move || {
            let (compiler, linkers) = &*made;
            let one = |module: &Module| {
                let (code, _) = compiler.code(module, Template::profile(module), metering)?;
                Template::link(linkers, &code, module, reuse).map_err(CompileError::Wasmtime)
            };
            let Some(application) = module.application() else { return one(&module) };
            let components = application.components.iter().map(|part| match one(&part.module)? {
                Template::Service { component, .. } => Ok(component),
                Template::Program(..) | Template::Application(_) => unreachable!("its components answer requests"),
            });
            let components = components.collect::<std::result::Result<_, CompileError>>()?;
            Ok(Template::Application(LinkedApplication { application: application.clone(), components, reuse }))
        };
        blocking("compile the module of", spec, link).await
    }
}

/// Everything one run needs.
pub struct Run {
    /// Where facts and lines go.
    pub outlet: Outlet,
    /// What the guest is given.
    pub grants: Arc<Grants>,
    /// What is run.
    pub work: Work,
    /// The agent, where the instance lives at one.
    pub agent: Option<Agent>,
    /// Whose container it has, and the engine that has it.
    pub container: Option<(Arc<InstanceSpec>, Arc<Docker>)>,
    /// What the network refused.
    pub refusals: mpsc::Receiver<Refused>,
    /// Wishes for its end.
    pub switch: Switch,
    /// New modules.
    pub swaps: mpsc::Receiver<Swap>,
    /// Where a component is served.
    pub ports: Vec<u16>,
    /// How long it may take to end when its agent is asked to.
    pub grace: Duration,
    /// Where guests run.
    pub guests: Runtime,
    /// Takes the instance off the network at the end.
    pub fabric: Arc<Fabric>,
}

/// What a run does.
pub enum Work {
    /// A program.
    Program(Program, Entry),
    /// An HTTP component that listens already.
    Service(Arc<Server>, Vec<Listener>),
}

impl Work {
    /// What a template does when it is started; a component listens from here on.
    pub async fn begin(
        template: Template,
        grants: &Arc<Grants>,
        guests: &Runtime,
        ports: &[u16],
    ) -> std::result::Result<Self, String> {
        match template {
            Template::Program(program, entry) => Ok(Self::Program(program, entry)),
            Template::Service { component, reuse } => {
                let first = Generation::new(component, grants.clone(), reuse).map(Site::from);
                Self::serve(first, guests, ports).await
            }
            Template::Application(linked) => Self::serve(linked.site(grants), guests, ports).await,
        }
    }

    async fn serve(site: wasmtime::Result<Site>, guests: &Runtime, ports: &[u16]) -> std::result::Result<Self, String> {
        let server = Server::new(site.map_err(|error| format!("{error:#}"))?, guests.clone());
        let mut listeners = Vec::new();
        for port in ports {
            let listener = server.listen(*port).await;
            listeners.push(listener.map_err(|error| format!("listen on port {port}: {error}"))?);
        }
        Ok(Self::Service(server, listeners))
    }
}

/// How work came to an end.
pub enum Finished {
    /// With this exit code, and why.
    Ended(i64, Option<String>),
    /// Something else takes its place; nothing of it runs any more. In the gap its ports wait.
    Replaced(Swap, Option<Gap>),
}

/// How long ports wait for the program that takes another's place to listen on them.
const GAP: Duration = Duration::from_secs(10);

impl Run {
    /// Runs to the end, and cleans up after it.
    pub async fn complete(self) -> Exit {
        let Self { outlet, mut grants, mut work, agent, container, refusals, .. } = self;
        let Self { switch, mut swaps, ports, grace, guests, fabric, .. } = self;
        let output = grants.output.clone();
        let memory = grants.memory.clone();
        let mut helpers = JoinSet::new();
        helpers.spawn(tell_refusals(refusals, outlet.clone(), grants.clone()));
        let mirror = agent.as_ref().and_then(Agent::output);
        if let Some(events) = agent.as_ref().and_then(Agent::events) {
            helpers.spawn(heed_agent(events, switch.clone(), grace));
        }
        let mut pump = JoinSet::new();
        pump.spawn(output.clone().pump(outlet.clone(), mirror));

        let (code, reason) = loop {
            let finished = match work {
                Work::Program(program, entry) => {
                    run_program(program, entry, grants.clone(), &switch, &guests, &mut swaps).await
                }
                Work::Service(server, listeners) => {
                    match server.serve(listeners, switch.watch(), &mut swaps, grace).await {
                        Served::Ended(signal, reason) => Finished::Ended(128 + i64::from(signal), reason),
                        Served::Replaced(swap) => Finished::Replaced(swap, None),
                    }
                }
            };
            let (Swap { template, identity, between, done }, gap) = match finished {
                Finished::Ended(code, reason) => break (code, reason),
                Finished::Replaced(swap, gap) => (swap, gap),
            };
            if let Some(between) = between {
                match tokio::task::spawn_blocking(between).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => output.line(Stream::Stderr, format!("wcompose: {error}")),
                    Err(lost) => output.line(Stream::Stderr, format!("wcompose: {lost}")),
                }
            }
            grants = Arc::new(grants.renewed(identity));
            match Work::begin(template, &grants, &guests, &ports).await {
                // Whoever asked may have given up.
                Ok(next) => {
                    helpers.spawn(async move {
                        tokio::time::sleep(GAP).await;
                        drop(gap);
                    });
                    work = next;
                    let _ = done.send(Ok(()));
                }
                Err(error) => {
                    let _ = done.send(Err(error.clone()));
                    break (1, Some(error));
                }
            }
        };
        // Nobody is told of a new module that comes now but by the closed channel.
        drop((swaps, grants));
        let reason = reason.map(|reason| match memory.denial() {
            // Its log has it already.
            Some(denial) if code == TRAPPED => format!("{reason}; {denial}"),
            _ => reason,
        });
        helpers.shutdown().await;
        output.close();
        let _ = pump.join_next().await;
        fabric.leave(outlet.instance());
        if let Some(agent) = agent {
            agent.exit(u8::try_from(code).unwrap_or(u8::MAX)).await;
        }
        if let Some((spec, docker)) = container {
            // The engine learns of an exit a moment later, and would take a start in that moment for done. Killing
            // waits until it knows, and cannot change the code of a process that has exited.
            let _ = docker.kill_agent(&spec).await;
        }
        Exit { code, at: Timestamp::now(), reason, restarting: false }
    }
}

/// Runs a program on the guests' threads. It cannot catch signals, so any wish for its end ends it at once.
pub async fn run_program(
    program: Program,
    entry: Entry,
    grants: Arc<Grants>,
    switch: &Switch,
    guests: &Runtime,
    swaps: &mut mpsc::Receiver<Swap>,
) -> Finished {
    let (output, stack) = (grants.output.clone(), grants.stack.clone());
    let mut watch = switch.watch();
    let mut task = JoinSet::new();
    let (turns, meter) = (grants.turns.clone(), grants.meter.clone());
    let run = measured(meter, async move { program.run(&entry, &grants).await });
    task.spawn_on(turns.run(run), guests);
    tokio::select! {
        ended = task.join_next() => match ended.expect("one task is in it") {
            Ok(Ended::Exited(code)) => Finished::Ended(code, None),
            Ok(Ended::Trapped(trapped)) => {
                for line in trapped.lines() {
                    output.line(Stream::Stderr, line);
                }
                Finished::Ended(TRAPPED, Some(format!("wasm trap: {}", trapped.reason)))
            }
            Err(lost) => {
                output.line(Stream::Stderr, format!("wcompose: the guest's task failed: {lost}"));
                Finished::Ended(128 + i64::from(SIGKILL), Some(format!("an error of wcompose: {lost}")))
            }
        },
        wish = wanted(&mut watch) => {
            // Gone are its memory and its sockets when this returns.
            task.shutdown().await;
            match wish {
                Wish::Stop { signal, .. } => Finished::Ended(128 + i64::from(signal), None),
                Wish::Kill { signal, reason } => Finished::Ended(128 + i64::from(signal), reason),
                Wish::Run => unreachable!("`wanted` waits for another wish"),
            }
        }
        Some(swap) = swaps.recv() => {
            let gap = stack.gap();
            task.shutdown().await;
            Finished::Replaced(swap, Some(gap))
        }
    }
}

async fn tell_refusals(mut refusals: mpsc::Receiver<Refused>, outlet: Outlet, grants: Arc<Grants>) {
    while let Some(Refused { what, why, grant }) = refusals.recv().await {
        let advice = grant.as_ref().map(|grant| format!("; to allow it: {grant}")).unwrap_or_default();
        grants.output.line(Stream::Stderr, format!("wcompose: refused to {what}: {why}{advice}"));
        outlet.report(Report::Refused(Refusal { what, why, grant })).await;
    }
}

/// Someone may stop the instance through its container.
async fn heed_agent(mut events: mpsc::Receiver<AgentEvent>, switch: Switch, grace: Duration) {
    while let Some(event) = events.recv().await {
        match event {
            AgentEvent::Terminate => switch.stop(grace, super::stop::SIGTERM),
            AgentEvent::Gone => {
                switch.kill(SIGKILL, Some("its agent container was stopped or removed".into()));
                return;
            }
        }
    }
}
