//! A scripted engine for tests of the supervisor: what each run of an instance does is written down beforehand,
//! what was asked of the engine can be read afterwards. Time is tokio's, so tests can pause it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Engine, EngineError, ErrorKind, Exit, Handle, Outlet, OutputLine, Report, Result, Started, Stream};
use crate::model::{InstanceName, ProjectName};
use crate::plan::observed::{Existing, Health, Observed};
use crate::plan::unit::{InstanceSpec, Step};

/// What one run does.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// The start takes so long.
    pub starts_in: Duration,
    /// The start fails with this.
    pub fails: Option<String>,
    /// The start panics.
    pub panics: bool,
    /// Health it begins with.
    pub health: Option<Health>,
    /// Health later, each after so long a time since the one before.
    pub healths: Vec<(Duration, Health)>,
    /// Lines it writes at once.
    pub lines: Vec<String>,
    /// It ends by itself after so long, with this code.
    pub exits: Option<(Duration, i64)>,
    /// It takes so long to end when it is asked to; a longer time than the grace ends in a kill.
    pub stops_in: Duration,
}

/// The engine. Clones are the same engine.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    script: Arc<Mutex<Script>>,
}

#[derive(Debug, Default)]
struct Script {
    /// Runs to come of each instance; the last one repeats.
    runs: BTreeMap<InstanceName, VecDeque<Run>>,
    /// Steps that fail, by how they are written in the journal.
    broken: BTreeMap<String, String>,
    /// Every step takes so long.
    step: Duration,
    journal: Vec<String>,
}

impl Fake {
    /// Writes down what the runs of an instance do; the last one repeats. Without a script an instance runs until it is stopped.
    pub fn script(&self, instance: &InstanceName, runs: impl IntoIterator<Item = Run>) {
        self.lock().runs.insert(instance.clone(), runs.into_iter().collect());
    }

    /// Makes every step take so long.
    pub fn steps_take(&self, time: Duration) {
        self.lock().step = time;
    }

    /// Makes a step fail, named as in the journal (`create web-1`).
    pub fn break_step(&self, step: &str, error: &str) {
        self.lock().broken.insert(step.into(), error.into());
    }

    /// What was asked and what happened so far, in order.
    pub fn journal(&self) -> Vec<String> {
        self.lock().journal.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, entry: impl Into<String>) {
        self.lock().journal.push(entry.into());
    }

    fn next_run(&self, instance: &InstanceName) -> Run {
        let mut script = self.lock();
        let Some(runs) = script.runs.get_mut(instance) else { return Run::default() };
        if runs.len() > 1 { runs.pop_front() } else { runs.front().cloned() }.unwrap_or_default()
    }

