//! The Wasm engine: guests under Wasmtime, in this process. The only folder that names wasmtime.
//!
//! `Create` compiles and links a module, binds its published ports and makes its agent, all at once; `start` joins it to
//! the network and runs it on threads of the guests' own. What runs is known here alone: a guest ends with the process
//! that runs it. Order and restarts are the supervisor's.

mod agents;
mod application;
pub mod attached;
pub mod cache;
mod command;
mod compile;
mod copy;
mod cpu;
pub mod exec;
mod extras;
mod files;
mod guest;
mod host;
mod inside;
mod instance;
mod limits;
mod linkers;
mod meter;
mod opening;
mod outgoing;
mod output;
mod p1;
mod reload;
mod reuse;
mod serve;
mod sockets;
mod spec;
mod steer;
mod stop;
mod streams;
mod tcp;
#[cfg(test)]
mod tests;
mod threads;
mod tls;
mod trap;
mod turns;
mod udp;
mod volume;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OnceCell, mpsc};
use tokio_util::task::TaskTracker;

pub use self::agents::AgentWay;
use self::agents::{Way, existing_agent};
use self::attached::{Ends, Stdin};
use self::compile::Compiler;
use self::extras::Extras;
use self::extras::keyvalue::{self, Memory};
use self::extras::redis::Redis;
use self::files::Files;
use self::guest::{Compiled, Run, Template, Work};
use self::host::Grants;
use self::instance::{Handed, Instance, Life, Running};
use self::limits::{Budget, Limits};
use self::meter::Meter;
use self::output::Output;
use self::reload::Reloader;
pub use self::steer::deadly_signal;
use self::threads::Threads;
use self::turns::Turns;
use super::docker::Docker;
use super::{Engine, EngineError, ErrorKind, Exit, Handle, Outlet, Report, Result, Started};
use crate::model::{InstanceName, Module, ProjectName, Resolved, ServiceName};
use crate::net::agent::Agent;
use crate::net::stack::{BoundPort, Conn, Fabric, Families, NetError, PublishError, Stack, StackNetwork, StackSpec};
use crate::net::wiring::Place;
use crate::plan::observed::{Existing, ExistingKind, ExistingNetwork, Health, Observed};
use crate::plan::unit::{Addresses, AtEnd, InstanceSpec, NetworkSpec, Step};

/// Refusals that wait to be told.
const REFUSALS: usize = 64;

/// Folders the engine uses; each is made (0700) when it is first needed.
#[derive(Debug, Clone)]
pub struct Folders {
    /// Sockets, gone after a reboot.
    pub runtime: PathBuf,
    /// Compiled code.
    pub cache: PathBuf,
    /// Named volumes of projects that need no Docker engine: `<data>/volumes/<engine's name>`.
    pub data: PathBuf,
}

/// What is known of each instance.
type Instances = Arc<Mutex<BTreeMap<InstanceName, Instance>>>;

/// The Wasm engine of one supervisor.
pub struct Wasm {
    folders: Folders,
    fabric: Arc<Fabric>,
    docker: Arc<OnceCell<Arc<Docker>>>,
    way: Way,
    compiled: Compiled,
    threads: Threads,
    instances: Instances,
    /// Networks of Wasm services alone: they are nothing but a name, by the engine's.
    networks: Mutex<BTreeMap<String, NetworkSpec>>,
    /// What guests keep in memory by `wasi:keyvalue`, for as long as an instance of their service is there.
    values: Mutex<BTreeMap<ServiceName, Arc<Memory>>>,
    runs: TaskTracker,
    /// For what is done at the end of a run.
    own: Weak<Self>,
}

impl Wasm {
    /// An engine; `docker` is filled before the first instance that lives at an agent is created.
    pub fn new(
        folders: Folders,
        fabric: Arc<Fabric>,
        docker: Arc<OnceCell<Arc<Docker>>>,
        agents: AgentWay,
    ) -> Arc<Self> {
        let compiled = Compiled::new(Compiler::new(&folders.cache));
        Arc::new_cyclic(|own| Self {
            folders,
            fabric,
            docker,
            way: Way::new(agents),
            compiled,
            threads: Threads::default(),
            instances: Arc::default(),
            networks: Mutex::default(),
            values: Mutex::default(),
            runs: TaskTracker::new(),
            own: own.clone(),
        })
    }

