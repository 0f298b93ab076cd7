//! The engine's event stream: one for a connection, handed out by container.
//!
//! No event is lost between a start and its watching: a watch is registered before the start, and the stream begins at a time
//! of the engine's own clock that was read before the first watch. When the stream breaks, it is taken up again where it ended,
//! and every watch is told to look for itself ([`What::Resync`]): an engine that was restarted remembers no events.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::Docker as Client;
use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{OnceCell, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::error::failed;
use crate::engine::Result;
use crate::plan::observed::Health;

/// Something that happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Occurrence {
    /// When, by the engine's clock, in nanoseconds since the Unix epoch.
    pub(super) at: i64,
    pub(super) what: What,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Started,
    Died {
        code: i64,
    },
    Health(Health),
    Paused(bool),
    Destroyed,
    /// It joined or left a network.
    Moved,
    /// Events may be missing: look at the container itself.
    Resync,
}

/// The stream and who watches.
#[derive(Debug)]
pub(super) struct Events {
    clock: Arc<Clock>,
    watches: Arc<Watches>,
    _reader: Mutex<JoinSet<()>>,
}

/// What happens to one container, until this is dropped or the container is watched anew.
pub(super) type Watch = mpsc::UnboundedReceiver<Occurrence>;

/// Channels are unbounded on purpose: the engine drops events for a slow reader, and a watch reads all the time.
type Watches = Mutex<HashMap<String, mpsc::UnboundedSender<Occurrence>>>;

impl Events {
    /// Begins to read. The first request goes out with the first watch or with the reader, whichever is first.
    pub(super) fn start(client: Client) -> Arc<Self> {
        let clock = Arc::new(Clock { client: client.clone(), reading: OnceCell::new() });
        let watches = Arc::new(Watches::default());
        let mut reader = JoinSet::new();
        reader.spawn(read(client, Arc::clone(&clock), Arc::clone(&watches)));
        Arc::new(Self { clock, watches, _reader: Mutex::new(reader) })
    }

    /// Watches a container, in place of whoever watched it before.
    pub(super) async fn watch(&self, id: &str) -> Result<Watch> {
        self.clock.reading().await?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut watches = self.watches.lock().expect("no panic while it is held");
        watches.retain(|_, sender| !sender.is_closed());
        watches.insert(id.to_owned(), sender);
        Ok(receiver)
    }

    /// Lets the watch of a container look for itself.
    pub(super) fn nudge(&self, id: &str) {
        route(&self.watches, id, Occurrence { at: i64::MAX, what: What::Resync });
    }

    /// The engine's time now. Only after a watch was made.
    pub(super) fn now(&self) -> Timestamp {
        let ahead = self.clock.reading.get().map_or(SignedDuration::ZERO, |reading| reading.ahead);
        Timestamp::now().checked_add(ahead).unwrap_or_else(|_| Timestamp::now())
    }
}

/// The engine's clock: it need not be ours.
#[derive(Debug)]
struct Clock {
    client: Client,
    reading: OnceCell<Reading>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Timestamp,
    ahead: SignedDuration,
}

impl Clock {
    async fn reading(&self) -> Result<Reading> {
        self.reading
            .get_or_try_init(|| async {
                let asked = Timestamp::now();
                let info = self.client.info().await.map_err(failed("read the clock of", "engine"))?;
                let answered = Timestamp::now();
                let at: Timestamp = info.system_time.and_then(|time| time.parse().ok()).unwrap_or(asked);
                // A time between question and answer says that both clocks are one.
                Ok(Reading { at, ahead: at.duration_since(at.clamp(asked, answered)) })
            })
            .await
            .copied()
    }
}