    async fn run(&self, spec: &InstanceSpec, run: Run, outlet: Outlet) -> Box<dyn Handle> {
        outlet
            .report(Report::Started(Started {
                id: spec.container.clone(),
                at: Timestamp::now(),
                addresses: BTreeMap::new(),
                ports: Vec::new(),
                health: run.health,
            }))
            .await;
        let (wishes, wished) = watch::channel(Wished::Nothing);
        let (ended, end) = watch::channel(false);
        let mut task = JoinSet::new();
        let (engine, name) = (self.clone(), spec.name.clone());
        task.spawn(async move {
            let code = live(&run, wished, &outlet).await;
            engine.note(format!("exited {name} {code}"));
            outlet.report(Report::Exited(Exit { code, at: Timestamp::now(), reason: None, restarting: false })).await;
            let _ = ended.send(true);
        });
        Box::new(Running { engine: self.clone(), name: spec.name.clone(), wishes, end, _task: task })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wished {
    Nothing,
    /// To end, within this.
    End(Duration),
    Die,
}

/// Lives as the run says; its exit code.
async fn live(run: &Run, mut wished: watch::Receiver<Wished>, outlet: &Outlet) -> i64 {
    for text in &run.lines {
        let line = OutputLine { at: Timestamp::now(), stream: Stream::Stdout, text: text.clone() };
        outlet.line(line).await;
    }
    let healths = async {
        for (after, health) in &run.healths {
            tokio::time::sleep(*after).await;
            outlet.report(Report::Health(*health)).await;
        }
        std::future::pending::<()>().await;
    };
    let exits = async {
        match run.exits {
            Some((after, code)) => {
                tokio::time::sleep(after).await;
                code
            }
            None => std::future::pending().await,
        }
    };
    let asked = async {
        let grace = match wished.wait_for(|wish| *wish != Wished::Nothing).await.map(|wish| *wish) {
            Ok(Wished::End(grace)) => grace,
            Ok(Wished::Nothing | Wished::Die) | Err(_) => return 137,
        };
        let (ends, code) = if run.stops_in > grace { (grace, 137) } else { (run.stops_in, 143) };
        let killed = async {
            let _ = wished.wait_for(|wish| *wish == Wished::Die).await;
        };
        tokio::select! {
            () = tokio::time::sleep(ends) => code,
            () = killed => 137,
        }
    };
    tokio::select! {
        code = exits => code,
        code = asked => code,
        () = healths => 0,
    }
}

#[async_trait]
impl Engine for Fake {
    async fn observe(&self, _project: &ProjectName) -> Result<Observed> {
        Ok(Observed::default())
    }

    async fn apply(&self, step: &Step) -> Result<()> {
        let name = match step {
            Step::CreateNetwork(spec) => format!("network {}", spec.network.name),
            Step::CreateVolume(spec) => format!("volume {}", spec.volume.name),
            Step::Create { spec, .. } => format!("create {}", spec.name),
            Step::Remove { existing, .. } => format!("remove {}", existing.name),
            Step::RemoveNetwork(name) => format!("remove network {name}"),
            Step::RemoveVolume(name) => format!("remove volume {name}"),
        };
        self.note(&name);
        let (wait, broken) = {
            let script = self.lock();
            (script.step, script.broken.get(&name).cloned())
        };
        tokio::time::sleep(wait).await;
        match broken {
            Some(error) => Err(EngineError::new(ErrorKind::Internal, "carry out", name, error)),
            None => Ok(()),
        }
    }

    async fn start(&self, spec: Arc<InstanceSpec>, outlet: Outlet) -> Result<Box<dyn Handle>> {
        let run = self.next_run(&spec.name);
        self.note(format!("start {}", spec.name));
        assert!(!run.panics, "the script of {} says so", spec.name);
        tokio::time::sleep(run.starts_in).await;
        match &run.fails {
            Some(error) => {
                Err(EngineError::new(ErrorKind::Internal, "start container", &spec.container, error.as_str()))
            }
            None => Ok(self.run(&spec, run, outlet).await),
        }
    }

    async fn adopt(&self, spec: Arc<InstanceSpec>, _existing: &Existing, outlet: Outlet) -> Result<Box<dyn Handle>> {
        let run = self.next_run(&spec.name);
        self.note(format!("adopt {}", spec.name));
        Ok(self.run(&spec, run, outlet).await)
    }
}

struct Running {
    engine: Fake,
    name: InstanceName,
    wishes: watch::Sender<Wished>,
    end: watch::Receiver<bool>,
    /// Ends with the handle.
    _task: JoinSet<()>,
}

#[async_trait]
impl Handle for Running {
    async fn stop(&self, grace: Option<Duration>) -> Result<()> {
        self.engine.note(format!("stop {}", self.name));
        self.wishes.send_if_modified(|wish| {
            let first = *wish == Wished::Nothing;
            if first {
                *wish = Wished::End(grace.unwrap_or(Duration::from_secs(10)));
            }
            first
        });
        let _ = self.end.clone().wait_for(|ended| *ended).await;
        Ok(())
    }

    async fn replace(&self, spec: Arc<InstanceSpec>) -> Result<()> {
        let entry = format!("replace {}", spec.name);
        self.engine.note(&entry);
        let (wait, broken) = {
            let script = self.engine.lock();
            (script.step, script.broken.get(&entry).cloned())
        };
        tokio::time::sleep(wait).await;
        match broken {
            Some(error) => Err(EngineError::new(ErrorKind::Internal, "compile the module of", &spec.container, error)),
            None => Ok(()),
        }
    }

    async fn kill(&self, signal: &str) -> Result<()> {
        self.engine.note(format!("kill {} {signal}", self.name));
        if signal == "SIGKILL" {
            self.wishes.send_replace(Wished::Die);
        }
        Ok(())
    }
}
