//! Who may compute now: the share of CPU time a service has (`cpus`), and turns among guests that compute without pause.
//!
//! Guests run on a few threads of their own and yield at each tick. That alone lets a service with hundreds of busy requests hold
//! up everybody: who wants a moment waits behind all of them. So a guest that used up its tick waits for a turn before it goes on,
//! first among those of its own service, then among those of all services, both in order of arrival; there are fewer turns than
//! threads, and the threads that are left are for guests that only want a moment.
//!
//! A share is kept over periods as the kernel keeps a container's: who used up its part of one waits for the next.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::ready;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use wasmtime::{Store, UpdateDeadline};

use super::compile::TICK;
use super::cpu::thread_time;
use super::limits::Budget;

/// Over which a share is kept, as the kernel's default for containers.
const PERIOD: Duration = Duration::from_millis(100);
/// Periods in a row that were used up before it is told.
const TELL: u32 = 20;

/// The turns of one service instance. Everything that runs for it shares them.
#[derive(Debug)]
pub struct Turns {
    quota: Option<Mutex<Quota>>,
    own: Arc<Semaphore>,
    common: Arc<Semaphore>,
    budget: Arc<Budget>,
}

/// What is left of the current period.
#[derive(Debug)]
struct Quota {
    /// Nanoseconds of a period.
    share: i64,
    left: i64,
    begun: Instant,
    /// Periods in a row that were used up.
    exhausted: u32,
}

/// A turn of a guest that computes without pause.
type Turn = (OwnedSemaphorePermit, OwnedSemaphorePermit);
/// What a guest waits for before it goes on.
type Wait = Pin<Box<dyn Future<Output = Option<Turn>> + Send>>;

impl Turns {
    /// `common` are the turns of all services together.
    pub fn new(budget: Arc<Budget>, common: Arc<Semaphore>) -> Arc<Self> {
        let quota = budget.limits().cpus.map(|cpus| Mutex::new(Quota::new(cpus, Instant::now())));
        let own = Arc::new(Semaphore::new(common.available_permits().max(1)));
        Arc::new(Self { quota, own, common, budget })
    }

    /// Runs guest code to its end, each time it goes on when it may.
    pub async fn run<F: Future>(self: Arc<Self>, guest: F) -> F::Output {
        let mut guest = pin!(guest);
        let mut wait: Option<Wait> = None;
        let mut busy = false;
        poll_fn(|cx| {
            if wait.is_none() {
                wait = self.wait(busy);
            }
            let turn = match &mut wait {
                Some(waiting) => ready!(waiting.as_mut().poll(cx)),
                None => None,
            };
            wait = None;
            let (start, before) = (Instant::now(), self.quota.as_ref().map(|_| thread_time()));
            let outcome = guest.as_mut().poll(cx);
            drop(turn);
            busy = start.elapsed() >= TICK / 2;
            if let Some(before) = before {
                self.charge(thread_time().saturating_sub(before));
            }
            outcome
        })
        .await
    }

    /// The same for guest code that somebody else polls: its time is taken at ticks, and it waits for its share there.
    pub fn pace<T: 'static>(self: &Arc<Self>, store: &mut Store<T>) {
        if self.quota.is_none() {
            return;
        }
        let turns = self.clone();
        let mut last: Option<Instant> = None;
        store.epoch_deadline_callback(move |_| {
            let now = Instant::now();
            // One that comes late had waited, not computed.
            let since = last.map(|last| now - last).filter(|since| *since <= 2 * TICK);
            turns.charge(since.map_or(0, |since| since.as_nanos() as u64));
            last = Some(now);
            Ok(match turns.closed_until(now) {
                Some(until) => {
                    last = None;
                    UpdateDeadline::YieldCustom(1, Box::pin(sleep_until(until)))
                }
                None => UpdateDeadline::Yield(1),
            })
        });
    }

    fn wait(&self, busy: bool) -> Option<Wait> {
        let until = self.closed_until(Instant::now());
        if until.is_none() && !busy {
            return None;
        }
        let (own, common) = (self.own.clone(), self.common.clone());
        Some(Box::pin(async move {
            if let Some(until) = until {
                sleep_until(until).await;
            }
            if !busy {
                return None;
            }
            // Neither is ever closed.
            let own = own.acquire_owned().await.ok()?;
            Some((own, common.acquire_owned().await.ok()?))
        }))
    }

    fn closed_until(&self, now: Instant) -> Option<Instant> {
        let mut quota = lock(self.quota.as_ref()?);
        let until = quota.closed_until(now);
        if quota.exhausted == TELL {
            self.budget.throttled();
        }
        until
    }

    fn charge(&self, nanos: u64) {
        if let Some(quota) = &self.quota {
            lock(quota).left -= i64::try_from(nanos).unwrap_or(i64::MAX / 2);
        }
    }
}

