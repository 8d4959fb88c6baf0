//! Counters of what the transitions did, and of what faults cost.

use std::time::{Duration, Instant};

use control::status::{LATENCY_BUCKETS, latency_bucket};

use crate::sync::{AtomicU64, Ordering};

/// Length of an era: refaults are pages that come back within two of them.
const ERA_MS: u64 = 4_000;

/// Only ever grow; relaxed everywhere, they order nothing.
pub(crate) struct Counters {
    pub breaks: AtomicU64,
    pub promotions: AtomicU64,
    pub refaults: AtomicU64,
    pub evictions: AtomicU64,
    pub incompressible: AtomicU64,
    pub faults_missing: AtomicU64,
    pub faults_minor: AtomicU64,
    pub faults_write_protect: AtomicU64,
    pub faults_without_credit: AtomicU64,
    pub fault_ns: AtomicU64,
    pub fault_ns_max: AtomicU64,
    pub stall_ns: AtomicU64,
    pub evict_cpu_ns: AtomicU64,
    pub fault_cpu_ns: AtomicU64,
    latency: [AtomicU64; LATENCY_BUCKETS],
    clock_ms: AtomicU64,
}

impl Default for Counters {
    fn default() -> Counters {
        let zero = || AtomicU64::new(0);
        Counters {
            breaks: zero(),
            promotions: zero(),
            refaults: zero(),
            evictions: zero(),
            incompressible: zero(),
            faults_missing: zero(),
            faults_minor: zero(),
            faults_write_protect: zero(),
            faults_without_credit: zero(),
            fault_ns: zero(),
            fault_ns_max: zero(),
            stall_ns: zero(),
            evict_cpu_ns: zero(),
            fault_cpu_ns: zero(),
            latency: std::array::from_fn(|_| AtomicU64::new(0)),
            clock_ms: zero(),
        }
    }
}

impl Counters {
    /// Counts a fault that took `spent`, and stalled a vCPU if `stalled`.
    pub fn fault_served(&self, spent: Duration, stalled: bool) {
        let ns = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        self.latency[latency_bucket(ns)].fetch_add(1, Ordering::Relaxed);
        self.fault_ns.fetch_add(ns, Ordering::Relaxed);
        self.fault_ns_max.fetch_max(ns, Ordering::Relaxed);
        if stalled {
            self.stall_ns.fetch_add(ns, Ordering::Relaxed);
        }
    }

    /// Faults by bucket.
    pub fn latency(&self) -> Vec<u64> {
        self.latency.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect()
    }

    /// Tells the counters what time it is.
    pub fn tick(&self, start: Instant) {
        self.clock_ms.store(start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// The era, from 0.
    pub fn era(&self) -> u64 {
        self.clock_ms.load(Ordering::Relaxed) / ERA_MS
    }
}
