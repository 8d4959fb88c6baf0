//! Faults that wait for the disk: put in by whoever serves faults, taken out by the threads that may wait.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use control::sync;

use crate::{
    memory::waiting::{WAITING_MAX, Waiting},
    pages::SwapIn,
};

/// Pages to be read, and those being read.
pub(crate) struct Reads {
    state: Mutex<ReadQueue>,
    posted: Condvar,
}

struct ReadQueue {
    queue: VecDeque<(SwapIn, Waiting)>,
    under_way: Vec<Waiting>,
}

impl Default for Reads {
    fn default() -> Reads {
        // Never more than that: the fault thread, which posts, allocates nothing.
        let state =
            ReadQueue { queue: VecDeque::with_capacity(WAITING_MAX), under_way: Vec::with_capacity(WAITING_MAX) };
        Reads { state: Mutex::new(state), posted: Condvar::new() }
    }
}

impl Reads {
    fn state(&self) -> MutexGuard<'_, ReadQueue> {
        sync::lock(&self.state)
    }

    /// Has a page read for `waiting`; gives it back when too many are waited for.
    pub fn post(&self, page: SwapIn, waiting: Waiting) -> Result<(), SwapIn> {
        let mut state = self.state();
        if state.queue.len() + state.under_way.len() >= WAITING_MAX {
            return Err(page);
        }
        state.queue.push_back((page, waiting));
        drop(state);
        self.posted.notify_one();
        Ok(())
    }

    /// The next page to read, once there is one; none when `stopping` says so.
    pub fn next(&self, stopping: impl Fn() -> bool) -> Option<(SwapIn, Waiting)> {
        let mut state = self.state();
        loop {
            if stopping() {
                return None;
            }
            if let Some((page, waiting)) = state.queue.pop_front() {
                state.under_way.push(waiting);
                return Some((page, waiting));
            }
            state = self.posted.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The page that `waiting` waited for is back.
    pub fn done(&self, waiting: Waiting) {
        self.state().under_way.retain(|other| other.gfn != waiting.gfn);
    }

    /// Has every thread in [`Reads::next`] look at `stopping` again.
    pub fn wake_all(&self) {
        // Whoever has looked, and not slept yet, holds the lock.
        drop(self.state());
        self.posted.notify_all();
    }

    /// Adds up `time` over all that wait for the disk.
    pub fn sum(&self, time: impl Fn(&Waiting) -> Duration) -> Duration {
        let state = self.state();
        state.queue.iter().map(|(_, waiting)| waiting).chain(&state.under_way).map(time).sum()
    }
}
