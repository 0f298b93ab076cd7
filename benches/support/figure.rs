//! A time beside its baseline, taken turn by turn in one run so that a busy machine disturbs both alike.

use std::io::{self, Write};
use std::time::Duration;

/// Pairs of a time and its baseline.
pub struct Figure {
    what: String,
    against: &'static str,
    pairs: Vec<(Duration, Duration)>,
}

impl Figure {
    /// `what` beside `against`.
    pub fn new(what: impl Into<String>, against: &'static str) -> Self {
        Self { what: what.into(), against, pairs: Vec::new() }
    }

    /// One turn.
    pub fn take(&mut self, time: Duration, baseline: Duration) {
        self.pairs.push((time, baseline));
    }

    /// Medians, and the median of the ratios of each pair.
    pub fn print(&self, note: &str) {
        let time = median(self.pairs.iter().map(|pair| pair.0.as_secs_f64()));
        let baseline = median(self.pairs.iter().map(|pair| pair.1.as_secs_f64()));
        let ratio = median(self.pairs.iter().map(|pair| pair.0.as_secs_f64() / pair.1.as_secs_f64()));
        let line = format!(
            "{:<40} {:>10} = {ratio:.2}x {} ({}); {note}\n",
            self.what,
            shown(time),
            self.against,
            shown(baseline)
        );
        let _ = io::stdout().write_all(line.as_bytes());
    }
}

/// The middle one.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A time as people read it.
pub fn shown(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}
