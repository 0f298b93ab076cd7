//! What is known of one instance between its `Create` and its `Remove`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::agents::Meeting;
use super::guest::Template;
use super::host::Grants;
use super::reload::Reloader;
use super::spec;
use super::stop::{Effect, SIGKILL, SIGTERM, Switch, effect};
use crate::engine::{EngineError, ErrorKind, Exit, Handle, Result, Started};
use crate::model::{HealthTest, Usage};
use crate::net::agent::Agent;
use crate::net::stack::BoundPort;
use crate::plan::observed::{Existing, ExistingKind, Health, PublishedPort, RunState};
use crate::plan::unit::{Addresses, InstanceSpec};

/// Grace period where the file gives none (compose specification, `stop_grace_period`).
const GRACE: Duration = Duration::from_secs(10);

/// One instance of this process.
pub struct Instance {
    /// As planned.
    pub spec: Arc<InstanceSpec>,
    /// What each start begins with.
    pub template: Template,
    /// Where it meets its agent; absent without one.
    pub meeting: Option<Arc<Meeting>>,
    /// Where it stands.
    pub life: Life,
    id: String,
    ports: Vec<BoundPort>,
    addresses: Addresses,
    created: Timestamp,
    started: Option<Timestamp>,
    exit: Option<Exit>,
    run: Option<Running>,
}

/// Where an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Never started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
}

/// A run from the side of those who steer it.
pub struct Running {
    /// Ends it.
    pub switch: Switch,
    /// Its agent.
    pub agent: Option<Agent>,
    /// What its guests are given.
    pub grants: Arc<Grants>,
    /// How it gets new modules.
    pub reloader: Reloader,
    /// How long it may take to end.
    pub grace: Duration,
    signal: u8,
    ended: watch::Receiver<bool>,
}

/// What a supervisor holds of a run.
pub struct Handed {
    /// Ends it.
    pub switch: Switch,
    /// How long it may take to end.
    pub grace: Duration,
    /// Its stop signal.
    pub signal: u8,
    /// Its agent, where it has one.
    pub agent: Option<Agent>,
    /// How it gets new modules.
    pub reloader: Reloader,
    ended: watch::Receiver<bool>,
}

