//! The time that guests compute. Guest code runs inside polls of futures, so the clock of the polling thread is read
//! around each: what a guest waits for costs it nothing, and what the thread does for others is not its.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use super::compile::TICK;
use super::meter::Meter;

/// A thread at a moment.
#[derive(Clone, Copy)]
struct Mark {
    /// What it had computed when its clock was last read.
    computed: u64,
    /// When the last measured poll on it ended.
    at: Instant,
}

thread_local! {
    static MARK: Cell<Option<Mark>> = const { Cell::new(None) };
}

/// Runs guest code to its end, with the time of its polls counted.
///
/// The thread's clock is a system call, which costs as much as a small request, so it is read for guests that compute
/// for long alone: for the first poll, and after short ones, the time that passed is taken.
pub async fn measured<F: Future>(meter: Arc<Meter>, guest: F) -> F::Output {
    let mut guest = pin!(guest);
    let mut long = false;
    poll_fn(|cx| {
        let (start, before) = (Instant::now(), long.then(thread_time));
        let outcome = guest.as_mut().poll(cx);
        let at = Instant::now();
        let passed = at - start;
        long = passed >= TICK / 2;
        meter.computed(match before {
            Some(before) => {
                let computed = thread_time();
                MARK.set(Some(Mark { computed, at }));
                computed.saturating_sub(before)
            }
            None => {
                MARK.set(MARK.get().map(|mark| Mark { at, ..mark }));
                u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX)
            }
        });
        outcome
    })
    .await
}

/// Counts what this thread computed since the last measured poll on it, for guest code that somebody else polls and that
/// can only tell afterwards. On a guests' thread that is the guest's time and a little of the runtime's own.
pub fn count_since_last(meter: &Meter) {
    let (computed, at) = (thread_time(), Instant::now());
    // A thread that measured nothing yet may have done anything before.
    if let Some(before) = MARK.replace(Some(Mark { computed, at })) {
        let passed = u64::try_from((at - before.at).as_nanos()).unwrap_or(u64::MAX);
        meter.computed(computed.saturating_sub(before.computed).min(passed));
    }
}

/// Nanoseconds that the calling thread has computed.
pub(super) fn thread_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn computing_counts_and_waiting_does_not() {
        let meter = Arc::new(Meter::default());
        let computed = Cell::new(0);
        let compute = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            // As guests do: they yield at each tick.
            for _ in 0..10 {
                let before = thread_time();
                while thread_time() - before < TICK.as_nanos() as u64 {
                    std::hint::spin_loop();
                }
                computed.set(computed.get() + thread_time() - before);
                tokio::task::yield_now().await;
            }
        };
        measured(meter.clone(), compute).await;
        let (counted, computed) = (meter.cpu(), Duration::from_nanos(computed.get()));
        // The first tick is the clock's on the wall, which goes on when the thread is held up.
        assert!(counted >= computed.mul_f64(0.99) && counted < computed + Duration::from_millis(40), "{counted:?}");
    }
}
