//! The prefetch thread: brings the working set back of a guest that was paused, or squeezed and then given
//! much memory at once.
//!
//! ```text
//!   pause ------> paused_at: evictions until then          anything under way waits
//!   resume -----> wanted: what was evicted meanwhile   --> thread: in address order, while there are credits
//!   growth -----> wanted: what was evicted last        -->     over: all back, or the time is
//! ```
//!
//! It works beside faults, never before them: it takes no credit that the evictor keeps in hand or a fault
//! waits for, and a guest that is short of memory is not served by it at all. Growing allocations are
//! followed for a while, since policy gives memory back in steps.

use std::time::{Duration, Instant};

use super::{Failure, GuestMemory};
use wire::{Gfn, PAGE_BYTES};

use crate::{rules::working_set::WorkingSet, sync::Ordering, sys::PageBuffer};

/// Pages that are brought back together: 256 KiB, some 150 µs of decompression during which a fault on one of
/// them waits.
const BATCH_PAGES: usize = 64;
/// Credits it leaves to faults: more than the evictor keeps in hand, so that the two never work against each
/// other.
const RESERVE_PAGES: i64 = 512;
/// How often it looks for credits while there are none.
const INTERVAL: Duration = Duration::from_millis(5);
/// How long after its beginning a record is worth following; what a guest has not asked for by then, it does
/// not need soon. An estimate.
const FOLLOWED: Duration = Duration::from_secs(10);
/// An allocation that grows by this part of RAM at once brings back what was evicted last.
const GROWTH_DIVISOR: u64 = 16;

impl GuestMemory {
    /// The guest's vCPUs are held from now on: nothing of what is evicted meanwhile goes because the guest
    /// does not need it.
    pub fn pause(&self) {
        self.wanted.pause(self.evictions());
    }

    /// They go on. What was evicted since [`GuestMemory::pause`] comes back by itself, as far as there is
    /// memory for it.
    pub fn resume(&self) {
        self.wanted.resume(self.evictions());
    }

    /// The allocation has grown: what was evicted last was missed most. Half as much as there is room for
    /// now, since other pages may be needed as well.
    pub(super) fn grown(&self, bytes: u64) {
        let pages = bytes / PAGE_BYTES as u64;
        if pages > u64::from(self.pages.count()) / GROWTH_DIVISOR {
            let evictions = self.evictions();
            self.wanted.want(WorkingSet::new(evictions.saturating_sub(pages / 2), evictions));
        }
    }

    fn evictions(&self) -> u64 {
        self.pages.counters.evictions_total.load(Ordering::Relaxed)
    }

    pub(super) fn run_prefetch(&self) -> Result<(), Failure> {
        let mut buffer = PageBuffer::new(BATCH_PAGES)?;
        let stopping = || self.stopping.load(Ordering::Acquire);
        while let Some(set) = self.wanted.next(stopping) {
            let (since, mut at) = (Instant::now(), Gfn(0));
            while self.wanted.is_wanted(set) && !stopping() {
                let spare = self.pages.credits.available() - RESERVE_PAGES;
                let next = if spare > 0 && self.nobody_waits() {
                    self.pages.prefetch(set, at, spare.min(BATCH_PAGES as i64) as u32, &mut buffer)?
                } else {
                    self.wanted.wait(INTERVAL);
                    Some(at)
                };
                match next.filter(|_| since.elapsed() < FOLLOWED) {
                    Some(next) => at = next,
                    None => self.wanted.done(set),
                }
            }
        }
        Ok(())
    }
}