impl Handed {
    /// Waits for the end of the run and everything after it.
    pub async fn ended(&self) {
        // A run whose task is gone has ended as well.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

impl Running {
    /// A run of an instance, and what tells its end.
    pub fn new(
        spec: &InstanceSpec,
        agent: Option<Agent>,
        grants: Arc<Grants>,
        reloader: Reloader,
    ) -> (Self, watch::Sender<bool>) {
        let (ends, ended) = watch::channel(false);
        let wanted = spec.service.stop_signal.as_ref().or(spec.resolved.config().stop_signal.as_ref());
        let signal = match wanted.map(|signal| effect(signal)) {
            Some(Effect::Ends(number)) => number,
            // A signal that would not end it: the engine's default does.
            Some(Effect::Nothing | Effect::Unknown) | None => SIGTERM,
        };
        let grace = spec.service.stop_grace.unwrap_or(GRACE);
        (Self { switch: Switch::new(), agent, grants, reloader, grace, signal, ended }, ends)
    }

    /// The part a supervisor gets.
    pub fn handed(&self) -> Handed {
        Handed {
            switch: self.switch.clone(),
            grace: self.grace,
            signal: self.signal,
            agent: self.agent.clone(),
            reloader: self.reloader.clone(),
            ended: self.ended.clone(),
        }
    }
}

impl Instance {
    /// An instance that was just made.
    pub fn new(spec: Arc<InstanceSpec>, template: Template, ports: Vec<BoundPort>, meeting: Option<Meeting>) -> Self {
        let created = Timestamp::now();
        let id = format!("{:x}", Sha256::digest(format!("{}/{}/{created}", spec.project, spec.name)));
        Self {
            spec,
            template,
            meeting: meeting.map(Arc::new),
            life: Life::Created,
            id,
            ports,
            addresses: Addresses::new(),
            created,
            started: None,
            exit: None,
            run: None,
        }
    }

    /// The run, while there is one.
    pub fn running(&self) -> Option<&Running> {
        self.run.as_ref()
    }

    /// What steers the run, while there is one.
    pub fn handed(&self) -> Option<Handed> {
        self.run.as_ref().map(Running::handed)
    }

    /// A run begins.
    pub fn begin(&mut self, running: Running, at_engine: Option<&Started>) {
        if let Some(at_engine) = at_engine {
            self.id.clone_from(&at_engine.id);
        }
        self.life = Life::Running;
        let networks = running.grants.stack.networks().iter();
        self.addresses = networks.map(|network| (network.name.clone(), network.addresses.clone())).collect();
        self.started = Some(Timestamp::now());
        self.exit = None;
        self.run = Some(running);
    }

    /// It runs another module from now on; whatever it serves, it serves all the while.
    pub fn renew(&mut self, spec: Arc<InstanceSpec>, template: Template) {
        self.spec = spec;
        self.template = template;
    }

    /// Its program began anew in the same run.
    pub fn restarted(&mut self) {
        self.started = Some(Timestamp::now());
    }

    /// The run ended.
    pub fn finish(&mut self, exit: &Exit) {
        self.life = Life::Exited;
        self.exit = Some(exit.clone());
        self.run = None;
    }

    /// The report of its start.
    pub fn started(&self) -> Started {
        Started {
            id: self.id.clone(),
            at: self.started.unwrap_or(self.created),
            addresses: self.addresses.clone(),
            ports: self.published(),
            health: self.is_checked().then_some(Health::Starting),
        }
    }

    /// What the run uses now, while there is one.
    pub fn usage(&self) -> Option<Usage> {
        let grants = &self.run.as_ref()?.grants;
        let (meter, traffic) = (&grants.meter, grants.stack.traffic());
        Some(Usage {
            instance: self.spec.name.clone(),
            container: self.spec.container.clone(),
            id: self.id.clone(),
            at: Timestamp::now(),
            cpu: meter.cpu(),
            memory: grants.memory.used(),
            memory_limit: Some(grants.memory.limits().memory as u64),
            received: traffic.received(),
            sent: traffic.sent(),
            read: 0,
            written: 0,
            tasks: meter.instances(),
            guest: Some(meter.guest(traffic.refused())),
        })
    }

    /// The instance as `ps` and the planner see it.
    pub fn observed(&self) -> Existing {
        let spec = &self.spec;
        let seconds = |at: Option<Timestamp>| at.map_or(0, |at| at.as_second());
        let label = |name: &str| spec.labels.get(name);
        let one_off = label("com.docker.compose.oneoff").is_some_and(|flag| flag == "True");
        Existing {
            id: self.id.clone(),
            name: spec.container.clone(),
            kind: ExistingKind::Guest,
            service: label("com.docker.compose.service")
                .map_or(Some(spec.name.service.clone()), |key| Some(key.as_str().into())),
            number: (!one_off).then_some(spec.name.number),
            one_off,
            state: match self.life {
                Life::Created => RunState::Created,
                Life::Running => RunState::Running,
                Life::Exited => RunState::Exited,
            },
            health: None,
            exit_code: self.exit.as_ref().map_or(0, |exit| exit.code),
            config_hash: Some(spec.config_hash.clone()),
            wasm_hash: spec.wasm_hash.clone(),
            image_id: spec.labels.get("com.docker.compose.image").cloned(),
            image: match &spec.resolved {
                crate::model::Resolved::Wasm(module) => module.reference.clone(),
                crate::model::Resolved::Linux { image, .. } => image.clone(),
            },
            command: match &spec.resolved {
                crate::model::Resolved::Wasm(module) => spec::arguments(spec, module).join(" "),
                crate::model::Resolved::Linux { .. } => String::new(),
            },
            networks: spec
                .networks
                .iter()
                .map(|join| (join.name.clone(), self.addresses.get(&join.name).cloned().unwrap_or_default()))
                .collect(),
            volumes: spec.volumes.values().cloned().collect(),
            anonymous_volumes: Default::default(),
            ports: self.published(),
            created: self.created.as_second(),
            started: seconds(self.started),
            finished: seconds(self.exit.as_ref().map(|exit| exit.at)),
            restarts: 0,
            labels: spec.labels.clone(),
        }
    }

    fn published(&self) -> Vec<PublishedPort> {
        self.ports
            .iter()
            .map(|port| PublishedPort {
                address: port.host.ip().to_string(),
                published: port.host.port(),
                target: port.target,
                protocol: port.protocol,
            })
            .collect()
    }

    fn is_checked(&self) -> bool {
        let declared = self.spec.service.healthcheck.as_ref().or(self.spec.resolved.config().healthcheck.as_ref());
        let tested = declared.and_then(|check| check.test.as_ref()).is_some_and(|test| *test != HealthTest::Disabled);
        tested || self.spec.service.wasm.as_ref().is_some_and(|options| options.health_http.is_some())
    }
}

#[async_trait]
impl Handle for Handed {
    async fn stop(&self, grace: Option<Duration>) -> Result<()> {
        match self.signal {
            SIGKILL => self.switch.kill(SIGKILL, None),
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
        match effect(signal) {
            Effect::Ends(SIGKILL) => self.switch.kill(SIGKILL, None),
            Effect::Ends(number) => self.switch.stop(self.grace, number),
            Effect::Nothing => {}
            Effect::Unknown => {
                return Err(EngineError::new(ErrorKind::Invalid, "signal", signal, "there is no such signal"));
            }
        }
        Ok(())
    }
}
