//! Latencies of all guests of a run together, in octaves from 1 µs to 1 s: as a run's metrics have them, and
//! as one guest's process counts them.

use control::status::{LATENCY_BUCKETS, latency_bound_ns};

/// Octaves with a bound, and what is above all of them.
const OCTAVES: usize = LATENCY_BUCKETS / 2 + 1;
const FAMILY: &str = "ballast_guest_timed_seconds_bucket{";

/// How many took at most 1, 2, 4, ... µs, and at last all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waits([f64; OCTAVES]);

impl Waits {
    /// Of metrics in Prometheus' text, all guests together.
    pub fn of_metrics(metrics: &str) -> Waits {
        let mut waits = Waits::default();
        let series = metrics.lines().filter_map(|line| line.strip_prefix(FAMILY)?.rsplit_once(' '));
        for (labels, count) in series {
            let bound = labels.split_once("le=\"").and_then(|(_, rest)| rest.split_once('"')?.0.parse::<f64>().ok());
            let (Some(seconds), Ok(count)) = (bound, count.parse::<f64>()) else { continue };
            let octave = (seconds * 1e6).log2().round().clamp(0.0, (OCTAVES - 1) as f64);
            waits.0[octave as usize] += count;
        }
        waits
    }

    /// Adds those of one guest, by bucket of `control::status::latency_bucket`.
    pub fn add(&mut self, buckets: &[u64]) {
        for (octave, sum) in self.0.iter_mut().enumerate() {
            *sum += buckets.iter().take(1 + 2 * octave).sum::<u64>() as f64;
        }
    }

    /// Those since `before`.
    pub fn since(&self, before: &Waits) -> Waits {
        Waits(std::array::from_fn(|octave| self.0[octave] - before.0[octave]))
    }

    /// How many there were.
    pub fn count(&self) -> f64 {
        self.0[OCTAVES - 1]
    }

    /// What 99 % took at most, ms: the upper bound of its octave; infinite above all bounds, not a number if
    /// there was nothing.
    pub fn p99_ms(&self) -> f64 {
        if self.count() <= 0.0 {
            return f64::NAN;
        }
        match self.0.iter().position(|&count| count >= 0.99 * self.count()) {
            Some(octave) if octave + 1 < OCTAVES => latency_bound_ns(2 * octave) as f64 / 1e6,
            _ => f64::INFINITY,
        }
    }
}

#[cfg(test)]
mod tests {
    use control::status::latency_bucket;

    use super::*;

    #[test]
    fn the_same_latencies_are_the_same_by_metrics_and_by_buckets() {
        let mut buckets = vec![0; LATENCY_BUCKETS];
        for ns in [900, 1_300, 1_900, 3_000_000, u64::MAX] {
            buckets[latency_bucket(ns)] += 1;
        }
        let mut counted = Waits::default();
        counted.add(&buckets);
        let mut text = String::new();
        for (octave, count) in counted.0.iter().enumerate() {
            let seconds = latency_bound_ns(2 * octave) as f64 / 1e9;
            let bound = if octave + 1 < OCTAVES { seconds.to_string() } else { "+Inf".to_owned() };
            text += &format!("{FAMILY}guest=\"guest0\",le=\"{bound}\"}} {count}\n");
        }
        assert_eq!(Waits::of_metrics(&text), counted);
        assert_eq!(counted.0[..2], [1.0, 3.0]);
        assert_eq!(counted.count(), 5.0);
    }

    #[test]
    fn one_in_a_hundred_may_take_longer_than_p99() {
        let waits = |slow: u64| {
            let mut buckets = vec![0; LATENCY_BUCKETS];
            buckets[latency_bucket(1_900)] = 100 - slow;
            buckets[LATENCY_BUCKETS - 1] = slow;
            let mut waits = Waits::default();
            waits.add(&buckets);
            waits
        };
        assert_eq!(waits(1).p99_ms(), 0.002);
        assert_eq!(waits(2).p99_ms(), f64::INFINITY);
        assert!(Waits::default().p99_ms().is_nan());
        assert_eq!(waits(2).since(&waits(2)).count(), 0.0);
    }
}