    /// Begins what the first guest will need and takes a while, beside whatever happens before there is one.
    pub fn warm(self: &Arc<Self>) {
        let wasm = self.clone();
        // Nobody needs to know when it is done: who needs it waits for it.
        drop(tokio::task::spawn_blocking(move || {
            wasm.compiled.warm();
            // It is told where it is needed.
            let _ = wasm.threads.handle();
        }));
    }

    /// Connects to a port of a running guest, as a process beside it would: for probes.
    pub async fn dial(&self, instance: &InstanceName, port: u16) -> Result<Conn, NetError> {
        let stack = self.lock().get(instance).and_then(Instance::running).map(|running| running.grants.stack.clone());
        match stack {
            Some(stack) => stack.connect(([127, 0, 0, 1], port).into()).await,
            None => Err(io::Error::from(io::ErrorKind::NotConnected).into()),
        }
    }

    /// As what a guest of this process runs in the place of this container, if one does. The container's labels tell as
    /// what it began.
    pub fn held(&self, container: &str) -> Option<Arc<InstanceSpec>> {
        let instances = self.lock();
        let mut running = instances.values().filter(|instance| instance.running().is_some());
        running.find(|instance| instance.spec.container == container).map(|instance| instance.spec.clone())
    }

    /// Says a line in the output of every guest of a service.
    pub fn say(&self, service: &ServiceName, line: &str) {
        for (_, instance) in self.lock().iter().filter(|(name, _)| name.service == *service) {
            if let Some(running) = instance.running() {
                running.reloader.output.line(super::Stream::Stderr, format!("wcompose: {line}"));
            }
        }
    }

    /// Whether a network of that name is of Wasm services alone and lives in this process.
    pub fn has_network(&self, name: &str) -> bool {
        self.networks.lock().expect("no panic while it is held").contains_key(name)
    }

