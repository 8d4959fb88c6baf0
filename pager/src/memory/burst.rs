//! Faults that came at once, for as many fault threads as a guest has vCPUs.
//!
//! ```text
//!   userfaultfd --> the fault thread that reads --keeps the first--> serves it
//!                            |                                         ^
//!                            +--the others--> Burst --> idle ones      | takes what is left, reads again
//! ```
//!
//! One thread reads: were all to wait for events, each fault would wake all of them. The others sleep until
//! two faults come within the time that one takes, so that a guest with one busy vCPU never wakes them.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use control::sync;

use crate::{memory::waiting::WAITING_MAX, sys::FaultEvent};

/// Faults that nobody serves yet.
pub struct Burst {
    events: Mutex<VecDeque<FaultEvent>>,
    more: Condvar,
}

impl Default for Burst {
    fn default() -> Burst {
        Burst { events: Mutex::new(VecDeque::with_capacity(WAITING_MAX)), more: Condvar::new() }
    }
}

impl Burst {
    fn events(&self) -> MutexGuard<'_, VecDeque<FaultEvent>> {
        sync::lock(&self.events)
    }

    /// Leaves these to whoever has time.
    pub fn put(&self, events: impl ExactSizeIterator<Item = FaultEvent>) {
        let count = events.len();
        self.events().extend(events);
        (0..count).for_each(|_| self.more.notify_one());
    }

    /// The oldest, if there is one.
    pub fn take(&self) -> Option<FaultEvent> {
        self.events().pop_front()
    }

    /// The oldest, as soon as there is one; none once it is `over`, which [`Burst::wake_all`] has looked at.
    pub fn wait(&self, over: impl Fn() -> bool) -> Option<FaultEvent> {
        let events = self.more.wait_while(self.events(), |events| events.is_empty() && !over());
        events.unwrap_or_else(PoisonError::into_inner).pop_front().filter(|_| !over())
    }

    /// It may be over.
    pub fn wake_all(&self) {
        // Taken, so that nobody is between the look and the sleep.
        let _events = self.events();
        self.more.notify_all();
    }
}
