//! The Docker engine: networks, volumes, containers and images through the Docker API. The only folder that names bollard.
//!
//! `request` says what is sent and is pure; `container`, `network`, `image`, `build` and `agent` send it; `observe` reads what
//! exists; `run` starts and watches, fed by one stream of `events` and by each container's `logs`.
//! Nothing here decides order, retries or restarts.

mod agent;
mod archive;
mod attached;
mod build;
mod buildkit;
mod connect;
mod container;
mod context;
mod error;
mod events;
mod image;
mod logs;
mod network;
mod observe;
mod presence;
mod request;
mod run;
mod stats;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker as Client;
use tokio::sync::OnceCell;

pub use self::archive::Found;
pub use self::attached::{Attached, Program};
use self::connect::Reach;
use self::events::Events;
pub use self::logs::Wanted;
use self::presence::Presences;
use self::request::Api;
pub use self::request::{Door, Mailbox};
pub use self::stats::Processes;
use super::{Engine, EngineError, Handle, Outlet, Result, Started};
use crate::model::{Build, ImageConfig, ProjectName};
use crate::net::agent::{Incoming, Outgoing};
use crate::net::directory::Directory;
use crate::plan::observed::{Existing, Observed};
use crate::plan::unit::{InstanceSpec, Step};

/// Longer than any grace period, build or pull: such requests end when the engine says so.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// A connection to one engine, for one project.
#[derive(Debug)]
pub struct Docker {
    client: Client,
    address: String,
    api: Api,
    reach: Reach,
    events: Arc<Events>,
    presences: Arc<Presences>,
    /// Mailboxes of the agents made over this connection, by container name.
    mailboxes: Mutex<BTreeMap<String, agent::Made>>,
    agent_image: OnceCell<String>,
}

/// An image the engine has.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// `sha256:…`.
    pub id: String,
    /// Its own settings.
    pub config: ImageConfig,
}

/// What a list of images says of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// `sha256:…`.
    pub id: String,
    /// `os/architecture`.
    pub platform: String,
    /// Bytes.
    pub size: u64,
    /// When it got its name here, RFC 3339.
    pub tagged: Option<String>,
}

impl Docker {
    /// Connects to the engine that `DOCKER_HOST`, then the default socket names, and negotiates the API version.
    /// Containers it starts are entered in `directory` before they are reported started.
    pub async fn connect(host: Option<&str>, directory: Arc<Directory>) -> Result<Arc<Self>> {
        let (client, reach, address) = connect::connect(host).await?;
        let version = client.client_version();
        Ok(Arc::new(Self {
            api: Api(version.major_version, version.minor_version),
            events: Events::start(client.clone()),
            presences: Presences::new(directory),
            client,
            address,
            reach,
            mailboxes: Mutex::default(),
            agent_image: OnceCell::new(),
        }))
    }

    /// The image of that reference, if the engine has it.
    pub async fn image(&self, reference: &str) -> Result<Option<Image>> {
        image::inspect(&self.client, reference).await
    }

    /// Pulls an image; `progress` gets short lines for people.
    pub async fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<()> {
        image::pull(&self.patient(), reference, platform, progress).await
    }

    /// Pushes an image; `progress` gets short lines for people.
    pub async fn push(&self, reference: &str, progress: &(dyn Fn(String) + Send + Sync)) -> Result<()> {
        image::push(&self.patient(), reference, progress).await
    }

    /// What a list of images says of an image, if the engine has it.
    pub async fn image_facts(&self, reference: &str) -> Result<Option<ImageFacts>> {
        image::facts(&self.client, reference).await
    }

    /// Builds an image and tags it; the builder's output goes to `progress`, a line at a time.
    /// The platform of a Wasm service is never asked for.
    pub async fn build(&self, build: &Build, tag: &str, progress: &(dyn Fn(String) + Send + Sync)) -> Result<Image> {
        let builder = build::Builder {
            client: &self.patient(),
            address: &self.address,
            version: format!("{}.{}", self.api.0, self.api.1),
        };
        build::build(&builder, build, tag, progress).await
    }

