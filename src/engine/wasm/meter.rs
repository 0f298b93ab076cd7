//! What is counted of a running guest: atomics that whoever does the work adds to, read when somebody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::model::{GuestUsage, Histogram};

/// The counters of one run.
#[derive(Debug)]
pub struct Meter {
    cpu_nanos: AtomicU64,
    instances: AtomicU64,
    requests: AtomicU64,
    latency: [AtomicU64; Histogram::BUCKETS],
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            cpu_nanos: AtomicU64::new(0),
            instances: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            latency: [const { AtomicU64::new(0) }; Histogram::BUCKETS],
        }
    }
}

impl Meter {
    /// Guest code was run for so many nanoseconds of a thread's time.
    pub fn computed(&self, nanos: u64) {
        self.cpu_nanos.fetch_add(nanos, Relaxed);
    }

    /// A request got its response after this time.
    pub fn answered(&self, after: Duration) {
        self.requests.fetch_add(1, Relaxed);
        self.latency[Histogram::bucket(after)].fetch_add(1, Relaxed);
    }

    /// An instance of the module lives until what this gives is dropped.
    pub fn instance(self: &Arc<Self>) -> Living {
        self.instances.fetch_add(1, Relaxed);
        Living(self.clone())
    }

    /// Time it computed.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_nanos.load(Relaxed))
    }

    /// Instances that live now.
    pub fn instances(&self) -> u64 {
        self.instances.load(Relaxed)
    }

    /// What only guests tell; `refusals` were counted by its network.
    pub fn guest(&self, refusals: u64) -> GuestUsage {
        GuestUsage {
            requests: self.requests.load(Relaxed),
            refusals,
            latency: Histogram::new(self.latency.iter().map(|count| count.load(Relaxed)).collect()),
        }
    }
}

/// Stands for one living instance.
#[derive(Debug)]
pub struct Living(Arc<Meter>);

impl Drop for Living {
    fn drop(&mut self) {
        self.0.instances.fetch_sub(1, Relaxed);
    }
}
