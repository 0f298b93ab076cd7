//! What an instance uses of the machine, as both kinds tell it: counters that only grow within a run, and levels of one moment.
//! A rate is the difference of two samples; nothing here computes one, or knows a clock.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::name::InstanceName;

/// One look at one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Whose.
    pub instance: InstanceName,
    /// Its container's name.
    pub container: String,
    /// Container id or guest id.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// Time its threads computed since it was started.
    pub cpu: Duration,
    /// Bytes of memory in use.
    pub memory: u64,
    /// Bytes it may use; absent means no limit of its own.
    pub memory_limit: Option<u64>,
    /// Bytes that came over its networks.
    pub received: u64,
    /// Bytes that went over its networks.
    pub sent: u64,
    /// Bytes read from block devices; 0 of a guest, whose files are the host's cache.
    pub read: u64,
    /// Bytes written to block devices; 0 of a guest.
    pub written: u64,
    /// Processes and threads of a container, instances of a guest.
    pub tasks: u64,
    /// What only a guest tells.
    pub guest: Option<GuestUsage>,
}

/// What is counted of a guest besides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestUsage {
    /// Requests answered by an HTTP component.
    pub requests: u64,
    /// Times it was denied something.
    pub refusals: u64,
    /// How long requests took until their response began.
    pub latency: Histogram,
}

/// Durations in log-linear buckets: exact below 8 µs, then four buckets for each doubling, so that a bucket is at most a
/// quarter wide of what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram(Vec<u64>);

impl Histogram {
    /// Buckets there are: the last one holds everything from 19 hours on.
    pub const BUCKETS: usize = 8 + 33 * 4;

    /// From the count of each bucket; empty ones at the end may be left out.
    pub fn new(mut counts: Vec<u64>) -> Self {
        counts.truncate(Self::BUCKETS);
        while counts.last() == Some(&0) {
            counts.pop();
        }
        Self(counts)
    }

    /// The bucket of a duration.
    pub fn bucket(duration: Duration) -> usize {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        if micros < 8 {
            return micros as usize;
        }
        let exponent = micros.ilog2() as usize;
        let quarter = (micros >> (exponent - 2)) as usize & 3;
        (8 + (exponent - 3) * 4 + quarter).min(Self::BUCKETS - 1)
    }

    /// The longest duration that a bucket holds.
    pub fn longest(bucket: usize) -> Duration {
        if bucket < 8 {
            return Duration::from_micros(bucket as u64);
        }
        let (exponent, quarter) = ((bucket - 8) / 4 + 3, (bucket - 8) as u64 % 4);
        Duration::from_micros(((4 + quarter + 1) << (exponent - 2)) - 1)
    }

    /// How many durations it holds.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The duration that this part (0 to 1) of all stay within; absent when there is none.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let total = self.total();
        let rank = ((total as f64 * part).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        let bucket = self.0.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        bucket.map(Self::longest)
    }

    /// What came since an earlier look at the same counts.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |bucket: usize| earlier.0.get(bucket).copied().unwrap_or(0);
        Self::new(self.0.iter().enumerate().map(|(bucket, now)| now.saturating_sub(before(bucket))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_belongs_there_and_is_narrow() {
        let micros = (0..200).chain((3..36).flat_map(|power| [(1u64 << power) - 1, 1 << power, (1 << power) + 1]));
        for micros in micros {
            let duration = Duration::from_micros(micros);
            let bucket = Histogram::bucket(duration);
            assert!(Histogram::longest(bucket) >= duration, "{micros}");
            assert!(bucket == 0 || Histogram::longest(bucket - 1) < duration, "{micros}");
            assert!(Histogram::longest(bucket) <= duration + duration / 4 + Duration::from_micros(1), "{micros}");
        }
        assert_eq!(Histogram::bucket(Duration::MAX), Histogram::BUCKETS - 1);
    }

    #[test]
    fn quantiles_come_from_the_counts() {
        let mut counts = vec![0; Histogram::BUCKETS];
        counts[Histogram::bucket(Duration::from_micros(5))] = 98;
        counts[Histogram::bucket(Duration::from_millis(100))] = 2;
        let histogram = Histogram::new(counts);
        assert_eq!(histogram.quantile(0.5), Some(Duration::from_micros(5)));
        let slow = histogram.quantile(0.99).unwrap();
        assert!(slow >= Duration::from_millis(100) && slow < Duration::from_millis(125), "{slow:?}");
        assert_eq!(Histogram::default().quantile(0.5), None);
        assert_eq!(histogram.since(&histogram).total(), 0);
    }
}
