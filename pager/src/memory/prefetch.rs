//! The prefetch thread: brings the working set back of a guest that was paused, or squeezed and then given much memory at once.
//!
//! ```text
//!   pause ------> paused_at: evictions until then          anything under way waits
//!   resume -----> wanted: what was evicted meanwhile   --> thread: in address order, as far as credits go without eviction
//!   growth -----> wanted: what was evicted last        -->     over: all back, or the time is
//! ```
//!
//! It works beside faults, never before them: it takes no credit that the evictor keeps in hand or a fault waits for, and a guest that is short
//! of memory is not served by it at all. Growing allocations are followed for a while, since policy gives memory back in steps.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Failure, GuestMemory};
use wire::{Gfn, PAGE_BYTES};

use crate::{swap::PageBuffer, sync::Ordering, working_set::WorkingSet};

/// Pages that are brought back together: 256 KiB, some 150 µs of decompression during which a fault on one of them waits.
const BATCH_PAGES: usize = 64;
/// Credits it leaves to faults: more than the evictor keeps in hand, so that the two never work against each other.
const RESERVE_PAGES: i64 = 512;
/// How often it looks for credits while there are none.
const INTERVAL: Duration = Duration::from_millis(5);
/// How long after its beginning a record is worth following; what a guest has not asked for by then, it does not need soon. An estimate.
const FOLLOWED: Duration = Duration::from_secs(10);
/// An allocation that grows by this part of RAM at once brings back what was evicted last.
const GROWTH_DIVISOR: u64 = 16;

/// What is to be brought back.
pub(super) struct Prefetch {
    enabled: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Pages evicted until the guest was paused, while it is.
    paused_at: Option<u64>,
    wanted: Option<WorkingSet>,
}

impl Prefetch {
    /// Nothing, and nothing ever unless `enabled`.
    pub fn new(enabled: bool) -> Prefetch {
        Prefetch { enabled, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest is paused.
    pub fn is_paused(&self) -> bool {
        self.state().paused_at.is_some()
    }

    fn pause(&self, evictions: u64) {
        let mut state = self.state();
        // What was not back yet when it was paused again belongs to what it needs next time.
        let from = state.wanted.take().map_or(evictions, WorkingSet::from);
        state.paused_at.get_or_insert(from);
    }

    fn resume(&self, evictions: u64) {
        let from = self.state().paused_at.take();
        from.into_iter().for_each(|from| self.want(WorkingSet::new(from, evictions)));
        // What was wanted before the pause, or because of growth during it, waits for this moment, too.
        self.changed.notify_all();
    }

    fn want(&self, set: WorkingSet) {
        if self.enabled && !set.is_empty() {
            let mut state = self.state();
            state.wanted = Some(state.wanted.map_or(set, |wanted| wanted.and(set)));
            drop(state);
            self.changed.notify_all();
        }
    }

    /// What to bring back, once there is something; none when `stopping` says so.
    fn next(&self, stopping: impl Fn() -> bool) -> Option<WorkingSet> {
        let mut state = self.state();
        loop {
            if stopping() {
                return None;
            }
            if let (Some(set), None) = (state.wanted, state.paused_at) {
                return Some(set);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether that is still what is wanted.
    fn is_wanted(&self, set: WorkingSet) -> bool {
        let state = self.state();
        state.wanted == Some(set) && state.paused_at.is_none()
    }

    /// All of it is back, or is not worth the trouble any more.
    fn done(&self, set: WorkingSet) {
        let mut state = self.state();
        state.wanted = state.wanted.filter(|&wanted| wanted != set);
    }

    fn wait(&self, time: Duration) {
        drop(self.changed.wait_timeout(self.state(), time));
    }

    /// Has the thread look at `stopping` again.
    pub fn wake(&self) {
        // Whoever has looked, and not slept yet, holds the lock.
        drop(self.state());
        self.changed.notify_all();
    }
}

impl GuestMemory {
    /// The guest's vCPUs are held from now on: nothing of what is evicted meanwhile goes because the guest does not need it.
    pub fn pause(&self) {
        self.prefetch.pause(self.evictions());
    }

    /// They go on. What was evicted since [`GuestMemory::pause`] comes back by itself, as far as there is memory for it.
    pub fn resume(&self) {
        self.prefetch.resume(self.evictions());
    }

    /// The allocation has grown: what was evicted last was missed most. Half as much as there is room for now, since other pages may be needed
    /// as well.
    pub(super) fn grown(&self, bytes: u64) {
        let pages = bytes / PAGE_BYTES as u64;
        if pages > u64::from(self.pages.count()) / GROWTH_DIVISOR {
            let evictions = self.evictions();
            self.prefetch.want(WorkingSet::new(evictions.saturating_sub(pages / 2), evictions));
        }
    }

    fn evictions(&self) -> u64 {
        self.pages.counters.evictions.load(Ordering::Relaxed)
    }

    pub(super) fn run_prefetch(&self) -> Result<(), Failure> {
        let mut buffer = PageBuffer::new(BATCH_PAGES)?;
        let stopping = || self.stopping.load(Ordering::Acquire);
        while let Some(set) = self.prefetch.next(stopping) {
            let (since, mut at) = (Instant::now(), Gfn(0));
            while self.prefetch.is_wanted(set) && !stopping() {
                let spare = self.pages.credits.available() - RESERVE_PAGES;
                let next = if spare > 0 && self.nobody_waits() {
                    self.pages.prefetch(set, at, spare.min(BATCH_PAGES as i64) as u32, &mut buffer)?
                } else {
                    self.prefetch.wait(INTERVAL);
                    Some(at)
                };
                match next.filter(|_| since.elapsed() < FOLLOWED) {
                    Some(next) => at = next,
                    None => self.prefetch.done(set),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_back_when_the_guest_was_paused_again_is_wanted_next_time() {
        let prefetch = Prefetch::new(true);
        prefetch.pause(100);
        assert!(prefetch.is_paused() && prefetch.next(|| true).is_none());
        prefetch.resume(900);
        let set = prefetch.next(|| false).unwrap();
        assert_eq!(set, WorkingSet::new(100, 900));
        prefetch.pause(950);
        assert!(!prefetch.is_wanted(set), "it waits while the guest does");
        prefetch.resume(1200);
        let set = prefetch.next(|| false).unwrap();
        assert_eq!(set, WorkingSet::new(100, 1200));
        prefetch.done(set);
        assert!(!prefetch.is_wanted(set));
        prefetch.pause(1300);
        prefetch.resume(1300);
        assert!(prefetch.state().wanted.is_none(), "nothing went");
    }

    #[test]
    fn a_record_that_grows_is_another_one() {
        let prefetch = Prefetch::new(true);
        prefetch.want(WorkingSet::new(10, 20));
        let first = prefetch.next(|| false).unwrap();
        prefetch.want(WorkingSet::new(20, 30));
        prefetch.done(first);
        assert_eq!(prefetch.next(|| false), Some(WorkingSet::new(10, 30)));
        let off = Prefetch::new(false);
        off.want(WorkingSet::new(10, 20));
        assert!(off.state().wanted.is_none());
    }
}
