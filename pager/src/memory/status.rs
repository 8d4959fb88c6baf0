//! What a guest's memory reports of itself, and how its account is brought up to date with the kernel's.

use std::{
    slice,
    time::{Duration, Instant},
};

use control::{
    status::{PagerStatus, TakenStatus},
    sync,
};

use super::{Failure, GuestMemory, Waiting};
use wire::PAGE_BYTES;

use crate::{
    accounts::stall::Cause,
    pages::table::Taker,
    rules::floor::Held,
    sync::{Ordering, lock},
    sys::ThreadClock,
};

impl GuestMemory {
    /// Time that vCPUs have spent so far in faults that still wait: it counts as stall before it is over, or
    /// a guest that gets no memory at all would look as if it needed none.
    fn waiting_stall(&self, cause: Cause) -> Duration {
        let stalled = |waiting: &Waiting| match self.is_vcpu(waiting.event.tid) {
            true => waiting.since.elapsed(),
            false => Duration::ZERO,
        };
        let waiting = || sync::lock(&self.waiting).iter().map(stalled).sum();
        match cause {
            Cause::Memory => waiting(),
            Cause::Swapped => self.reads.sum(stalled),
            _ => Duration::ZERO,
        }
    }

    /// Looks which open pages the guest has written to, if it is time to: seldom while it writes to none.
    /// `process_anonymous_bytes`: as for [`GuestMemory::measure`], but without what is foreign.
    pub fn note_written(&self, process_anonymous_bytes: u64) -> Result<(), Failure> {
        let table = &self.pages.table;
        let unknown_bytes = || {
            let known = table.counts().private * PAGE_BYTES as u64 + lock(&self.pages.pool).bytes();
            process_anonymous_bytes.saturating_sub(known)
        };
        let mut notice = sync::lock(&self.notice);
        if notice.is_due(table.open(), unknown_bytes(), Instant::now()) {
            let noted = self.pages.note_written()?;
            notice.noted(noted, unknown_bytes(), Instant::now());
        }
        Ok(())
    }

    /// Brings relief up to date: of what the account knows of, the kernel has swapped out what is not here.
    pub(super) fn note_relief(&self) -> Result<(), Failure> {
        if !self.pages.kernel.exists() {
            return Ok(());
        }
        let known_bytes = self.foreign_bytes + self.accounted_bytes() + self.pages.credits.overhead_bytes();
        let swapped_bytes = known_bytes.saturating_sub(self.resident.anonymous_bytes()?);
        let swapped = (swapped_bytes / PAGE_BYTES as u64) as i64;
        self.pages.credits.set_relief(self.pages.kernel.relief(swapped));
        self.swapped.store(swapped, Ordering::Relaxed);
        Ok(())
    }

    /// What of this process's memory the table and the pool know of, here or swapped out, bytes.
    fn accounted_bytes(&self) -> u64 {
        self.pages.table.private() * PAGE_BYTES as u64 + lock(&self.pages.pool).bytes()
    }

    /// Brings the account up to date with the kernel's. `process_anonymous_bytes` is all anonymous memory of
    /// this process as the kernel counts it, here or swapped out: what the table does not know of is
    /// overhead.
    pub fn measure(&self, process_anonymous_bytes: u64) -> Result<(), Failure> {
        let process_anonymous_bytes = process_anonymous_bytes.saturating_sub(self.foreign_bytes);
        self.note_written(process_anonymous_bytes)?;
        let (private, counters) = (self.pages.table.counts().private, &self.pages.counters);
        self.set_overhead(process_anonymous_bytes.saturating_sub(self.accounted_bytes()), private as i64);
        counters.evict_cpu_ns.fetch_max(cpu_ns(self.evict_clocks()), Ordering::Relaxed);
        counters.fault_cpu_ns.fetch_max(cpu_ns(&self.fault_clocks()), Ordering::Relaxed);
        Ok(())
    }

    /// Measures, and then reports.
    pub fn status(&self, process_anonymous_bytes: u64) -> Result<PagerStatus, Failure> {
        self.measure(process_anonymous_bytes)?;
        Ok(self.report())
    }

