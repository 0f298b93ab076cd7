//! Agents of instances: which way leads to them, and how they come to be connected.
//!
//! The way is found by trying: a Unix socket of ours is mounted, and where the engine refuses the mount, or its agent does
//! not come to the socket, the agent is made again to carry what goes over its sockets through the engine. One failure is
//! enough for all agents of this process. No platform is guessed at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Wasm, failed, spec, unreachable_docker};
use crate::engine::docker::{Docker, Door, Mailbox};
use crate::engine::{Engine, EngineError, ErrorKind, Result, Started};
use crate::model::MountSource;
use crate::net::agent::{self, Agent, Rendezvous};
use crate::net::wiring::Place;
use crate::plan::observed::Existing;
use crate::plan::unit::InstanceSpec;

/// How long an agent's container may take from its start to its hello.
const HELLO: Duration = Duration::from_secs(30);

/// How agents are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentWay {
    /// By a mounted socket where that works, else through the engine.
    #[default]
    Probe,
    /// Through the engine.
    Attach,
}

/// What is known of the way so far.
#[derive(Debug)]
pub struct Way(AtomicBool);

impl Way {
    /// Before anything was tried.
    pub fn new(wanted: AgentWay) -> Self {
        Self(AtomicBool::new(wanted == AgentWay::Attach))
    }

