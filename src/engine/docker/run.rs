//! Running instances: start, watch, stop.
//!
//! One task for each instance turns what happens to its container into reports, in order: started, (exited, restarted)*, removed.
//! It keeps one piece of state, whether the container runs, and drops events that this state or the run's start time make stale.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker as Client;
use bollard::models::{ContainerInspectResponse, ContainerState};
use bollard::query_parameters::{KillContainerOptionsBuilder, StartContainerOptions};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Docker;
use super::connect::Reach;
use super::container::{self, find};
use super::error::{failed, gone_is_done, is_conflict, taken_port, wrap};
use super::events::{Events, Occurrence, Watch, What, nanos, timestamp};
use super::logs::{self, Cursor, Follower, Source};
use super::observe::{self, is_running, port_holder};
use super::presence::{Presences, addresses};
use crate::engine::{EngineError, ErrorKind, Exit, Handle, Outlet, Report, Result, Started};
use crate::model::Protocol;
use crate::net;
use crate::plan::observed::Health;
use crate::plan::unit::{Addresses, AtEnd, InstanceSpec};

/// How long an exit waits for the last lines of output, so that they are told before it.
const LAST_LINES: Duration = Duration::from_secs(2);
/// How long the report of an end may lag behind the end.
const LAG: Duration = Duration::from_secs(5);
/// How often, and how far apart, a container is looked at whose check was killed: together at most a second.
const LAST_LOOKS: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// Starts the container of an instance and watches it.
pub(super) async fn start(docker: &Docker, spec: Arc<InstanceSpec>, outlet: Outlet) -> Result<Box<dyn Handle>> {
    let before = inspect(&docker.client, &spec.container).await?;
    let id = id_of(&before, &spec)?;
    let events = docker.events.watch(&id).await?;
    let source = match outlet.follows() {
        true => Some(source_before_start(&docker.client, &id, &before).await?),
        false => None,
    };
    let started = launch(docker, &spec, &id).await?;
    outlet.report(Report::Started(started.facts.clone())).await;
    Ok(watched(docker, spec, outlet, events, source, started, RunningNow::Yes))
}

/// Watches a container that runs already; its output is told from now on.
pub(super) async fn adopt(
    docker: &Docker,
    spec: Arc<InstanceSpec>,
    id: &str,
    outlet: Outlet,
) -> Result<Box<dyn Handle>> {
    let events = docker.events.watch(id).await?;
    let found = inspect(&docker.client, id).await?;
    let started = Launched { facts: facts(&found, id), restarts: restarts_before(&found) };
    let running = is_running(&found);
    if running {
        docker.presences.enter(&spec, id, &started.facts.addresses);
    }
    let source = match outlet.follows() {
        true if log_driver(&found) == Some("none") => Some(Source::Attached(
            logs::attach(&docker.client, id).await.map_err(failed("attach to", &spec.container))?,
        )),
        true => Some(Source::Log(Cursor::from(docker.events.now()))),
        false => None,
    };
    outlet.report(Report::Started(started.facts.clone())).await;
    let paused = found.state.as_ref().is_some_and(|state| state.paused == Some(true));
    let running = if running {
        if paused {
            outlet.report(Report::Paused(true)).await;
        }
        RunningNow::Yes
    } else {
        outlet.report(Report::Exited(exit(&found, None))).await;
        RunningNow::No
    };
    Ok(watched(docker, spec, outlet, events, source, started, running))
}

/// Starts a container and enters it in the directory. Shared with agents.
pub(super) async fn launch(docker: &Docker, spec: &InstanceSpec, id: &str) -> Result<Launched> {
    let before = docker.events.now();
    if let Err(error) = docker.client.start_container(id, None::<StartContainerOptions>).await {
        return Err(explain_start(docker, spec, wrap("start container", &spec.container, error)).await);
    }
    let found = match inspect(&docker.client, id).await {
        // It ended before it could be looked at, and was not to be kept.
        Err(error) if error.kind == ErrorKind::NotFound && spec.at_end == AtEnd::Removed => {
            let (id, addresses) = (id.to_owned(), Addresses::new());
            let facts = Started { id, at: before, addresses, ports: Vec::new(), health: None };
            return Ok(Launched { facts, restarts: 0 });
        }
        found => found?,
    };
    let launched = Launched { facts: facts(&found, id), restarts: restarts_before(&found) };
    docker.presences.enter(spec, id, &launched.facts.addresses);
    Ok(launched)
}

/// A container that was started.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) facts: Started,
    restarts: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunningNow {
    Yes,
    No,
}

