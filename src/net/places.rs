//! How many sockets a guest may have open at once, counted where all of them pass: whatever interface a guest uses, its
//! connections and listeners come out of its stack.
//!
//! A guest that opens one too many gets the error Linux gives at the limit of a process's descriptors. Connections that
//! others open to it wait in the listener's backlog instead, until it closes one: no peer is turned away by a full house.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::PollSemaphore;

use super::policy::Refused;
use super::traffic::Traffic;

/// The sockets of one guest.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    limit: usize,
    refusals: mpsc::Sender<Refused>,
    told: AtomicBool,
    traffic: Arc<Traffic>,
}

/// One open socket; closed when it is dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
    traffic: Arc<Traffic>,
}

impl Place {
    /// What goes over the guest's sockets is counted here.
    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }
}

impl Places {
    /// So many; that the limit was reached is told once.
    pub(super) fn new(limit: usize, refusals: mpsc::Sender<Refused>) -> Arc<Self> {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self {
            free: Arc::new(Semaphore::new(limit)),
            limit,
            refusals,
            told: AtomicBool::new(false),
            traffic: Arc::default(),
        })
    }

    /// A place for a socket that the guest opens now.
    pub(super) fn take(&self) -> io::Result<Place> {
        match self.free.clone().try_acquire_owned() {
            Ok(permit) => Ok(Place { _permit: permit, traffic: self.traffic.clone() }),
            Err(_) => {
                self.tell("open another socket");
                Err(rustix::io::Errno::MFILE.into())
            }
        }
    }

    /// What goes over the guest's sockets.
    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Places for what a listener accepts.
    pub(super) fn queue(self: &Arc<Self>) -> Queue {
        Queue { places: self.clone(), next: PollSemaphore::new(self.free.clone()), ready: None }
    }

    fn tell(&self, what: &str) {
        if !self.told.swap(true, Ordering::Relaxed) {
            let refused = Refused {
                what: what.to_owned(),
                why: format!("it has {} open, which is its limit", self.limit),
                grant: Some(format!("ulimits: {{ nofile: {} }}", self.limit.saturating_mul(2))),
            };
            // Told as far as there is a reader.
            let _ = self.refusals.try_send(refused);
        }
    }
}

/// Waits for a place before a connection is accepted.
#[derive(Debug)]
pub(super) struct Queue {
    places: Arc<Places>,
    next: PollSemaphore,
    ready: Option<Place>,
}

impl Queue {
    /// Until there is a place for one more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ready.is_none() {
            if self.places.free.available_permits() == 0 {
                self.places.tell("accept more connections");
            }
            let permit = ready!(self.next.poll_acquire(cx));
            let permit = permit.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted))?;
            self.ready = Some(Place { _permit: permit, traffic: self.places.traffic.clone() });
        }
        Poll::Ready(Ok(()))
    }

    /// The place that [`Queue::poll`] found.
    pub(super) fn take(&mut self) -> Option<Place> {
        self.ready.take()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn one_too_many_is_refused_and_told_once() {
        let (refusals, mut told) = mpsc::channel(8);
        let places = Places::new(2, refusals);
        let held = (places.take().expect("a place"), places.take().expect("a place"));
        for _ in 0..3 {
            let error = places.take().expect_err("the third is too many");
            assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()));
        }
        assert_eq!(told.try_recv().expect("it is told").why, "it has 2 open, which is its limit");
        assert!(told.try_recv().is_err(), "once");
        drop(held.0);
        places.take().expect("the place that was given back");
    }

    #[test]
    fn a_listener_waits_for_a_place() {
        let places = Places::new(1, mpsc::channel(1).0);
        let held = places.take().expect("a place");
        let mut queue = places.queue();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(queue.poll(&mut cx).is_pending());
        drop(held);
        assert!(matches!(queue.poll(&mut cx), Poll::Ready(Ok(()))));
        assert!(queue.take().is_some() && queue.take().is_none());
    }
}
