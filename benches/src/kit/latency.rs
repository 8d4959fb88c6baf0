//! Latencies in little memory, as what is measured is memory: a histogram of 32 buckets an octave, so that
//! each is known to 3 %.

use std::time::Duration;

use serde::Serialize;

/// Buckets an octave.
const PER_OCTAVE: u64 = 32;
/// Octaves above the first `PER_OCTAVE` nanoseconds: up to 137 s.
const OCTAVES: usize = 32;

/// Latencies that were noted.
#[derive(Clone, Debug)]
pub struct Latencies {
    buckets: Vec<u32>,
    count: u64,
    sum_ns: u64,
    max_ns: u64,
}

/// What they come to, nanoseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LatencyNs {
    /// How many there were.
    pub count: u64,
    /// Their mean.
    pub mean_ns: f64,
    /// Half were at most this long.
    pub p50_ns: u64,
    /// 99 of 100 were at most this long.
    pub p99_ns: u64,
    /// 999 of 1000 were at most this long.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: vec![0; (OCTAVES + 1) * PER_OCTAVE as usize], count: 0, sum_ns: 0, max_ns: 0 }
    }
}

impl Latencies {
    /// One more.
    pub fn note(&mut self, latency: Duration) {
        let ns = latency.as_nanos() as u64;
        let last = self.buckets.len() - 1;
        self.buckets[bucket(ns).min(last)] += 1;
        self.count += 1;
        self.sum_ns += ns;
        self.max_ns = self.max_ns.max(ns);
    }

    /// Takes over what others noted.
    pub fn add(&mut self, other: &Latencies) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(ours, theirs)| *ours += theirs);
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// What they come to.
    pub fn summary(&self) -> LatencyNs {
        LatencyNs {
            count: self.count,
            mean_ns: self.sum_ns as f64 / self.count.max(1) as f64,
            p50_ns: self.quantile(0.5),
            p99_ns: self.quantile(0.99),
            p999_ns: self.quantile(0.999),
            max_ns: self.max_ns,
        }
    }

    fn quantile(&self, part: f64) -> u64 {
        let mut left = (self.count as f64 * part).ceil() as u64;
        for (bucket, &count) in self.buckets.iter().enumerate() {
            left = left.saturating_sub(u64::from(count));
            if left == 0 {
                return end_of(bucket).min(self.max_ns);
            }
        }
        self.max_ns
    }
}

/// Exact below `PER_OCTAVE`; above, the octave and the bits behind its first.
fn bucket(ns: u64) -> usize {
    let shift = u64::from((ns / PER_OCTAVE).checked_ilog2().unwrap_or(0));
    (shift * PER_OCTAVE + (ns >> shift)) as usize
}

/// The longest latency of a bucket.
fn end_of(bucket: usize) -> u64 {
    let (octave, rest) = (bucket as u64 / PER_OCTAVE, bucket as u64 % PER_OCTAVE);
    match octave {
        0 => rest,
        _ => ((PER_OCTAVE + rest + 1) << (octave - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_is_in_the_bucket_that_ends_at_it_or_after() {
        for ns in (0..5000).chain([123_456_789, 98_765_432_100]) {
            let at = bucket(ns);
            assert!(end_of(at) >= ns && (at == 0 || end_of(at - 1) < ns), "{ns} in {at}");
            assert!(end_of(at) as f64 <= ns as f64 * 1.033 + 1.0);
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_noted() {
        let mut latencies = Latencies::default();
        (1..=1000).for_each(|us| latencies.note(Duration::from_micros(us)));
        let LatencyNs { count, mean_ns, p50_ns, p99_ns, p999_ns, max_ns } = latencies.summary();
        assert_eq!((count, max_ns), (1000, 1_000_000));
        assert!((mean_ns - 500_500.0).abs() < 1.0);
        assert!((500_000..=516_000).contains(&p50_ns) && (990_000..=1_000_000).contains(&p99_ns), "{p50_ns} {p99_ns}");
        assert!((999_000..=1_000_000).contains(&p999_ns), "{p999_ns}");
    }
}