    /// Whether a volume of that name is a folder of the user's rather than an engine's.
    pub fn has_volume(&self, name: &str) -> bool {
        volume::exists(&self.folders.data, name)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceName, Instance>> {
        self.instances.lock().expect("no panic while it is held")
    }

    async fn create(&self, spec: &Arc<InstanceSpec>, replace: Option<&Existing>) -> Result<()> {
        let module = wasm_module(spec)?;
        self.end(&spec.name, None).await?;
        let files = self.files(spec);
        let root = module.root.clone();
        let (template, files, ports, meeting) = tokio::join!(
            self.compiled.template(spec, module),
            blocking("prepare the files of", spec, move || files.create(root.as_deref())),
            self.publish(spec),
            self.create_agent(spec, replace),
        );
        let made = match (template, files, ports, meeting) {
            (Ok(template), Ok(()), Ok(ports), Ok(meeting)) => Ok((template, ports, meeting)),
            (template, files, ports, meeting) => {
                if let Ok(Some(_)) = meeting {
                    self.discard_agent(spec).await;
                }
                let first = template.err().or(files.err()).or(ports.err()).or(meeting.err());
                Err(first.expect("one of them failed"))
            }
        };
        match made {
            Ok((template, ports, meeting)) => {
                let instance = Instance::new(spec.clone(), template, ports, meeting);
                self.lock().insert(spec.name.clone(), instance);
                Ok(())
            }
            Err(error) => {
                self.forget(&spec.name);
                let _ = self.files(spec).remove();
                Err(error)
            }
        }
    }

    async fn publish(&self, spec: &InstanceSpec) -> Result<Vec<BoundPort>> {
        self.fabric.publish(&spec.name, &spec.service.ports).await.map_err(|error| publish_error(&error, spec))
    }

    async fn remove(&self, existing: &Existing, grace: Option<Duration>, volumes: bool) -> Result<()> {
        // A one-off has no number to be known by.
        let name = self.created(&existing.name).map(|spec| spec.name.clone()).or_else(|| existing.instance());
        if let Some(name) = &name {
            self.end(name, grace).await?;
        }
        if existing.kind == ExistingKind::Agent {
            let docker = self.docker.get().ok_or_else(|| unreachable_docker("remove", &existing.name))?;
            docker.remove(existing, grace, volumes).await?;
        }
        let project = existing.labels.get("com.docker.compose.project").map(String::as_str).unwrap_or_default();
        match &name {
            Some(name) => self.clear(&existing.name, name, project).await,
            None => Ok(()),
        }
    }

    /// Forgets an instance and removes its files.
    async fn clear(&self, container: &str, name: &InstanceName, project: &str) -> Result<()> {
        self.forget(name);
        let id = spec::short_id_of(project, name);
        let (files, rendezvous) = (Files::new(&self.folders.data, &id), self.folders.runtime.join(&id));
        let clear = move || {
            let _ = std::fs::remove_dir_all(rendezvous);
            files.remove()
        };
        let cleared = tokio::task::spawn_blocking(clear).await.expect("removing files does not panic");
        cleared.map_err(|error| EngineError::new(ErrorKind::Internal, "remove", container, error))
    }

    /// Forgets an instance: its ports are free again.
    fn forget(&self, name: &InstanceName) {
        self.fabric.unpublish(name);
        let mut instances = self.lock();
        instances.remove(name);
        if !instances.keys().any(|other| other.service == name.service) {
            self.values.lock().expect("no panic while it is held").remove(&name.service);
        }
    }

    /// What a guest is given beside WASI.
    fn extras(&self, spec: &InstanceSpec, stack: &Stack, output: &Output) -> Extras {
        let options = spec.service.wasm.as_ref();
        let store = match options.and_then(|options| options.keyvalue.clone()) {
            Some(address) => keyvalue::Store::Redis(Arc::new(Redis::new(address, stack.clone()))),
            None => {
                let mut values = self.values.lock().expect("no panic while it is held");
                keyvalue::Store::Memory(values.entry(spec.name.service.clone()).or_default().clone())
            }
        };
        let config = options.map(|options| options.config.clone()).unwrap_or_default();
        Extras { config: Arc::new(config), store, stores: None, output: output.clone() }
    }

    /// Ends the run of an instance, if there is one.
    async fn end(&self, name: &InstanceName, grace: Option<Duration>) -> Result<()> {
        let handed = self.lock().get(name).and_then(Instance::handed);
        match handed {
            Some(handed) => handed.stop(grace).await,
            None => Ok(()),
        }
    }

    fn files(&self, spec: &InstanceSpec) -> Files {
        Files::new(&self.folders.data, &spec::short_id(spec))
    }

    async fn run(&self, spec: &Arc<InstanceSpec>, outlet: Outlet, ends: Option<Ends>) -> Result<Box<dyn Handle>> {
        if !self.lock().contains_key(&spec.name) {
            // Made by a supervisor that is gone: its container may be there, its compiled guest is not.
            self.adopt_created(spec).await?;
        }
        let (template, meeting, made_of) = {
            let instances = self.lock();
            let instance = instances.get(&spec.name).ok_or_else(|| not_created(spec))?;
            if instance.running().is_some() {
                return Err(failed("start", spec, "it runs already"));
            }
            (instance.template.clone(), instance.meeting.clone(), instance.spec.wasm_hash.clone())
        };
        let template = if made_of == spec.wasm_hash { template } else { self.renew(spec).await? };
        let (agent, at_engine) = match meeting {
            Some(meeting) => {
                let (agent, started) = self.start_agent(spec, &meeting).await?;
                (Some(agent), Some(started))
            }
            None => (None, None),
        };
        let launched = self.launch(spec, template, agent.clone(), at_engine, outlet, ends).await;
        if let (Err(_), Some(agent)) = (&launched, agent) {
            self.fabric.leave(&spec.name);
            agent.exit(1).await;
        }
        launched
    }

    /// It was to take a new module while it ran, and ended before: its next run begins with that one.
    async fn renew(&self, spec: &Arc<InstanceSpec>) -> Result<Template> {
        let template = self.compiled.template(spec, wasm_module(spec)?).await?;
        if let Some(instance) = self.lock().get_mut(&spec.name) {
            instance.renew(spec.clone(), template.clone());
        }
        Ok(template)
    }

    /// From a started agent, or none, to a running guest.
    async fn launch(
        &self,
        spec: &Arc<InstanceSpec>,
        template: Template,
        agent: Option<Agent>,
        at_engine: Option<Started>,
        outlet: Outlet,
        ends: Option<Ends>,
    ) -> Result<Box<dyn Handle>> {
        let module = wasm_module(spec)?;
        let addresses = at_engine.as_ref().map(|started| started.addresses.clone()).unwrap_or_default();
        let (refusals, refused) = mpsc::channel(REFUSALS);
        let limits = Limits::of(&spec.service);
        let stack = self.fabric.join(StackSpec {
            instance: spec.name.clone(),
            networks: networks(spec, &addresses),
            agent: agent.clone(),
            egress: spec.egress.clone(),
            extra_hosts: spec.service.extra_hosts.clone(),
            sockets: limits.sockets,
            refusals,
        });
        let (files, image, passed) =
            (self.files(spec), module.root.clone(), agent.as_ref().map(Agent::directories).unwrap_or_default());
        let names = application::rooms(module);
        let (opened, rooms) = {
            let given = spec.clone();
            let open = move || files.open_all(&given, image.as_deref(), passed, &names);
            blocking("prepare the files of", spec, open).await?
        };
        let (stdin, output) = match ends {
            Some(ends) => (
                ends.stdin.map(|incoming| Stdin::new(incoming, ends.terminals.stdin)),
                Output::attached(ends.output, ends.terminals),
            ),
            None => (None, Output::new()),
        };
        for note in &opened.notes {
            output.line(super::Stream::Stderr, format!("wcompose: {note}"));
        }
        let identity = spec::identity(spec, module);
        let memory = Budget::new(limits, output.clone());
        let grants = Arc::new(Grants {
            arguments: identity.arguments,
            environment: identity.environment,
            working_dir: identity.working_dir,
            preopens: opened.preopens.into(),
            rooms: Arc::new(rooms),
            turns: Turns::new(memory.clone(), self.threads.busy()),
            memory,
            stdin,
            extras: self.extras(spec, &stack, &output),
            output,
            stack: stack.clone(),
            meter: Arc::new(Meter::default()),
        });
        let guests = self.threads.handle().map_err(|error| failed("start the threads of", spec, error))?;
        let ports = spec::http_ports(spec, module);
        let work = Work::begin(template, &grants, &guests, &ports).await;
        let work = work.map_err(|error| failed("start", spec, error))?;
        let (swaps, swapped) = mpsc::channel(1);
        let reloader = Reloader {
            compiled: self.compiled.clone(),
            instances: self.instances.clone(),
            swaps,
            files: self.files(spec),
            output: grants.output.clone(),
            turn: Arc::default(),
        };
        let (running, ended) = Running::new(spec, agent.clone(), grants.clone(), reloader);
        let run = Run {
            outlet: outlet.clone(),
            grants,
            work,
            container: agent.as_ref().and_then(|_| Some((spec.clone(), self.docker.get()?.clone()))),
            agent,
            refusals: refused,
            switch: running.switch.clone(),
            swaps: swapped,
            ports,
            grace: running.grace,
            guests,
            fabric: self.fabric.clone(),
        };
        let (started, handed) = {
            let mut instances = self.lock();
            let instance = instances.get_mut(&spec.name).ok_or_else(|| not_created(spec))?;
            let handed = running.handed();
            instance.begin(running, at_engine.as_ref());
            (instance.started(), handed)
        };
        outlet.report(Report::Started(started)).await;
        let (wasm, spec) = (self.own.clone(), spec.clone());
        drop(self.runs.spawn(async move {
            let exit = run.complete().await;
            if let Some(wasm) = wasm.upgrade() {
                wasm.finish(&spec, &exit).await;
            }
            outlet.report(Report::Exited(exit)).await;
            ended.send_replace(true);
        }));
        Ok(Box::new(handed))
    }

    /// A run ended: what is not kept goes before anybody learns of it.
    async fn finish(&self, spec: &InstanceSpec, exit: &Exit) {
        if let Some(instance) = self.lock().get_mut(&spec.name) {
            instance.finish(exit);
        }
        if spec.at_end == AtEnd::Removed {
            // Nobody is left to tell: what stays is cleared with the project.
            let _ = self.discard(spec).await;
        }
    }

    async fn adopt_created(&self, spec: &Arc<InstanceSpec>) -> Result<()> {
        let stale = match spec.place {
            Place::Agent => existing_agent(self.docker(spec)?, spec).await?,
            Place::InProcess => None,
        };
        self.create(spec, stale.as_ref()).await
    }
}

#[async_trait]
impl Engine for Wasm {
    async fn observe(&self, project: &ProjectName) -> Result<Observed> {
        let instances = self
            .lock()
            .values()
            .filter(|instance| instance.spec.project == *project && instance.spec.place == Place::InProcess)
            .map(Instance::observed)
            .collect();
        let networks = self
            .networks
            .lock()
            .expect("no panic while it is held")
            .values()
            .filter(|spec| spec.labels.get("com.docker.compose.project").is_some_and(|label| label == project.as_str()))
            .map(|spec| ExistingNetwork {
                id: spec.network.name.clone(),
                name: spec.network.name.clone(),
                key: Some(spec.network.key.clone()),
                owned: true,
                config_hash: spec.labels.get("com.docker.compose.config-hash").cloned(),
            })
            .collect();
        let (data, project) = (self.folders.data.clone(), project.clone());
        let volumes = tokio::task::spawn_blocking(move || volume::of_project(&data, &project))
            .await
            .expect("reading files does not panic")
            .map_err(|error| EngineError::new(ErrorKind::Internal, "list volumes in", "the data folder", error))?;
        Ok(Observed { instances, networks, volumes })
    }

