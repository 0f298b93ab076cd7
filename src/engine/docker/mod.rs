//! The Docker engine: networks, volumes, containers and images through the Docker API. The only folder that names bollard.

use std::path::Path;
use std::sync::Arc;

use super::{Result, Started};
use crate::model::{Build, ImageConfig};
use crate::net::directory::Directory;
use crate::plan::observed::Existing;
use crate::plan::unit::InstanceSpec;

/// A connection to one engine, for one project.
#[derive(Debug)]
pub struct Docker {}

/// An image the engine has.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// `sha256:…`.
    pub id: String,
    /// Its own settings.
    pub config: ImageConfig,
}

impl Docker {
    /// Connects to the engine that `DOCKER_HOST`, then the default socket names, and negotiates the API version.
    /// Containers it starts are entered in `directory` before they are reported started.
    pub async fn connect(host: Option<&str>, directory: Arc<Directory>) -> Result<Arc<Self>> {
        let _ = (host, directory);
        todo!()
    }

    /// The image of that reference, if the engine has it.
    pub async fn image(&self, reference: &str) -> Result<Option<Image>> {
        let _ = reference;
        todo!()
    }

    /// Pulls an image; `progress` gets short lines for people.
    pub async fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<()> {
        let _ = (reference, platform, progress);
        todo!()
    }

    /// Builds an image with the engine's classic builder and tags it; the builder's output goes to `progress`, a line at a time.
    /// The platform of a Wasm service is never asked for.
    pub async fn build(&self, build: &Build, tag: &str, progress: &(dyn Fn(String) + Send + Sync)) -> Result<Image> {
        let _ = (build, tag, progress);
        todo!()
    }

    /// Writes the engine's export (`docker save`) of an image to a file.
    pub async fn export(&self, reference: &str, to: &Path) -> Result<()> {
        let _ = (reference, to);
        todo!()
    }

    /// Creates the agent container of a Wasm instance: its name, labels, networks, aliases and named volumes are the instance's;
    /// `folder` is mounted read-only at `net::agent::MOUNT`, `token` is in its environment. With `replace`, in place of that one.
    pub async fn create_agent(
        &self,
        spec: &InstanceSpec,
        replace: Option<&Existing>,
        folder: &Path,
        token: &str,
    ) -> Result<()> {
        let _ = (spec, replace, folder, token);
        todo!()
    }

    /// Starts the agent container of an instance and enters it in the directory. An agent made with another folder or token,
    /// or already gone, is a `NotFound`: create it again.
    pub async fn start_agent(&self, spec: &InstanceSpec) -> Result<Started> {
        let _ = spec;
        todo!()
    }

    /// Kills an agent that does not answer.
    pub async fn kill_agent(&self, spec: &InstanceSpec) -> Result<()> {
        let _ = spec;
        todo!()
    }

    /// Stops (gently) and removes a container, agent or not; one that is gone is no error.
    pub async fn remove(&self, existing: &Existing, grace: Option<std::time::Duration>, volumes: bool) -> Result<()> {
        let _ = (existing, grace, volumes);
        todo!()
    }
}
