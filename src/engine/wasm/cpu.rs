//! The time that guests compute. Guest code runs inside polls of futures, so the clock of the polling thread is read
//! around each: what a guest waits for costs it nothing, and what the thread does for others is not its.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use rustix::time::{ClockId, clock_gettime};

use super::meter::Meter;

thread_local! {
    /// The thread's clock when the last measured poll on it ended.
    static MEASURED: Cell<u64> = const { Cell::new(0) };
}

/// Runs guest code to its end, with the time of its polls counted.
pub async fn measured<F: Future>(meter: Arc<Meter>, guest: F) -> F::Output {
    let mut guest = pin!(guest);
    poll_fn(|cx| {
        let start = thread_time();
        let outcome = guest.as_mut().poll(cx);
        let end = thread_time();
        MEASURED.set(end);
        meter.computed(end.saturating_sub(start));
        outcome
    })
    .await
}

/// Counts what this thread computed since the last measured poll on it, for guest code that somebody else polls and that
/// can only tell afterwards. On a guests' thread that is the guest's time and a little of the runtime's own.
pub fn count_since_last(meter: &Meter) {
    let end = thread_time();
    let before = MEASURED.replace(end);
    // A thread that measured nothing yet may have done anything before.
    if before != 0 {
        meter.computed(end.saturating_sub(before));
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
        let compute = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let before = thread_time();
            while thread_time() - before < 20_000_000 {
                std::hint::spin_loop();
            }
        };
        measured(meter.clone(), compute).await;
        let counted = meter.cpu();
        assert!(counted >= Duration::from_millis(20) && counted < Duration::from_millis(40), "{counted:?}");
    }
}
