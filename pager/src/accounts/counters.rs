//! Counters of what the transitions did, and of what faults cost.

use std::time::{Duration, Instant};

use crate::{
    accounts::{
        latency::Latency,
        stall::{Cause, Stall},
    },
    pages::table::Taker,
    sync::{AtomicU64, Ordering},
};

/// Length of an era: refaults are pages that come back within two of them.
const ERA_MS: u64 = 4_000;

/// Only ever grow; relaxed everywhere, they order nothing.
pub(crate) struct Counters {
    pub breaks: AtomicU64,
    pub promotions: AtomicU64,
    pub refaults: AtomicU64,
    pub refaults_swapped: AtomicU64,
    /// Pages that each [`Taker`] took, and those of them that were back soon.
    pub taken: [AtomicU64; 3],
    pub taken_back: [AtomicU64; 3],
    pub read_ahead: AtomicU64,
    pub prefetched: AtomicU64,
    pub evictions: AtomicU64,
    pub evictions_proactive: AtomicU64,
    pub pool_packed: AtomicU64,
    pub pool_patched: AtomicU64,
    /// Pages of the pool that were found equal to the frame at their address, and share it.
    pub pool_rejoined: AtomicU64,
    pub pool_moved: AtomicU64,
    pub incompressible: AtomicU64,
    pub faults_missing: AtomicU64,
    pub faults_minor: AtomicU64,
    pub faults_write_protect: AtomicU64,
    pub faults_without_credit: AtomicU64,
    pub faults: Latency,
    pub stall: Stall,
    pub evict_cpu_ns: AtomicU64,
    pub fault_cpu_ns: AtomicU64,
    clock_ms: AtomicU64,
}

impl Default for Counters {
    fn default() -> Counters {
        let zero = || AtomicU64::new(0);
        Counters {
            breaks: zero(),
            promotions: zero(),
            refaults: zero(),
            refaults_swapped: zero(),
            taken: std::array::from_fn(|_| zero()),
            taken_back: std::array::from_fn(|_| zero()),
            read_ahead: zero(),
            prefetched: zero(),
            evictions: zero(),
            evictions_proactive: zero(),
            pool_packed: zero(),
            pool_patched: zero(),
            pool_rejoined: zero(),
            pool_moved: zero(),
            incompressible: zero(),
            faults_missing: zero(),
            faults_minor: zero(),
            faults_write_protect: zero(),
            faults_without_credit: zero(),
            faults: Latency::default(),
            stall: Stall::default(),
            evict_cpu_ns: zero(),
            fault_cpu_ns: zero(),
            clock_ms: zero(),
        }
    }
}

impl Counters {
    /// Counts a fault that took `spent`, and what a vCPU was stalled by, if one was.
    pub fn fault_served(&self, spent: Duration, stalled_by: Option<Cause>) {
        self.faults.add(spent);
        if let Some(cause) = stalled_by {
            self.stall.add(cause, spent);
        }
    }

    /// Counts pages that `taker` took.
    pub fn took(&self, taker: Taker, pages: u64) {
        self.taken[taker as usize - 1].fetch_add(pages, Ordering::Relaxed);
    }

    /// Counts a page that was back soon after `taker` had taken it.
    pub fn back_soon(&self, taker: Taker) {
        self.taken_back[taker as usize - 1].fetch_add(1, Ordering::Relaxed);
    }

    /// Tells the counters what time it is.
    pub fn tick(&self, start: Instant) {
        self.clock_ms.store(start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Some time passes.
    #[cfg(test)]
    pub fn advance(&self, ms: u64) {
        self.clock_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// The time last told, ms.
    pub fn now_ms(&self) -> u64 {
        self.clock_ms.load(Ordering::Relaxed)
    }

    /// The era, from 0.
    pub fn era(&self) -> u64 {
        self.now_ms() / ERA_MS
    }
}
