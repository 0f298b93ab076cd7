//! When an instance that ended is started again, and after how long: the rules of Docker's restart manager,
//! for instances whose engine does not restart by itself.

use std::time::Duration;

use crate::model::Restart;

/// Wait before the first restart.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait between two restarts.
const LONGEST: Duration = Duration::from_secs(60);
/// A run of this length makes the next wait [`FIRST`] again.
const STEADY: Duration = Duration::from_secs(10);

/// How often an instance ended lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backoff {
    wait: Option<Duration>,
    restarts: u32,
}

impl Backoff {
    /// The wait before the next start, after a run of this length that ended with this code; absent when the policy lets it rest.
    pub fn after(&mut self, policy: Restart, code: i64, ran: Duration) -> Option<Duration> {
        let wait = match self.wait {
            Some(wait) if ran < STEADY => (wait * 2).min(LONGEST),
            Some(_) | None => FIRST,
        };
        self.wait = Some(wait);
        let again = match policy {
            Restart::No => false,
            Restart::Always | Restart::UnlessStopped => true,
            Restart::OnFailure { maximum } => code != 0 && (maximum == 0 || self.restarts < maximum),
        };
        again.then(|| {
            self.restarts += 1;
            wait
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    #[test]
    fn the_wait_doubles_up_to_a_minute_and_starts_over_after_a_steady_run() {
        let mut backoff = Backoff::default();
        let mut waits: Vec<u128> =
            (0..12).filter_map(|_| backoff.after(Restart::Always, 0, SHORT)).map(|wait| wait.as_millis()).collect();
        waits.extend(backoff.after(Restart::Always, 0, STEADY).map(|wait| wait.as_millis()));
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000, 100]);
    }

    #[test]
    fn a_policy_decides_by_exit_code_and_count() {
        let restarts = |policy, code| {
            let mut backoff = Backoff::default();
            (0..5).take_while(|_| backoff.after(policy, code, SHORT).is_some()).count()
        };
        assert_eq!(restarts(Restart::No, 1), 0);
        assert_eq!(restarts(Restart::Always, 0), 5);
        assert_eq!(restarts(Restart::UnlessStopped, 1), 5);
        assert_eq!(restarts(Restart::OnFailure { maximum: 0 }, 1), 5);
        assert_eq!(restarts(Restart::OnFailure { maximum: 2 }, 1), 2);
        assert_eq!(restarts(Restart::OnFailure { maximum: 2 }, 0), 0);
    }
}