    async fn apply(&self, step: &Step) -> Result<()> {
        match step {
            Step::Create { spec, replace } => self.create(spec, replace.as_deref()).await,
            Step::Remove { existing, grace, volumes } => self.remove(existing, *grace, *volumes).await,
            Step::CreateNetwork(spec) => {
                let mut networks = self.networks.lock().expect("no panic while it is held");
                networks.insert(spec.network.name.clone(), (**spec).clone());
                Ok(())
            }
            Step::RemoveNetwork(name) => {
                self.networks.lock().expect("no panic while it is held").remove(name);
                Ok(())
            }
            Step::CreateVolume(spec) => {
                let (data, spec) = (self.folders.data.clone(), spec.clone());
                let name = spec.volume.name.clone();
                tokio::task::spawn_blocking(move || volume::create(&data, &spec))
                    .await
                    .expect("making files does not panic")
                    .map_err(|error| EngineError::new(ErrorKind::Internal, "create volume", name, error))
            }
            Step::RemoveVolume(name) => {
                let (data, volume) = (self.folders.data.clone(), name.clone());
                tokio::task::spawn_blocking(move || volume::remove(&data, &volume))
                    .await
                    .expect("removing files does not panic")
                    .map_err(|error| EngineError::new(ErrorKind::Internal, "remove volume", name, error))
            }
        }
    }