impl Quota {
    fn new(cpus: f64, now: Instant) -> Self {
        let share = (cpus * PERIOD.as_nanos() as f64).clamp(1.0, 1e15) as i64;
        Self { share, left: share, begun: now, exhausted: 0 }
    }

    /// When it may go on; absent when it may now. What was taken too much is owed to the next periods.
    fn closed_until(&mut self, now: Instant) -> Option<Instant> {
        let passed = (now - self.begun).as_nanos() / PERIOD.as_nanos();
        if let Ok(passed @ 1..) = u32::try_from(passed) {
            self.exhausted = if self.left <= 0 { self.exhausted.saturating_add(1) } else { 0 };
            self.left = self.share.saturating_mul(i64::from(passed)).saturating_add(self.left).min(self.share);
            self.begun += PERIOD * passed;
        }
        if self.left > 0 {
            return None;
        }
        let owed = u32::try_from(-self.left / self.share).unwrap_or(u32::MAX).saturating_add(1);
        // Bounded: a clock that jumped must not stop a guest for good.
        Some(self.begun + PERIOD * owed.min(1000))
    }
}

fn lock(quota: &Mutex<Quota>) -> MutexGuard<'_, Quota> {
    quota.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::engine::wasm::limits::Limits;
    use crate::engine::wasm::output::Output;

    fn turns(cpus: Option<f64>, common: usize) -> Arc<Turns> {
        let limits = Limits { memory: 0, sockets: 0, files: 0, cpus, fuel: None };
        Turns::new(Budget::new(limits, Output::new()), Arc::new(Semaphore::new(common)))
    }

    /// Computes for so long and lets others have their turn.
    async fn burst(time: Duration) {
        let start = thread_time();
        while thread_time() - start < time.as_nanos() as u64 {
            std::hint::spin_loop();
        }
        tokio::task::yield_now().await;
    }

    #[tokio::test]
    async fn a_share_is_kept() {
        let turns = turns(Some(0.2), 1);
        let computed = AtomicUsize::new(0);
        let spin = async {
            loop {
                burst(Duration::from_millis(5)).await;
                computed.fetch_add(5, Ordering::Relaxed);
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), turns.run(spin)).await;
        let computed = computed.into_inner();
        assert!((50..=240).contains(&computed), "{computed} ms of a second, at a share of 200");
    }

    #[test]
    fn a_period_that_was_overdrawn_is_paid_for_by_the_next() {
        let start = Instant::now();
        let mut quota = Quota::new(0.1, start);
        assert_eq!(quota.closed_until(start), None);
        quota.left -= 25_000_000;
        // 15 ms too much of 10 ms a period.
        assert_eq!(quota.closed_until(start), Some(start + 2 * PERIOD));
        assert_eq!(quota.closed_until(start + PERIOD), Some(start + 2 * PERIOD));
        assert_eq!(quota.closed_until(start + 2 * PERIOD), None);
        assert_eq!(quota.left, 5_000_000);
        assert_eq!(quota.closed_until(start + 100 * PERIOD), None);
        assert_eq!(quota.left, 10_000_000, "what was not used is not saved");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn guests_that_compute_without_pause_take_turns() {
        let turns = turns(None, 2);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (running, most) = (running.clone(), most.clone());
            tasks.spawn(turns.clone().run(async move {
                for round in 0..5 {
                    let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                    // The first round shows who computes without pause.
                    if round > 0 {
                        most.fetch_max(now, Ordering::SeqCst);
                    }
                    let start = Instant::now();
                    while start.elapsed() < TICK {
                        std::hint::spin_loop();
                    }
                    running.fetch_sub(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
            }));
        }
        while tasks.join_next().await.is_some() {}
        // The first rounds of others may fall into later ones.
        assert!((1..=4).contains(&most.load(Ordering::SeqCst)), "{most:?}");
        assert_eq!(turns.common.available_permits(), 2, "every turn was given back");
    }
}
