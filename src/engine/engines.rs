//! All engines of one supervisor as one [`Engine`]: each step and instance goes to the engine that runs it.
//! The Docker engine is connected when it is first needed: a project of Wasm services alone runs without one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::OnceCell;

use super::docker::Docker;
use super::wasm::{AgentWay, Folders, Wasm};
use super::{Engine, Handle, Outlet, Result};
use crate::model::{Project, ProjectName, Usage};
use crate::net::directory::Directory;
use crate::net::stack::Fabric;
use crate::plan::observed::{Existing, ExistingKind, Observed, RunState};
use crate::plan::unit::{InstanceSpec, Step};

/// The label that tells what an instance was made from.
const IMAGE: &str = "com.docker.compose.image";

/// Containers whose figures are asked for at a time.
const LOOKS: usize = 16;

/// The engines of one supervisor.
pub struct Engines {
    host: Option<String>,
    directory: Arc<Directory>,
    docker: Arc<OnceCell<Arc<Docker>>>,
    needed: AtomicBool,
    wasm: Arc<Wasm>,
}

impl Engines {
    /// Engines over fresh directories; `host` is `DOCKER_HOST`.
    pub fn new(host: Option<String>, folders: Folders, agents: AgentWay) -> Self {
        let directory = Directory::new();
        let docker = Arc::new(OnceCell::new());
        let wasm = Wasm::new(folders, Fabric::new(directory.clone()), docker.clone(), agents);
        Self { host, directory, docker, needed: AtomicBool::new(false), wasm }
    }

    /// The Docker engine, connected now if it was not yet.
    pub async fn docker(&self) -> Result<&Arc<Docker>> {
        let docker = self.connected().await?;
        self.needed.store(true, Ordering::Relaxed);
        Ok(docker)
    }

    /// The Docker engine, if one answers: for whoever can do without.
    pub async fn any_docker(&self) -> Option<&Arc<Docker>> {
        self.connected().await.ok()
    }

    async fn connected(&self) -> Result<&Arc<Docker>> {
        self.docker.get_or_try_init(|| Docker::connect(self.host.as_deref(), self.directory.clone())).await
    }

    /// Whether the Docker engine is in use; one that was only asked for an image is not.
    pub fn is_connected(&self) -> bool {
        self.needed.load(Ordering::Relaxed)
    }

    /// What exists now of a project, foreign networks and volumes under the names it uses included.
    pub async fn observe_project(&self, project: &Project) -> Result<Observed> {
        let mut observed = self.wasm.observe(&project.name).await?;
        if let Some(docker) = self.docker.get() {
            let networks: Vec<String> = project.networks.values().map(|network| network.name.clone()).collect();
            let volumes: Vec<String> = project.volumes.values().map(|volume| volume.name.clone()).collect();
            self.add(&mut observed, docker.observe_with(&project.name, &networks, &volumes).await?);
        }
        Ok(observed)
    }

    /// What the running instances of a project use now, of both kinds, by container name.
    pub async fn usage(&self, project: &ProjectName) -> Result<Vec<Usage>> {
        let mut all = self.wasm.usage(project);
        if let Some(docker) = self.docker.get() {
            let observed = docker.observe(project).await?;
            let mut running = observed.instances;
            running.retain(|one| one.kind == ExistingKind::Container && one.state == RunState::Running);
            let look = |existing: Existing| {
                let docker = docker.clone();
                async move { docker.usage(&existing).await }
            };
            let looks = stream::iter(running.into_iter().map(look)).buffer_unordered(LOOKS);
            all.extend(looks.try_collect::<Vec<_>>().await?.into_iter().flatten());
        }
        all.sort_by(|one, other| one.container.cmp(&other.container));
        Ok(all)
    }

    /// The Wasm engine.
    pub fn wasm(&self) -> &Arc<Wasm> {
        &self.wasm
    }
}

#[async_trait]
impl Engine for Engines {
    /// The Docker engine is asked only if it is connected: whoever knows that it is needed connects it first.
    async fn observe(&self, project: &ProjectName) -> Result<Observed> {
        let mut observed = self.wasm.observe(project).await?;
        if let Some(docker) = self.docker.get() {
            self.add(&mut observed, docker.observe(project).await?);
        }
        Ok(observed)
    }

    async fn apply(&self, step: &Step) -> Result<()> {
        let in_process = match step {
            Step::CreateNetwork(spec) => spec.in_process,
            Step::CreateVolume(spec) => spec.in_process,
            Step::Create { spec, .. } => spec.resolved.is_wasm(),
            Step::Remove { existing, .. } => existing.kind != ExistingKind::Container,
            Step::RemoveNetwork(name) => self.wasm.has_network(name),
            Step::RemoveVolume(name) => self.wasm.has_volume(name),
        };
        if in_process { self.wasm.apply(step).await } else { self.docker().await?.apply(step).await }
    }

    async fn start(&self, spec: Arc<InstanceSpec>, outlet: Outlet) -> Result<Box<dyn Handle>> {
        if spec.resolved.is_wasm() {
            self.wasm.start(spec, outlet).await
        } else {
            self.docker().await?.start(spec, outlet).await
        }
    }

    async fn adopt(&self, spec: Arc<InstanceSpec>, existing: &Existing, outlet: Outlet) -> Result<Box<dyn Handle>> {
        if spec.resolved.is_wasm() {
            self.wasm.adopt(spec, existing, outlet).await
        } else {
            self.docker().await?.adopt(spec, existing, outlet).await
        }
    }
}

impl Engines {
    fn add(&self, observed: &mut Observed, theirs: Observed) {
        observed.instances.extend(theirs.instances.into_iter().map(|existing| self.held(existing)));
        observed.networks.extend(theirs.networks);
        observed.volumes.extend(theirs.volumes);
    }

    /// What an agent tells is true of a guest of this process: that runs what it runs now, not what its container's labels were
    /// made for. An agent that runs without one has lost its supervisor and is about to end: it counts as exited.
    fn held(&self, mut existing: Existing) -> Existing {
        if existing.kind != ExistingKind::Agent || existing.state != RunState::Running {
            return existing;
        }
        match self.wasm.held(&existing.name) {
            Some(spec) => {
                existing.wasm_hash.clone_from(&spec.wasm_hash);
                existing.config_hash = Some(spec.config_hash.clone());
                existing.image_id = spec.labels.get(IMAGE).cloned();
                existing.labels.clone_from(&spec.labels);
            }
            None => existing.state = RunState::Exited,
        }
        existing
    }
}