/// Makes the task that watches and the handle that owns it.
fn watched(
    docker: &Docker,
    spec: Arc<InstanceSpec>,
    outlet: Outlet,
    events: Watch,
    source: Option<Source>,
    started: Launched,
    running: RunningNow,
) -> Box<dyn Handle> {
    let id = started.facts.id.clone();
    let (runs, seen_runs) = watch::channel(1_u64);
    let (drained, seen_drained) = watch::channel(0_u64);
    let (ended, seen_ended) = watch::channel(running == RunningNow::No);
    let follower = source.map(|source| {
        let follower = Follower {
            client: docker.client.clone(),
            events: Arc::clone(&docker.events),
            id: id.clone(),
            outlet: outlet.clone(),
            runs: seen_runs,
            drained,
        };
        follower.follow(source)
    });
    let watcher = Watcher {
        client: docker.client.clone(),
        presences: Arc::clone(&docker.presences),
        container: spec.container.clone(),
        id: id.clone(),
        outlet,
        restarts: started.restarts,
        started_at: nanos(started.facts.at),
        told_until: nanos(started.facts.at),
        addresses: started.facts.addresses,
        running: running == RunningNow::Yes,
        restarting: false,
        runs,
        drained: seen_drained,
        ended,
        spec,
    };
    let name = watcher.container.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // The following ends with the watching: whoever watches next follows as well.
        let mut following = JoinSet::new();
        if let Some(follower) = follower {
            following.spawn(follower);
        }
        watcher.watch(events).await;
    });
    Box::new(Container {
        client: docker.patient(),
        events: Arc::clone(&docker.events),
        id,
        name,
        ended: seen_ended,
        _tasks: tasks,
    })
}

/// What the supervisor holds of a running container.
struct Container {
    client: Client,
    events: Arc<Events>,
    id: String,
    name: String,
    ended: watch::Receiver<bool>,
    /// Dropped with the handle, and with it the watching.
    _tasks: JoinSet<()>,
}

#[async_trait]
impl Handle for Container {
    async fn stop(&self, grace: Option<Duration>) -> Result<()> {
        container::stop(&self.client, &self.id, grace).await.map_err(failed("stop container", &self.name))?;
        // Between two runs nothing dies, and an event may be missing: the container itself tells.
        self.events.nudge(&self.id);
        let mut ended = self.ended.clone();
        if timeout(LAG, ended.wait_for(|ended| *ended)).await.is_ok() {
            return Ok(());
        }
        let late = "it was stopped, but the engine does not say that it ended";
        Err(EngineError::new(ErrorKind::Timeout, "stop container", &self.name, late))
    }

    async fn kill(&self, signal: &str) -> Result<()> {
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        match gone_is_done(self.client.kill_container(&self.id, Some(options)).await) {
            // It does not run.
            Err(error) if is_conflict(&error) => Ok(()),
            result => result.map_err(failed("kill container", &self.name)),
        }
    }
}

/// Turns what happens to one container into reports.
struct Watcher {
    client: Client,
    presences: Arc<Presences>,
    spec: Arc<InstanceSpec>,
    container: String,
    id: String,
    outlet: Outlet,
    /// Restarts of the engine's own that were accounted for.
    restarts: i64,
    /// Start of the run that is known, as the container's state has it.
    started_at: i64,
    /// Events up to here were told with that start.
    told_until: i64,
    addresses: Addresses,
    running: bool,
    /// The last exit was told as one that the engine makes good again.
    restarting: bool,
    runs: watch::Sender<u64>,
    drained: watch::Receiver<u64>,
    ended: watch::Sender<bool>,
}

impl Watcher {
    /// Ends when the container is removed, or watched by somebody else.
    async fn watch(mut self, mut events: Watch) {
        while let Some(occurrence) = events.recv().await {
            if self.handle(occurrence).await == Watching::Over {
                return;
            }
        }
    }

    async fn handle(&mut self, occurrence: Occurrence) -> Watching {
        // What happened before the run that is known was told with its start.
        let stale = occurrence.at <= self.told_until;
        match occurrence.what {
            What::Died { code } if self.running && !stale => {
                let found = self.look().await;
                self.end(found.as_ref(), Some((code, occurrence.at))).await;
            }
            What::Started if !self.running => {
                if let Some(found) = self.look().await {
                    // By now it may be a later run; the end of this one is still to come.
                    self.begin(&found, occurrence.at).await;
                }
            }
            What::Health(Health::Unhealthy) if !stale => {
                if self.is_unhealthy().await {
                    self.outlet.report(Report::Health(Health::Unhealthy)).await;
                }
            }
            What::Health(health) if !stale => self.outlet.report(Report::Health(health)).await,
            What::Paused(paused) if !stale => self.outlet.report(Report::Paused(paused)).await,
            What::Moved if self.running && !stale => {
                if let Some(found) = self.look().await {
                    self.locate(&found).await;
                }
            }
            What::Destroyed => return self.vanish().await,
            What::Resync => return self.resync().await,
            What::Died { .. } | What::Started | What::Health(_) | What::Paused(_) | What::Moved => {}
        }
        Watching::On
    }

