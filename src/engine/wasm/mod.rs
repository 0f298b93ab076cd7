//! The Wasm engine: guests under Wasmtime, in this process. The only folder that names wasmtime.
//!
//! `Create` compiles and links a module, binds its published ports and makes its agent, all at once; `start` joins it to
//! the network and runs it on threads of the guests' own. What runs is known here alone: a guest ends with the process
//! that runs it. Order and restarts are the supervisor's.

mod agents;
mod answer;
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
mod inline;
mod inside;
mod instance;
mod launch;
mod limits;
mod linkers;
mod meter;
mod opening;
mod outgoing;
mod output;
mod p1;
mod pool;
mod reload;
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
mod workers;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use tokio_util::task::TaskTracker;

pub use self::agents::AgentWay;
use self::agents::{Way, existing_agent};
use self::compile::Compiler;
use self::extras::keyvalue::Memory;
use self::files::Files;
use self::guest::Compiled;
use self::instance::{Instance, Life};
pub use self::steer::deadly_signal;
use self::threads::Threads;
use super::docker::Docker;
use super::{Engine, EngineError, ErrorKind, Handle, Outlet, Report, Result};
use crate::model::{InstanceName, Module, ProjectName, Resolved, ServiceName};
use crate::net::stack::{BoundPort, Conn, Fabric, NetError, PublishError};
use crate::net::wiring::Place;
use crate::plan::observed::{Existing, ExistingKind, ExistingNetwork, Observed};
use crate::plan::unit::{AtEnd, InstanceSpec, NetworkSpec, Step};

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

fn wasm_module(spec: &InstanceSpec) -> Result<&Module> {
    match &spec.resolved {
        Resolved::Wasm(module) => Ok(module),
        Resolved::Linux { .. } => Err(failed("run", spec, "it is a Linux service")),
    }
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
