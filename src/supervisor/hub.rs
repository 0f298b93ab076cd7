//! Events to sessions. A session that does not keep up loses events and then gets a fresh snapshot; nobody waits for it.

use tokio::sync::mpsc;

use crate::event::{Snapshot, Stamped};
use crate::session::Update;

/// Updates a session may be behind.
const QUEUE: usize = 1024;

/// The sessions of a supervisor.
#[derive(Debug, Default)]
pub(super) struct Hub {
    subscribers: Vec<Subscriber>,
}

#[derive(Debug)]
struct Subscriber {
    updates: mpsc::Sender<Update>,
    /// It lost events: nothing more for it but a snapshot.
    lags: bool,
}

impl Hub {
    /// Updates from now on; the caller has the snapshot of now.
    pub(super) fn subscribe(&mut self) -> mpsc::Receiver<Update> {
        let (updates, receiver) = mpsc::channel(QUEUE);
        self.subscribers.push(Subscriber { updates, lags: false });
        receiver
    }

    /// Tells everybody.
    pub(super) fn publish(&mut self, event: &Stamped) {
        self.subscribers.retain_mut(|subscriber| {
            if subscriber.lags {
                return !subscriber.updates.is_closed();
            }
            match subscriber.updates.try_send(Update::Event(event.clone())) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    subscriber.lags = true;
                    true
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            }
        });
    }

    /// Waits until somebody who lost events reads again, if there is anybody.
    pub(super) async fn wants_resync(&self) {
        let lagging = self.subscribers.iter().filter(|one| one.lags).map(|one| Box::pin(one.updates.reserve()));
        any(lagging.collect()).await;
    }

    /// A fresh snapshot to everybody who lost events and reads again.
    pub(super) fn resync(&mut self, snapshot: &Snapshot) {
        self.subscribers.retain_mut(|subscriber| {
            if subscriber.lags {
                let sent = subscriber.updates.try_send(Update::Resync(Box::new(snapshot.clone())));
                subscriber.lags = sent.is_err();
            }
            !subscriber.updates.is_closed()
        });
    }
}

/// The first of these; never, of none.
pub(super) async fn any<F: Future + Unpin>(futures: Vec<F>) {
    if futures.is_empty() {
        std::future::pending::<()>().await;
    }
    futures_util::future::select_all(futures).await;
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;

    use super::*;
    use crate::event::{Event, Phase, VERSION};
    use crate::model::ProjectName;

    fn stamped(number: usize) -> Stamped {
        Stamped { at: jiff::Timestamp::UNIX_EPOCH, event: Event::Warned { message: number.to_string() } }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            version: VERSION,
            project: ProjectName::new("p"),
            directory: "/p".into(),
            files: Vec::new(),
            supervisor: 1,
            phase: Phase::Running,
            instances: IndexMap::new(),
        }
    }

    #[tokio::test]
    async fn a_slow_reader_gets_what_it_kept_up_with_then_a_snapshot_then_events_again() {
        let mut hub = Hub::default();
        let mut updates = hub.subscribe();
        for number in 0..QUEUE + 7 {
            hub.publish(&stamped(number));
        }
        for number in 0..QUEUE {
            assert_eq!(updates.recv().await, Some(Update::Event(stamped(number))));
        }
        hub.wants_resync().await;
        hub.resync(&snapshot());
        hub.publish(&stamped(1));
        assert_eq!(updates.recv().await, Some(Update::Resync(Box::new(snapshot()))));
        assert_eq!(updates.recv().await, Some(Update::Event(stamped(1))));
    }

    #[tokio::test]
    async fn a_reader_that_left_is_forgotten() {
        let mut hub = Hub::default();
        drop(hub.subscribe());
        hub.publish(&stamped(0));
        assert!(hub.subscribers.is_empty());
    }
}