    async fn look(&self) -> Option<ContainerInspectResponse> {
        find(&self.client, &self.id).await.ok().flatten()
    }

    /// Whether it runs and is unhealthy. A container that ends takes its check with it, and the engine tells that check's
    /// failure first: after a killed check, the end is given time to be seen.
    async fn is_unhealthy(&self) -> bool {
        for _ in 0..LAST_LOOKS {
            match self.look().await {
                Some(found) if !is_running(&found) => return false,
                Some(found) if !observe::last_check_was_killed(&found) => {
                    return observe::health(&found) == Some(Health::Unhealthy);
                }
                Some(_) => sleep(BETWEEN_LOOKS).await,
                None => return false,
            }
        }
        true
    }

    async fn begin(&mut self, found: &ContainerInspectResponse, told_until: i64) {
        let facts = facts(found, &self.id);
        self.running = true;
        self.ended.send_replace(false);
        self.started_at = nanos(facts.at);
        self.told_until = told_until;
        // Started by hand, it counts from zero again.
        self.restarts = self.restarts.min(restarts_before(found));
        self.addresses = facts.addresses.clone();
        self.runs.send_modify(|run| *run += 1);
        self.presences.enter(&self.spec, &self.id, &self.addresses);
        self.outlet.report(Report::Restarted(facts)).await;
    }

    async fn end(&mut self, found: Option<&ContainerInspectResponse>, died: Option<(i64, i64)>) {
        self.running = false;
        self.presences.leave(&self.spec.name, &self.id);
        if self.outlet.follows() {
            let run = *self.runs.borrow();
            let mut drained = self.drained.clone();
            // A reader that is far behind, or a log that cannot be read, must not hold up the report.
            let _ = timeout(LAST_LINES, drained.wait_for(|drained| *drained >= run)).await;
        }
        let mut exit = match found {
            Some(found) => exit(found, died),
            None => {
                let (code, at) = died.unwrap_or_default();
                Exit { code, at: timestamp(at), reason: None, restarting: false }
            }
        };
        // The engine counts a restart when it decides on it: a container that is up, or down, again by now still was restarted.
        let restarts = found.map_or(self.restarts, restarts);
        if restarts > self.restarts {
            self.restarts += 1;
            exit.restarting = true;
        }
        self.tell_exit(exit).await;
    }

    async fn tell_exit(&mut self, exit: Exit) {
        self.restarting = exit.restarting;
        self.outlet.report(Report::Exited(exit)).await;
        self.ended.send_replace(!self.restarting);
    }

    async fn locate(&mut self, found: &ContainerInspectResponse) {
        let now = addresses(found);
        if is_running(found) && now != self.addresses {
            self.addresses = now.clone();
            self.presences.enter(&self.spec, &self.id, &now);
            self.outlet.report(Report::Moved(now)).await;
        }
    }

    async fn vanish(&mut self) -> Watching {
        if self.running {
            self.end(None, Some((137, nanos(jiff::Timestamp::now())))).await;
        }
        self.outlet.report(Report::Removed).await;
        Watching::Over
    }

