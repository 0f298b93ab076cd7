//! What views see of a supervisor: a [`Snapshot`], and [`Event`]s that change it. Versioned, serialised as JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{InstanceName, ProjectName, ServiceName};
pub use crate::plan::observed::{Health, PublishedPort};

/// Version of the snapshot's and events' JSON. Adding a field is free; changing one adds one here.
pub const VERSION: u32 = 1;

/// Everything a view shows, at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`VERSION`].
    pub version: u32,
    /// The project.
    pub project: ProjectName,
    /// Its directory.
    pub directory: PathBuf,
    /// Its files.
    pub files: Vec<PathBuf>,
    /// Process id of the supervisor that holds it.
    pub supervisor: u32,
    /// What the supervisor is at.
    pub phase: Phase,
    /// Instances in start order. In JSON a list: an instance's name is no text, and the order matters.
    #[serde(with = "as_list")]
    pub instances: IndexMap<InstanceName, InstanceView>,
}

/// What a supervisor is at, as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Loading, resolving images, starting.
    Starting,
    /// Every wanted instance reached its state, or failed.
    Running,
    /// Nothing is wanted any more.
    Stopping,
    /// Nothing runs.
    Stopped,
}

/// Linux container or Wasm guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A Linux container.
    Linux,
    /// A Wasm guest.
    Wasm,
}

/// One instance as views show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceView {
    /// Which replica.
    pub name: InstanceName,
    /// Container name.
    pub container: String,
    /// What runs it.
    pub kind: Kind,
    /// Image reference or module path.
    pub image: String,
    /// What a guest is made from.
    #[serde(default)]
    pub module: Option<ModuleView>,
    /// Entrypoint and command as one line.
    pub command: String,
    /// Where it is in its life.
    pub state: InstanceState,
    /// Health, where a check is declared.
    pub health: Option<Health>,
    /// Times it was started again after an exit.
    pub restarts: u32,
    /// Ports bound on the host.
    pub ports: Vec<PublishedPort>,
    /// Addresses by the engine's network name.
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
    /// Container id or guest id, once it was started.
    pub id: Option<String>,
    /// First seen or created.
    pub created: Option<Timestamp>,
    /// Last start.
    pub started: Option<Timestamp>,
    /// Last end.
    pub finished: Option<Timestamp>,
}

/// What a guest is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleView {
    /// SHA-256 of its bytes, 64 hex digits.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// `wasi/wasm`, or what its image says.
    pub platform: String,
}

/// Where an instance is in its life: one state, not flags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum InstanceState {
    /// Wanted; its conditions do not hold yet.
    Waiting {
        /// What it waits for, by name: "`db` to become healthy".
        reason: String,
    },
    /// Being created or started.
    Starting,
    /// Runs.
    Running,
    /// Frozen.
    Paused,
    /// Asked to end.
    Stopping,
    /// Ended.
    Exited {
        /// Exit code.
        code: i64,
        /// More than the code: a trap, out of memory.
        reason: Option<String>,
    },
    /// Ended and will be started again.
    Restarting {
        /// Exit code of the last run.
        code: i64,
        /// More than the code.
        reason: Option<String>,
    },
    /// Could not be started, or what it depends on failed.
    Failed {
        /// Why.
        reason: String,
    },
    /// Created or known, not wanted to run.
    Created,
}

/// A change, with its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened, in the past tense.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A plan was taken over: these are the instances now, in start order.
    Planned {
        /// All of them.
        instances: Vec<InstanceView>,
    },
    /// The supervisor as a whole went on.
    PhaseChanged {
        /// To this.
        phase: Phase,
    },
    /// A step or the start of an instance began: progress for people. `id` as compose prints it (`Network x`, `Container y`).
    StepStarted {
        /// What.
        id: String,
        /// `Creating`, `Starting`, `Building`, …
        status: String,
    },
    /// It ended well.
    StepFinished {
        /// What.
        id: String,
        /// `Created`, `Started`, `Built`, …
        status: String,
    },
    /// It failed.
    StepFailed {
        /// What.
        id: String,
        /// Why.
        error: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// An instance's state changed, and with it whatever else is different in the view.
    Changed {
        /// The instance as it is now.
        instance: Box<InstanceView>,
    },
    /// A running instance took a new module; it was there all the while.
    Reloaded {
        /// Which.
        instance: InstanceName,
        /// SHA-256 of the module it runs now.
        digest: String,
    },
    /// An instance is gone.
    Removed {
        /// Which.
        instance: InstanceName,
    },
    /// A guest was refused something.
    Refused {
        /// Whose guest.
        instance: InstanceName,
        /// What it asked for.
        what: String,
        /// Why it was refused.
        why: String,
        /// The line to add to the file, where there is one.
        grant: Option<String>,
    },
    /// Something people should know.
    Warned {
        /// What.
        message: String,
    },
    /// A command was carried out, as far as it could be.
    Settled {
        /// The command's number.
        request: u64,
        /// What did not work, one phrase each; empty when all did.
        failures: Vec<Failure>,
    },
}

/// One thing that did not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The service, where it is about one.
    pub service: Option<ServiceName>,
    /// What.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Snapshot {
    /// Takes a change in. A snapshot with every later event applied equals the snapshot taken after the last of them.
    pub fn apply(&mut self, stamped: &Stamped) {
        match &stamped.event {
            Event::Planned { instances } => self.instances = keyed(instances.iter().cloned()),
            Event::PhaseChanged { phase } => self.phase = *phase,
            Event::Changed { instance } => {
                self.instances.insert(instance.name.clone(), (**instance).clone());
            }
            Event::Removed { instance } => {
                self.instances.shift_remove(instance);
            }
            // Told once, to whoever listens: nothing of it stays.
            Event::StepStarted { .. }
            | Event::StepFinished { .. }
            | Event::StepFailed { .. }
            | Event::Reloaded { .. }
            | Event::Refused { .. }
            | Event::Warned { .. }
            | Event::Settled { .. } => {}
        }
    }
}

