//! What is to come back in bulk, and when: what the prefetch thread works from.
//!
//! ```text
//!   pause ------> paused_at: evictions until then          anything under way waits
//!   resume -----> wanted: what was evicted meanwhile
//!   growth -----> wanted: what was evicted last            until it is done, or is not wanted any more
//! ```

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use control::sync;

use crate::rules::working_set::WorkingSet;

/// What is to be brought back.
pub(super) struct Wanted {
    enabled: bool,
    state: Mutex<Schedule>,
    changed: Condvar,
}

#[derive(Default)]
struct Schedule {
    /// Pages evicted until the guest was paused, while it is.
    paused_at: Option<u64>,
    wanted: Option<WorkingSet>,
}

impl Wanted {
    /// Nothing, and nothing ever unless `enabled`.
    pub fn new(enabled: bool) -> Wanted {
        Wanted { enabled, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, Schedule> {
        sync::lock(&self.state)
    }

    /// The guest is paused.
    pub fn is_paused(&self) -> bool {
        self.state().paused_at.is_some()
    }

    pub fn pause(&self, evictions: u64) {
        let mut state = self.state();
        // What was not back yet when it was paused again belongs to what it needs next time.
        let from = state.wanted.take().map_or(evictions, WorkingSet::from);
        state.paused_at.get_or_insert(from);
    }

    pub fn resume(&self, evictions: u64) {
        let from = self.state().paused_at.take();
        from.into_iter().for_each(|from| self.want(WorkingSet::new(from, evictions)));
        // What was wanted before the pause, or because of growth during it, waits for this moment, too.
        self.changed.notify_all();
    }

    pub fn want(&self, set: WorkingSet) {
        if self.enabled && !set.is_empty() {
            let mut state = self.state();
            state.wanted = Some(state.wanted.map_or(set, |wanted| wanted.and(set)));
            drop(state);
            self.changed.notify_all();
        }
    }

    /// What to bring back, once there is something; none when `stopping` says so.
    pub fn next(&self, stopping: impl Fn() -> bool) -> Option<WorkingSet> {
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
    pub fn is_wanted(&self, set: WorkingSet) -> bool {
        let state = self.state();
        state.wanted == Some(set) && state.paused_at.is_none()
    }

    /// All of it is back, or is not worth the trouble any more.
    pub fn done(&self, set: WorkingSet) {
        let mut state = self.state();
        state.wanted = state.wanted.filter(|&wanted| wanted != set);
    }

    pub fn wait(&self, time: Duration) {
        drop(self.changed.wait_timeout(self.state(), time));
    }

    /// Has the thread look at `stopping` again.
    pub fn wake(&self) {
        // Whoever has looked, and not slept yet, holds the lock.
        drop(self.state());
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_back_when_the_guest_was_paused_again_is_wanted_next_time() {
        let wanted = Wanted::new(true);
        wanted.pause(100);
        assert!(wanted.is_paused() && wanted.next(|| true).is_none());
        wanted.resume(900);
        let set = wanted.next(|| false).unwrap();
        assert_eq!(set, WorkingSet::new(100, 900));
        wanted.pause(950);
        assert!(!wanted.is_wanted(set), "it waits while the guest does");
        wanted.resume(1200);
        let set = wanted.next(|| false).unwrap();
        assert_eq!(set, WorkingSet::new(100, 1200));
        wanted.done(set);
        assert!(!wanted.is_wanted(set));
        wanted.pause(1300);
        wanted.resume(1300);
        assert!(wanted.state().wanted.is_none(), "nothing went");
    }

    #[test]
    fn a_record_that_grows_is_another_one() {
        let wanted = Wanted::new(true);
        wanted.want(WorkingSet::new(10, 20));
        let first = wanted.next(|| false).unwrap();
        wanted.want(WorkingSet::new(20, 30));
        wanted.done(first);
        assert_eq!(wanted.next(|| false), Some(WorkingSet::new(10, 30)));
        let off = Wanted::new(false);
        off.want(WorkingSet::new(10, 20));
        assert!(off.state().wanted.is_none());
    }
}