    /// Catches up after events may have been missed.
    async fn resync(&mut self) -> Watching {
        let found = match find(&self.client, &self.id).await {
            Ok(Some(found)) => found,
            Ok(None) => return self.vanish().await,
            // The engine is away again; the next connection looks again.
            Err(_) => return Watching::On,
        };
        let same_run = nanos(started_at(&found)) == self.started_at;
        match (self.running, is_running(&found)) {
            (true, true) if same_run => {
                self.locate(&found).await;
                if let Some(health) = observe::health(&found) {
                    self.outlet.report(Report::Health(health)).await;
                }
            }
            (true, true) => {
                self.restarts = restarts(&found) - 1;
                self.end(Some(&found), None).await;
                self.begin(&found, nanos(started_at(&found))).await;
            }
            (true, false) => {
                // Whatever restarts were missed, this is the end of the last of them.
                self.restarts = restarts(&found);
                self.end(Some(&found), None).await;
            }
            (false, true) => self.begin(&found, nanos(started_at(&found))).await,
            (false, false) => {
                let exit = exit(&found, None);
                if self.restarting && !exit.restarting {
                    self.tell_exit(exit).await;
                }
            }
        }
        Watching::On
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watching {
    On,
    Over,
}

async fn inspect(client: &Client, name: &str) -> Result<ContainerInspectResponse> {
    match find(client, name).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(EngineError::new(ErrorKind::NotFound, "start container", name, "no such container")),
        Err(error) => Err(wrap("inspect container", name, error)),
    }
}

/// The id, after a check that the name is not somebody else's container.
fn id_of(found: &ContainerInspectResponse, spec: &InstanceSpec) -> Result<String> {
    if container::label(found, container::PROJECT) != Some(spec.project.as_str()) {
        let foreign = format!("a container of that name exists, but it is not of project `{}`", spec.project);
        return Err(EngineError::new(ErrorKind::Conflict, "start container", &spec.container, foreign)
            .hint(format!("`docker rm -f {}` removes it", spec.container)));
    }
    Ok(found.id.clone().unwrap_or_else(|| spec.container.clone()))
}

/// Where reading begins, so that no first line is lost: nothing at all was written yet, or nothing since the last run ended.
async fn source_before_start(client: &Client, id: &str, before: &ContainerInspectResponse) -> Result<Source> {
    if log_driver(before) == Some("none") {
        return logs::attach(client, id).await.map(Source::Attached).map_err(failed("attach to", id));
    }
    let state = before.state.as_ref();
    let finished = state.and_then(|state| state.finished_at.as_deref()).and_then(observe::engine_time);
    Ok(Source::Log(finished.map_or_else(Cursor::from_beginning, Cursor::from)))
}

fn log_driver(found: &ContainerInspectResponse) -> Option<&str> {
    found.host_config.as_ref()?.log_config.as_ref()?.typ.as_deref()
}

/// What is known of a container that was started.
fn facts(found: &ContainerInspectResponse, id: &str) -> Started {
    Started {
        id: id.to_owned(),
        at: started_at(found),
        addresses: addresses(found),
        ports: observe::published_ports(found),
        health: observe::first_health(found),
    }
}

fn started_at(found: &ContainerInspectResponse) -> jiff::Timestamp {
    let text = found.state.as_ref().and_then(|state| state.started_at.as_deref());
    text.and_then(observe::engine_time).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// Restarts that the engine decided on so far: it counts one when a run ends.
fn restarts(found: &ContainerInspectResponse) -> i64 {
    found.restart_count.unwrap_or_default()
}

/// Restarts that led to the last run that began.
fn restarts_before(found: &ContainerInspectResponse) -> i64 {
    let between_runs = found.state.as_ref().is_some_and(|state| state.restarting == Some(true));
    restarts(found) - i64::from(between_runs)
}

/// How the last run ended, by the event where there is one, else by the container's state.
fn exit(found: &ContainerInspectResponse, died: Option<(i64, i64)>) -> Exit {
    let state = found.state.clone().unwrap_or_default();
    let finished = state.finished_at.as_deref().and_then(observe::engine_time);
    let (code, at) = match died {
        Some((code, at)) => (code, timestamp(at)),
        None => (state.exit_code.unwrap_or(-1), finished.unwrap_or_else(jiff::Timestamp::now)),
    };
    Exit { code, at, reason: exit_reason(&state, code), restarting: state.restarting == Some(true) }
}

fn exit_reason(state: &ContainerState, code: i64) -> Option<String> {
    // The flag stands until the next start; only a kill can be its outcome.
    if state.oom_killed == Some(true) && code == 137 {
        return Some("out of memory: it used more than its limit".into());
    }
    state.error.clone().filter(|error| !error.is_empty())
}

/// Adds what a person needs to an error of a start: who holds the port.
async fn explain_start(docker: &Docker, spec: &InstanceSpec, error: EngineError) -> EngineError {
    let Some(port) = taken_port(&error.source.to_string()) else { return error };
    let holder = port_holder(&docker.client, port).await;
    let text = match &holder {
        Some(name) => format!("port {port} of this host is taken by container `{name}`"),
        None => {
            let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            // The engine's message does not say which kind of port it is.
            let kinds = if docker.reach == Reach::Here { [Protocol::Tcp, Protocol::Udp].as_slice() } else { &[] };
            let program = kinds.iter().find_map(|kind| net::holder::of(anywhere, *kind));
            let program = program.unwrap_or_else(|| "a program outside the engine".into());
            format!("port {port} of this host is taken by {program}")
        }
    };
    let advice = match holder {
        Some(name) => format!("stop it (`docker stop {name}`), or publish another port than {port}"),
        None => format!("`ss -ltnp 'sport = :{port}'` shows it; stop it, or publish another port than {port}"),
    };
    EngineError::new(ErrorKind::Conflict, "start container", &spec.container, text).hint(advice)
}