    async fn start(&self, spec: Arc<InstanceSpec>, outlet: Outlet) -> Result<Box<dyn Handle>> {
        let started = self.run(&spec, outlet, None).await;
        if started.is_err() && spec.at_end == AtEnd::Removed {
            let _ = self.discard(&spec).await;
        }
        started
    }

    /// Only a guest of this process can run already; its lines go on to the outlet of its start.
    async fn adopt(&self, spec: Arc<InstanceSpec>, existing: &Existing, outlet: Outlet) -> Result<Box<dyn Handle>> {
        let (started, handed) = {
            let instances = self.lock();
            let instance = instances.get(&spec.name).filter(|instance| instance.life == Life::Running);
            let running = instance.and_then(|instance| Some((instance.started(), instance.handed()?)));
            running.ok_or_else(|| {
                EngineError::new(ErrorKind::NotFound, "adopt", &existing.name, "no guest of this process runs for it")
            })?
        };
        outlet.report(Report::Started(started)).await;
        Ok(Box::new(handed))
    }
}

#[async_trait]
impl Handle for Handed {
    async fn stop(&self, grace: Option<Duration>) -> Result<()> {
        match self.signal {
            stop::SIGKILL => self.switch.kill(stop::SIGKILL, None),
            signal => self.switch.stop(grace.unwrap_or(self.grace), signal),
        }
        self.ended().await;
        Ok(())
    }