fn keyed(instances: impl Iterator<Item = InstanceView>) -> IndexMap<InstanceName, InstanceView> {
    instances.map(|instance| (instance.name.clone(), instance)).collect()
}

/// [`Snapshot::instances`] as a list: JSON's keys are text.
mod as_list {
    use indexmap::IndexMap;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::event::{InstanceView, keyed};
    use crate::model::InstanceName;

    pub(super) fn serialize<S: Serializer>(
        instances: &IndexMap<InstanceName, InstanceView>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(instances.values())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<IndexMap<InstanceName, InstanceView>, D::Error> {
        Ok(keyed(Vec::<InstanceView>::deserialize(deserializer)?.into_iter()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn view(service: &str, state: InstanceState, restarts: u32) -> InstanceView {
        InstanceView {
            name: InstanceName::new(service.into(), 1),
            container: format!("p-{service}-1"),
            kind: Kind::Wasm,
            image: "app.wasm".into(),
            module: None,
            command: "app.wasm".into(),
            state,
            health: None,
            restarts,
            ports: Vec::new(),
            addresses: BTreeMap::new(),
            id: None,
            created: None,
            started: None,
            finished: None,
        }
    }

    fn empty() -> Snapshot {
        Snapshot {
            version: VERSION,
            project: "p".into(),
            directory: "/p".into(),
            files: vec!["/p/compose.yaml".into()],
            supervisor: 1,
            phase: Phase::Starting,
            instances: IndexMap::new(),
        }
    }

    fn states() -> impl Strategy<Value = InstanceState> {
        prop_oneof![
            Just(InstanceState::Waiting { reason: "`db` to become healthy".into() }),
            Just(InstanceState::Running),
            (-1..140i64).prop_map(|code| InstanceState::Exited { code, reason: None }),
            Just(InstanceState::Failed { reason: "no".into() }),
        ]
    }

    fn instances() -> impl Strategy<Value = InstanceView> {
        ("[a-c]", states(), 0..3u32).prop_map(|(service, state, restarts)| view(&service, state, restarts))
    }

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            1 => proptest::collection::vec(instances(), 0..3).prop_map(|instances| Event::Planned { instances }),
            1 => prop_oneof![Just(Phase::Running), Just(Phase::Stopping)].prop_map(|phase| Event::PhaseChanged { phase }),
            6 => instances().prop_map(|instance| Event::Changed { instance: Box::new(instance) }),
            2 => "[a-c]".prop_map(|service| Event::Removed { instance: InstanceName::new(service.as_str().into(), 1) }),
            1 => Just(Event::StepStarted { id: "Container p-a-1".into(), status: "Creating".into() }),
            1 => Just(Event::Warned { message: "careful".into() }),
        ]
    }

    /// The state as a list, kept by rules written down a second time.
    fn oracle(events: &[Event]) -> (Phase, Vec<InstanceView>) {
        let (mut phase, mut list) = (Phase::Starting, Vec::<InstanceView>::new());
        let put =
            |list: &mut Vec<InstanceView>, view: &InstanceView| match list.iter_mut().find(|v| v.name == view.name) {
                Some(old) => *old = view.clone(),
                None => list.push(view.clone()),
            };
        for event in events {
            match event {
                Event::Planned { instances } => {
                    list.clear();
                    instances.iter().for_each(|view| put(&mut list, view));
                }
                Event::PhaseChanged { phase: now } => phase = *now,
                Event::Changed { instance } => put(&mut list, instance),
                Event::Removed { instance } => list.retain(|view| view.name != *instance),
                _ => {}
            }
        }
        (phase, list)
    }

    proptest! {
        #[test]
        fn a_snapshot_sent_at_any_moment_and_the_events_after_it_are_the_state(
            events in proptest::collection::vec(events(), 0..24),
            at in any::<prop::sample::Index>(),
        ) {
            let at = at.index(events.len() + 1);
            let stamped = |event: &Event| Stamped { at: Timestamp::UNIX_EPOCH, event: event.clone() };
            let mut first = empty();
            events[..at].iter().for_each(|event| first.apply(&stamped(event)));

            let text = serde_json::to_string(&first).unwrap();
            let mut view: Snapshot = serde_json::from_str(&text).unwrap();
            for event in &events[at..] {
                let text = serde_json::to_string(&stamped(event)).unwrap();
                view.apply(&serde_json::from_str(&text).unwrap());
            }

            let (phase, list) = oracle(&events);
            prop_assert_eq!(view.phase, phase);
            prop_assert_eq!(view.instances.into_values().collect::<Vec<_>>(), list);
        }
    }

    #[test]
    fn an_event_reads_well_as_json() {
        let stamped = Stamped {
            at: "2026-11-23T03:00:00Z".parse().unwrap(),
            event: Event::StepFinished { id: "Container p-a-1".into(), status: "Created".into() },
        };
        insta::assert_snapshot!(
            serde_json::to_string(&stamped).unwrap(),
            @r#"{"at":"2026-11-23T03:00:00Z","event":"step_finished","id":"Container p-a-1","status":"Created"}"#
        );
    }
}
