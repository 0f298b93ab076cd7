//! Verdicts on a Wasm instance's health: when to probe it, and what so many passes and failures make of it.
//!
//! Thresholds are Docker's (interval, timeout, retries, start period). One thing is quicker: until the first interval is over
//! the instance is also probed eagerly, and of these probes only a pass counts. A dependent thus waits for its dependency, not for an interval.
//! Knows nothing of how a probe is made.

use std::time::Duration;

use crate::model::Healthcheck;
use crate::plan::observed::Health;

/// First wait between two eager probes; it doubles.
const EAGER: Duration = Duration::from_millis(20);
/// Longest wait between two eager probes.
const EAGER_LIMIT: Duration = Duration::from_secs(1);

/// A health check's times, defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Time between two probes.
    pub interval: Duration,
    /// A longer probe failed.
    pub timeout: Duration,
    /// Failures in a row that make an instance unhealthy.
    pub retries: u32,
    /// Failures in this time after the start do not count.
    pub start_period: Duration,
    /// Time between two probes in the start period.
    pub start_interval: Duration,
}

impl Timing {
    /// The declared times over the engine's defaults. Zero means the default, as in the engine.
    pub fn of(declared: &Healthcheck) -> Self {
        let or = |value: Option<Duration>, default| value.filter(|value| !value.is_zero()).unwrap_or(default);
        let interval = or(declared.interval, Duration::from_secs(30));
        Self {
            interval,
            timeout: or(declared.timeout, Duration::from_secs(30)),
            retries: declared.retries.filter(|retries| *retries > 0).unwrap_or(3),
            start_period: declared.start_period.unwrap_or_default(),
            start_interval: or(declared.start_interval, Duration::from_secs(5).min(interval)),
        }
    }
}

/// The health of one run. Times are counted from the supervisor's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    timing: Timing,
    started: Duration,
    verdict: Health,
    failures: u32,
    eager: Duration,
    next: Next,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    At(Duration),
    InFlight,
}

impl Monitor {
    /// Of a run that started now.
    pub fn new(timing: Timing, now: Duration) -> Self {
        let next = Next::At(now);
        Self { timing, started: now, verdict: Health::Starting, failures: 0, eager: EAGER, next }
    }

    /// The verdict so far.
    pub fn verdict(&self) -> Health {
        self.verdict
    }

    /// How long a probe may take.
    pub fn timeout(&self) -> Duration {
        self.timing.timeout
    }

    /// When the next probe is due; absent while one is under way.
    pub fn deadline(&self) -> Option<Duration> {
        match self.next {
            Next::At(at) => Some(at),
            Next::InFlight => None,
        }
    }

    /// Whether a probe is due; if so it counts as under way until [`Monitor::passed`] or [`Monitor::failed`].
    pub fn take_due(&mut self, now: Duration) -> bool {
        let due = self.deadline().is_some_and(|at| at <= now);
        if due {
            self.next = Next::InFlight;
        }
        due
    }

    /// A probe passed.
    pub fn passed(&mut self, now: Duration) {
        self.verdict = Health::Healthy;
        self.failures = 0;
        self.next = Next::At(now + self.timing.interval);
    }

    /// A probe failed.
    pub fn failed(&mut self, now: Duration) {
        let starting = self.verdict == Health::Starting;
        let first = self.started + self.timing.interval;
        if starting && now < first {
            self.next = Next::At((now + self.eager).min(first));
            self.eager = (self.eager * 2).min(EAGER_LIMIT);
            return;
        }
        if starting && now < self.started + self.timing.start_period {
            self.next = Next::At(now + self.timing.start_interval);
            return;
        }
        self.failures += 1;
        if self.failures >= self.timing.retries {
            self.verdict = Health::Unhealthy;
        }
        self.next = Next::At(now + self.timing.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing() -> Timing {
        Timing::of(&Healthcheck { interval: Some(Duration::from_secs(1)), retries: Some(2), ..Healthcheck::default() })
    }

    /// Probes at every deadline with the result `passes(time)` until `end`; tells when the verdict changed.
    fn verdicts(timing: Timing, end: Duration, passes: impl Fn(Duration) -> bool) -> Vec<(Duration, Health)> {
        let mut monitor = Monitor::new(timing, Duration::ZERO);
        let mut seen = Vec::new();
        while let Some(now) = monitor.deadline().filter(|at| *at <= end) {
            assert!(monitor.take_due(now) && !monitor.take_due(now), "one probe at a time");
            let before = monitor.verdict();
            if passes(now) {
                monitor.passed(now)
            } else {
                monitor.failed(now)
            }
            if monitor.verdict() != before {
                seen.push((now, monitor.verdict()));
            }
        }
        seen
    }

    #[test]
    fn an_instance_that_answers_soon_is_healthy_long_before_the_interval() {
        let soon = Duration::from_millis(100);
        let seen = verdicts(timing(), Duration::from_secs(1), |now| now >= soon);
        assert_eq!(seen, [(Duration::from_millis(140), Health::Healthy)]);
    }

    #[test]
    fn eager_failures_do_not_count() {
        let seen = verdicts(timing(), Duration::from_secs(5), |_| false);
        assert_eq!(seen, [(Duration::from_secs(2), Health::Unhealthy)], "probes at 1 s and 2 s failed");
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        let timing = Timing { start_period: Duration::from_secs(4), ..timing() };
        let seen = verdicts(timing, Duration::from_secs(6), |_| false);
        assert_eq!(seen, [(Duration::from_secs(5), Health::Unhealthy)]);
    }

    #[test]
    fn one_pass_heals_and_one_failure_is_not_enough() {
        let second = |now: Duration| now.as_secs();
        let seen = verdicts(timing(), Duration::from_secs(7), |now| ![2, 4, 5].contains(&second(now)));
        assert_eq!(
            seen,
            [
                (Duration::ZERO, Health::Healthy),
                (Duration::from_secs(5), Health::Unhealthy),
                (Duration::from_secs(6), Health::Healthy)
            ]
        );
    }
}