    async fn replace(&self, spec: Arc<InstanceSpec>) -> Result<()> {
        self.reloader.reload(&spec).await
    }

    fn tell_health(&self, health: Health) {
        if let Some(agent) = &self.agent {
            agent.set_health(health == Health::Healthy);
        }
    }

    async fn kill(&self, signal: &str) -> Result<()> {
        match stop::effect(signal) {
            stop::Effect::Ends(stop::SIGKILL) => self.switch.kill(stop::SIGKILL, None),
            stop::Effect::Ends(number) => self.switch.stop(self.grace, number),
            stop::Effect::Nothing => {}
            stop::Effect::Unknown => {
                return Err(EngineError::new(ErrorKind::Invalid, "signal", signal, "there is no such signal"));
            }
        }
        Ok(())
    }
}

fn wasm_module(spec: &InstanceSpec) -> Result<&Module> {
    match &spec.resolved {
        Resolved::Wasm(module) => Ok(module),
        Resolved::Linux { .. } => Err(failed("run", spec, "it is a Linux service")),
    }
}

fn networks(spec: &InstanceSpec, addresses: &Addresses) -> Vec<StackNetwork> {
    spec.networks
        .iter()
        .map(|join| {
            let at_engine = addresses.get(&join.name);
            StackNetwork {
                name: join.name.clone(),
                in_process: join.in_process,
                internal: join.internal,
                families: if join.ipv6 { Families::Both } else { Families::V4 },
                names: join.aliases.clone(),
                addresses: at_engine.cloned().unwrap_or_default(),
            }
        })
        .collect()
}

/// Runs what blocks, and tells its failure as one of the instance's.
async fn blocking<T, E>(
    operation: &'static str,
    spec: &InstanceSpec,
    work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> Result<T>
where
    T: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| failed(operation, spec, error)),
        Err(lost) => Err(failed(operation, spec, lost)),
    }
}

fn failed(
    operation: &'static str,
    spec: &InstanceSpec,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> EngineError {
    EngineError::new(ErrorKind::Internal, operation, &spec.container, error)
}

fn not_created(spec: &InstanceSpec) -> EngineError {
    EngineError::new(ErrorKind::NotFound, "start", &spec.container, "it was removed meanwhile")
}

fn unreachable_docker(operation: &'static str, subject: &str) -> EngineError {
    EngineError::new(ErrorKind::Unreachable, operation, subject, "no Docker engine is connected")
}

fn publish_error(error: &PublishError, spec: &InstanceSpec) -> EngineError {
    let kind = match error.source.kind() {
        io::ErrorKind::AddrInUse => ErrorKind::Conflict,
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        _ => ErrorKind::Internal,
    };
    let denied = kind == ErrorKind::Denied;
    let error = EngineError::new(kind, "publish a port of", &spec.container, error.to_string());
    if denied { error.hint("ports below 1024 need privileges; publish another one, such as 8080") } else { error }
}