    /// Removes an image that has no name any more and that nobody uses; else it stays.
    pub async fn prune_image(&self, id: &str) -> Result<()> {
        image::prune(&self.client, id).await
    }

    /// Writes the engine's export (`docker save`) of an image to a file.
    pub async fn export(&self, reference: &str, to: &Path) -> Result<()> {
        image::export(&self.patient(), reference, to).await
    }

    /// What exists now of a project, and beside it the networks and volumes of these names, whoever made them.
    pub async fn observe_with(
        &self,
        project: &ProjectName,
        networks: &[String],
        volumes: &[String],
    ) -> Result<Observed> {
        observe::observe(&self.client, project, networks, volumes).await
    }

    /// Creates the agent container of a Wasm instance: its name, labels, networks, aliases and named volumes are the instance's;
    /// the mailbox is where it and its supervisor find each other. With `replace`, in place of that one.
    /// A stale agent that has the name is replaced as well.
    pub async fn create_agent(
        &self,
        spec: &InstanceSpec,
        replace: Option<&Existing>,
        mailbox: &Mailbox<'_>,
    ) -> Result<()> {
        agent::create(self, spec, replace, mailbox).await
    }

    /// Starts the agent container of an instance and enters it in the directory. An agent made with another mailbox,
    /// or already gone, is a `NotFound`: create it again.
    pub async fn start_agent(&self, spec: &InstanceSpec) -> Result<Started> {
        agent::start(self, spec).await
    }

    /// The streams of an agent that was made for [`Door::Streams`] and runs.
    pub async fn lend_streams(&self, spec: &InstanceSpec) -> Result<(Incoming, Outgoing)> {
        agent::lend(self, &spec.container).await
    }

    /// Whether an agent could not be made, or not started, because this engine cannot mount the folder.
    pub fn refuses_mount(error: &EngineError, folder: &Path) -> bool {
        error::names(error, folder)
    }

    /// Kills an agent that does not answer.
    pub async fn kill_agent(&self, spec: &InstanceSpec) -> Result<()> {
        agent::kill(self, spec).await
    }

    /// Stops (gently) and removes a container, agent or not; one that is gone is no error.
    pub async fn remove(&self, existing: &Existing, grace: Option<Duration>, volumes: bool) -> Result<()> {
        container::remove(&self.patient(), existing, grace, volumes).await
    }

    /// Writes files of this machine into a container, each to its absolute target.
    pub async fn write_files(&self, container: &str, files: Vec<(PathBuf, String)>) -> Result<()> {
        sync::write(&self.patient(), container, files).await
    }

    /// The output that the engine kept of a container, in order; with `follow` also what comes.
    pub fn output(&self, id: &str, wanted: Wanted) -> tokio::sync::mpsc::Receiver<super::OutputLine> {
        logs::kept(self.patient(), id.to_owned(), wanted)
    }

    /// The same connection for requests that may take long.
    fn patient(&self) -> Client {
        self.client.clone().with_timeout(PATIENCE)
    }
}

#[async_trait]
impl Engine for Docker {
    async fn observe(&self, project: &ProjectName) -> Result<Observed> {
        self.observe_with(project, &[], &[]).await
    }

    async fn apply(&self, step: &Step) -> Result<()> {
        match step {
            Step::CreateNetwork(spec) => network::create(&self.client, self.api, spec).await,
            Step::CreateVolume(spec) => network::create_volume(&self.client, spec).await,
            Step::Create { spec, replace } => container::create(self, spec, replace.as_deref()).await,
            Step::Remove { existing, grace, volumes } => self.remove(existing, *grace, *volumes).await,
            Step::RemoveNetwork(name) => network::remove(&self.client, name).await,
            Step::RemoveVolume(name) => network::remove_volume(&self.client, name).await,
        }
    }

    async fn start(&self, spec: Arc<InstanceSpec>, outlet: Outlet) -> Result<Box<dyn Handle>> {
        run::start(self, spec, outlet).await
    }

    async fn adopt(&self, spec: Arc<InstanceSpec>, existing: &Existing, outlet: Outlet) -> Result<Box<dyn Handle>> {
        run::adopt(self, spec, &existing.id, outlet).await
    }
}