async fn read(client: Client, clock: Arc<Clock>, watches: Arc<Watches>) {
    const ACTIONS: [&str; 9] =
        ["start", "die", "stop", "health_status", "pause", "unpause", "destroy", "connect", "disconnect"];
    let mut pause = Duration::from_millis(100);
    let mut last: Option<i64> = None;
    loop {
        let Ok(reading) = clock.reading().await else {
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
            continue;
        };
        let since = last.unwrap_or_else(|| nanos(reading.at));
        // Network events carry no labels of the container, so the stream is told apart by container here, not by a label filter.
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned(), "network".to_owned()]),
            ("event".to_owned(), ACTIONS.iter().map(ToString::to_string).collect()),
        ]);
        let options = EventsOptionsBuilder::default()
            .since(&format!("{}.{:09}", since / 1_000_000_000, since % 1_000_000_000))
            .filters(&filters)
            .build();
        let mut stream = Box::pin(client.events(Some(options)));
        while let Some(Ok(message)) = stream.next().await {
            pause = Duration::from_millis(100);
            let at = message.time_nano.unwrap_or_default();
            if last.is_some_and(|last| at <= last) {
                continue;
            }
            last = Some(at);
            if let Some((id, what)) = understand(&message) {
                route(&watches, id, Occurrence { at, what });
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
        if client.ping().await.is_ok() {
            let ids: Vec<String> = watches.lock().expect("no panic while it is held").keys().cloned().collect();
            for id in ids {
                route(&watches, &id, Occurrence { at: i64::MAX, what: What::Resync });
            }
        }
    }
}

fn route(watches: &Watches, id: &str, occurrence: Occurrence) {
    let mut watches = watches.lock().expect("no panic while it is held");
    if let Some(sender) = watches.get(id)
        && sender.send(occurrence).is_err()
    {
        watches.remove(id);
    }
}

/// The container an event is about, and what happened to it.
fn understand(message: &EventMessage) -> Option<(&str, What)> {
    let actor = message.actor.as_ref()?;
    let action = message.action.as_deref()?;
    let attribute = |name: &str| actor.attributes.as_ref()?.get(name).map(String::as_str);
    if message.typ == Some(EventMessageTypeEnum::NETWORK) {
        return Some((attribute("container")?, What::Moved));
    }
    let what = match action {
        "start" => What::Started,
        "die" => What::Died { code: attribute("exitCode").and_then(|code| code.parse().ok()).unwrap_or(-1) },
        // Stopped between two runs, a container does not die a second time.
        "stop" => What::Resync,
        "pause" => What::Paused(true),
        "unpause" => What::Paused(false),
        "destroy" => What::Destroyed,
        _ => match action.strip_prefix("health_status:")?.trim() {
            "healthy" => What::Health(Health::Healthy),
            "unhealthy" => What::Health(Health::Unhealthy),
            _ => return None,
        },
    };
    Some((actor.id.as_deref()?, what))
}

/// Nanoseconds since the Unix epoch.
pub(super) fn nanos(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

/// The inverse of [`nanos`].
pub(super) fn timestamp(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    fn event(typ: EventMessageTypeEnum, action: &str, attributes: &[(&str, &str)]) -> EventMessage {
        EventMessage {
            typ: Some(typ),
            action: Some(action.into()),
            actor: Some(EventActor {
                id: Some("c1".into()),
                attributes: Some(attributes.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()),
            }),
            ..EventMessage::default()
        }
    }

    #[test]
    fn events_are_told_by_container_and_kind() {
        use EventMessageTypeEnum::{CONTAINER, NETWORK};
        let cases = [
            (event(CONTAINER, "start", &[]), Some(("c1", What::Started))),
            (event(CONTAINER, "die", &[("exitCode", "3")]), Some(("c1", What::Died { code: 3 }))),
            (event(CONTAINER, "health_status: healthy", &[]), Some(("c1", What::Health(Health::Healthy)))),
            (event(CONTAINER, "unpause", &[]), Some(("c1", What::Paused(false)))),
            (event(NETWORK, "connect", &[("container", "c9")]), Some(("c9", What::Moved))),
            (event(CONTAINER, "exec_create: ls", &[]), None),
        ];
        for (message, expected) in cases {
            assert_eq!(understand(&message), expected, "{:?}", message.action);
        }
    }
}