    fn is_through_engine(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// A mounted socket does not work.
    fn lead_through_engine(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Where an agent and this process meet.
#[derive(Debug)]
pub enum Meeting {
    /// At a socket of ours, which is mounted.
    Mounted(Rendezvous),
    /// Over streams that the engine carries; the token shows that they are the agent's.
    Streams(String),
}

impl Meeting {
    fn mailbox(&self) -> Mailbox<'_> {
        match self {
            Self::Mounted(rendezvous) => Mailbox { door: Door::Folder(rendezvous.folder()), token: rendezvous.token() },
            Self::Streams(token) => Mailbox { door: Door::Streams, token },
        }
    }
}

impl Wasm {
    /// Makes the container that gives the instance its place on the engine's networks; none when it needs none.
    pub(super) async fn create_agent(
        &self,
        spec: &InstanceSpec,
        replace: Option<&Existing>,
    ) -> Result<Option<Meeting>> {
        if spec.place == Place::InProcess {
            return Ok(None);
        }
        if !self.way.is_through_engine() {
            let rendezvous = Rendezvous::prepare(&self.folders.runtime, &spec::short_id(spec))
                .map_err(|error| failed("prepare the agent of", spec, error))?;
            let folder = rendezvous.folder().to_owned();
            let meeting = Meeting::Mounted(rendezvous);
            match self.docker(spec)?.create_agent(spec, replace, &meeting.mailbox()).await {
                Err(error) if Docker::refuses_mount(&error, &folder) => self.way.lead_through_engine(),
                made => return made.map(|()| Some(meeting)),
            }
        }
        self.create_carrying(spec, replace).await.map(Some)
    }

    /// Makes an agent that carries what goes over its sockets.
    async fn create_carrying(&self, spec: &InstanceSpec, replace: Option<&Existing>) -> Result<Meeting> {
        refuse_volumes(spec)?;
        let token = agent::token().map_err(|error| failed("prepare the agent of", spec, error))?;
        let meeting = Meeting::Streams(token);
        self.docker(spec)?.create_agent(spec, replace, &meeting.mailbox()).await?;
        Ok(meeting)
    }

    /// Removes the agent of an instance that could not be created after all.
    pub(super) async fn discard_agent(&self, spec: &InstanceSpec) {
        let Ok(docker) = self.docker(spec) else { return };
        if let Ok(Some(existing)) = existing_agent(docker, spec).await {
            let _ = docker.remove(&existing, Some(Duration::ZERO), true).await;
        }
    }

    /// Starts the instance's agent and waits for its hello.
    pub(super) async fn start_agent(&self, spec: &InstanceSpec, meeting: &Meeting) -> Result<(Agent, Started)> {
        let docker = self.docker(spec)?;
        let rendezvous = match meeting {
            Meeting::Streams(token) => return self.start_carrying(spec, meeting, token).await,
            Meeting::Mounted(rendezvous) => rendezvous,
        };
        let reached = match self.start_container(spec, meeting).await {
            Err(error) if Docker::refuses_mount(&error, rendezvous.folder()) => None,
            Err(error) => return Err(error),
            Ok(started) => self.reach(spec, rendezvous).await?.map(|agent| (agent, started)),
        };
        if let Some(reached) = reached {
            return Ok(reached);
        }
        self.way.lead_through_engine();
        let useless = existing_agent(docker, spec).await?;
        let meeting = self.create_carrying(spec, useless.as_ref()).await?;
        let meeting = Arc::new(meeting);
        if let Some(instance) = self.lock().get_mut(&spec.name) {
            instance.meeting = Some(meeting.clone());
        }
        match &*meeting {
            Meeting::Streams(token) => self.start_carrying(spec, &meeting, token).await,
            Meeting::Mounted(_) => unreachable!("it was just made to carry"),
        }
    }

    /// Starts the container of an agent. One that another supervisor made is made again.
    async fn start_container(&self, spec: &InstanceSpec, meeting: &Meeting) -> Result<Started> {
        let docker = self.docker(spec)?;
        match docker.start_agent(spec).await {
            Err(error) if error.kind == ErrorKind::NotFound => {
                let stale = existing_agent(docker, spec).await?;
                docker.create_agent(spec, stale.as_ref(), &meeting.mailbox()).await?;
                docker.start_agent(spec).await
            }
            started => started,
        }
    }

    /// Waits for an agent at the mounted socket: none where it cannot come to it.
    async fn reach(&self, spec: &InstanceSpec, rendezvous: &Rendezvous) -> Result<Option<Agent>> {
        let docker = self.docker(spec)?;
        let volumes = spec::volume_targets(spec);
        let error = tokio::select! {
            biased;
            accepted = rendezvous.accept(&volumes, HELLO) => match accepted {
                Ok(agent) => return Ok(Some(agent)),
                Err(error) => error,
            },
            Ok(code) = docker.wait(&spec.container) => match code {
                agent::UNREACHED => return Ok(None),
                code => {
                    let text = format!("its container ended with exit code {code} before it answered");
                    return Err(failed("reach the agent of", spec, text));
                }
            },
        };
        let _ = docker.kill_agent(spec).await;
        if error.kind() == std::io::ErrorKind::TimedOut {
            return Ok(None);
        }
        Err(failed("reach the agent of", spec, error))
    }

    /// Starts an agent that carries, and has streams lent to it.
    async fn start_carrying(&self, spec: &InstanceSpec, meeting: &Meeting, token: &str) -> Result<(Agent, Started)> {
        let docker = self.docker(spec)?;
        let started = self.start_container(spec, meeting).await?;
        let reached = async {
            let (incoming, outgoing) = docker.lend_streams(spec).await?;
            let agent = Agent::carrying(incoming, outgoing, token, HELLO).await;
            agent.map_err(|error| failed("reach the agent of", spec, error))
        };
        match reached.await {
            Ok(agent) => Ok((agent, started)),
            Err(error) => {
                let _ = docker.kill_agent(spec).await;
                Err(error)
            }
        }
    }

    pub(super) fn docker(&self, spec: &InstanceSpec) -> Result<&Arc<Docker>> {
        self.docker.get().ok_or_else(|| unreachable_docker("create the agent of", &spec.container))
    }
}

/// The agent's container of an instance, as the engine has it.
pub(super) async fn existing_agent(docker: &Arc<Docker>, spec: &InstanceSpec) -> Result<Option<Existing>> {
    let observed = docker.observe(&spec.project).await?;
    Ok(observed.instances.into_iter().find(|existing| existing.instance().as_ref() == Some(&spec.name)))
}

/// A directory cannot be passed through the engine.
fn refuse_volumes(spec: &InstanceSpec) -> Result<()> {
    let mut mounts = spec.service.mounts.iter();
    let volume = mounts.find_map(|mount| {
        let MountSource::Volume { key, .. } = &mount.source else { return None };
        Some((key, &mount.target))
    });
    let Some((key, target)) = volume else { return Ok(()) };
    let text = format!(
        "service `{}` cannot have the volume `{key}` at `{target}`: its agent is reached through the engine alone, which \
         passes no directories",
        spec.name.service
    );
    Err(EngineError::new(ErrorKind::Invalid, "create the agent of", &spec.container, text).hint(format!(
        "mount a folder of this machine in its place (`./{key}:{target}`), or run wcompose where the engine runs, without \
         WCOMPOSE_AGENT=attach"
    )))
}
