//! How long things took: a histogram that many threads add to.

use std::time::Duration;

use control::status::{LATENCY_BUCKETS, LatencyStatus, latency_bucket};

use crate::sync::{AtomicU64, Ordering};

/// How long something took, each time. Only ever grows.
pub(crate) struct Latency {
    buckets: [AtomicU64; LATENCY_BUCKETS],
    ns: AtomicU64,
    ns_max: AtomicU64,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            ns: AtomicU64::new(0),
            ns_max: AtomicU64::new(0),
        }
    }
}

impl Latency {
    /// Counts one that took `spent`.
    pub fn add(&self, spent: Duration) {
        let ns = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[latency_bucket(ns)].fetch_add(1, Ordering::Relaxed);
        self.ns.fetch_add(ns, Ordering::Relaxed);
        self.ns_max.fetch_max(ns, Ordering::Relaxed);
    }

    /// As figures.
    pub fn status(&self) -> LatencyStatus {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LatencyStatus {
            buckets: self.buckets.iter().map(load).collect(),
            ns_total: load(&self.ns),
            ns_max: load(&self.ns_max),
        }
    }
}