    /// What guest memory is at, by the account as it was last measured. Changes nothing.
    pub fn report(&self) -> PagerStatus {
        let (table, counters) = (&self.pages.table, &self.pages.counters);
        let pages = table.counts();
        let (pool_bytes, patches) = {
            let pool = lock(&self.pages.pool);
            (pool.bytes(), pool.patches())
        };
        let credits = &self.pages.credits;
        let faults = counters.faults.status();
        let stall = counters.stall.status(|cause| self.waiting_stall(cause));
        let load = |counter: &crate::sync::AtomicU64| counter.load(Ordering::Relaxed);
        let taken = |taker: Taker| TakenStatus {
            pages_total: load(&counters.taken[taker as usize - 1]),
            back_soon_total: load(&counters.taken_back[taker as usize - 1]),
        };
        // What a thread had used when it was last measured, once it has ended.
        let cpu = |clocks: &[ThreadClock], measured: &crate::sync::AtomicU64| load(measured).max(cpu_ns(clocks));
        let swap = self.pages.swap.as_ref().map(|swap| swap.status(counters.now_ms())).unwrap_or_default();
        let slots_bytes = if swap.suspended { 0 } else { swap.capacity_bytes - swap.used_bytes };
        let held = Held {
            private: pages.private,
            // What would not compress is not even tried without a pager.
            noise: if self.evict { table.noise() } else { pages.private },
            compressed: pages.compressed,
            pool_bytes,
            overhead_bytes: credits.overhead_bytes(),
            slots: slots_bytes / PAGE_BYTES as u64,
        };
        // A field for each counter in the list: one that is forgotten does not compile.
        macro_rules! status {
            ($($(#[$meaning:meta])* $counter:ident)*) => {
                PagerStatus {
                    floor_bytes: held.floor_bytes(),
                    allocation_bytes: credits.allocation_bytes(),
                    committed_bytes: credits.committed_bytes(),
                    resident_bytes: (self.accounted_bytes() + credits.overhead_bytes())
                        .saturating_sub(credits.relief().max(0) as u64 * PAGE_BYTES as u64),
                    pool_bytes,
                    overhead_bytes: credits.overhead_bytes(),
                    patch_pages: patches.pages,
                    patch_bytes: patches.bytes,
                    pages,
                    kernel_pages: (self.swapped.load(Ordering::Relaxed).max(0) as u64).min(pages.private),
                    zero_touched: table.zero_touched(),
                    ballooned_touched: table.ballooned_touched(),
                    fault_latency: faults.buckets,
                    fault_ns_total: faults.ns_total,
                    fault_ns_max: faults.ns_max,
                    stall_ns_total: stall.sum_ns(),
                    stall_latency: counters.stall.waits(),
                    stall,
                    reported: taken(Taker::Reporting),
                    ballooned: taken(Taker::Balloon),
                    zeroed: taken(Taker::Zero),
                    evict_cpu_ns: cpu(self.evict_clocks(), &counters.evict_cpu_ns),
                    fault_cpu_ns: cpu(&self.fault_clocks(), &counters.fault_cpu_ns),
                    sampling: *sync::lock(&self.sampling),
                    swap,
                    $($counter: load(&counters.$counter),)*
                }
            };
        }
        control::pager_counters!(status)
    }

    fn evict_clocks(&self) -> &[ThreadClock] {
        self.evict_clock.get().map_or(&[], slice::from_ref)
    }

    fn fault_clocks(&self) -> Vec<ThreadClock> {
        sync::lock(&self.fault_clocks).clone()
    }

    /// Takes a measured overhead over, unless pages were moving while it was measured.
    fn set_overhead(&self, measured_bytes: u64, private: i64) {
        /// Pages that may have moved between the two readings without spoiling the difference (256 KiB).
        const STEADY_PAGES: u64 = 64;
        /// Differences not worth a change.
        const NOISE_BYTES: u64 = 128 << 10;
        let moved = (private - self.last_private.swap(private, Ordering::Relaxed)).unsigned_abs();
        let credits = &self.pages.credits;
        if moved <= STEADY_PAGES && measured_bytes.abs_diff(credits.overhead_bytes()) > NOISE_BYTES {
            credits.resize(credits.allocation_bytes(), measured_bytes + NOISE_BYTES / 2);
        }
    }
}

/// What these threads have used, ns, as far as they have not ended.
fn cpu_ns(clocks: &[ThreadClock]) -> u64 {
    clocks.iter().filter_map(|clock| clock.read()).sum::<Duration>().as_nanos() as u64
}
