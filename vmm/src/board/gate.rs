//! Whether the vCPUs may run: one order for all of them, and a count of those that have not obeyed yet.
//!
//! ```text
//!            Pause <---> Run
//!               \         /
//!                v       v
//!                  Kill            (for good)
//! ```
//!
//! Each vCPU thread calls [`Gate::pass`] wherever it can stop: before every entry into the guest (KVM), at
//! every register access and look at its control words (hosted). As long as the order is `Run`, that is one
//! load. A thread *inside* is one that may touch guest memory as a vCPU; it leaves when it waits here, and
//! when it ends.

use std::{
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use crate::sync;

/// What all vCPUs are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Order {
    /// Wait at the gate.
    Pause = 0,
    /// Go on.
    Run = 1,
    /// End.
    Kill = 2,
}

/// The answer of a gate that will not open again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killed;

#[derive(Default)]
struct Crowd {
    inside: usize,
    threads: Vec<Thread>,
}

/// See the module's description. Closed at first.
pub struct Gate {
    /// An [`Order`]; written under the lock of `crowd`.
    order: AtomicU32,
    crowd: Mutex<Crowd>,
    changed: Condvar,
}

impl Default for Gate {
    fn default() -> Self {
        Self { order: AtomicU32::new(Order::Pause as u32), crowd: Mutex::default(), changed: Condvar::new() }
    }
}

impl Gate {
    /// Makes the calling thread one of those that pass here; it is inside until the return value is dropped.
    pub fn enter(&self) -> Inside<'_> {
        let mut crowd = self.lock();
        crowd.inside += 1;
        crowd.threads.push(thread::current());
        Inside(self)
    }

    /// Waits while the order is to pause. Only for threads that are inside.
    pub fn pass(&self) -> Result<(), Killed> {
        if self.is_open() {
            return Ok(());
        }
        let mut crowd = self.lock();
        crowd.inside -= 1;
        self.changed.notify_all();
        while self.order() == Order::Pause {
            crowd = self.changed.wait(crowd).unwrap_or_else(PoisonError::into_inner);
        }
        crowd.inside += 1;
        if self.order() == Order::Kill { Err(Killed) } else { Ok(()) }
    }

    /// The order is to run.
    pub fn is_open(&self) -> bool {
        self.order() == Order::Run
    }

    /// Gives an order; none is heard after `Kill`. Threads that wait, here or parked, see it at once.
    pub fn set(&self, order: Order) {
        let crowd = self.lock();
        if self.order() != Order::Kill {
            // Release: a thread let through sees what was done to guest memory while it waited.
            self.order.store(order as u32, Ordering::Release);
        }
        self.changed.notify_all();
        crowd.threads.iter().for_each(Thread::unpark);
    }

    /// Ends the waits of [`Gate::wait_for`] that go on, or the next one of each thread.
    pub fn wake(&self) {
        self.lock().threads.iter().for_each(Thread::unpark);
    }

    /// Waits until the order is not to run, `until` holds, [`Gate::wake`] was called, or `timeout` has
    /// passed. May return early.
    pub fn wait_for(&self, until: impl Fn() -> bool, timeout: Duration) {
        // A wake between the look and the wait is not lost: it makes the next `park` return at once.
        if self.is_open() && !until() {
            thread::park_timeout(timeout);
        }
    }

    /// Nobody is inside.
    pub fn is_empty(&self) -> bool {
        self.lock().inside == 0
    }

    /// Waits until nobody is inside; otherwise, how many still are after `timeout`.
    pub fn wait_until_empty(&self, timeout: Duration) -> Result<(), usize> {
        let crowd = self.wait_while(timeout, |crowd| crowd.inside > 0);
        if crowd.inside == 0 { Ok(()) } else { Err(crowd.inside) }
    }

    /// Waits until all that ever entered have left for good; whether they have after `timeout`.
    pub fn wait_until_deserted(&self, timeout: Duration) -> bool {
        self.wait_while(timeout, |crowd| !crowd.threads.is_empty()).threads.is_empty()
    }

    fn wait_while(&self, timeout: Duration, condition: impl Fn(&Crowd) -> bool) -> MutexGuard<'_, Crowd> {
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, |crowd| condition(crowd));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn order(&self) -> Order {
        // Acquire: pairs with the release in `set`.
        match self.order.load(Ordering::Acquire) {
            0 => Order::Pause,
            1 => Order::Run,
            _ => Order::Kill,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Crowd> {
        sync::lock(&self.crowd)
    }
}

/// The calling thread's stay; see [`Gate::enter`].
pub struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut crowd = self.0.lock();
        crowd.inside -= 1;
        let this = thread::current().id();
        crowd.threads.retain(|thread| thread.id() != this);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::atomic::AtomicU64, time::Instant};

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn nobody_moves_while_paused_and_everybody_ends_when_killed() {
        let (gate, steps) = (Gate::default(), AtomicU64::new(0));
        thread::scope(|scope| {
            let runners: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let _inside = gate.enter();
                        while gate.pass().is_ok() {
                            steps.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            for _ in 0..100 {
                gate.set(Order::Run);
                let before = steps.load(Ordering::Relaxed);
                while steps.load(Ordering::Relaxed) == before {
                    thread::yield_now();
                }
                gate.set(Order::Pause);
                gate.wait_until_empty(LONG).unwrap();
                let paused_at = steps.load(Ordering::Relaxed);
                thread::yield_now();
                assert_eq!(steps.load(Ordering::Relaxed), paused_at);
            }
            gate.set(Order::Kill);
            gate.set(Order::Run);
            assert!(gate.wait_until_deserted(LONG));
            runners.into_iter().for_each(|runner| runner.join().unwrap());
        });
        assert_eq!(gate.wait_until_empty(LONG), Ok(()));
    }

    #[test]
    fn a_thread_that_does_not_pass_is_counted_when_the_wait_is_over() {
        let gate = Gate::default();
        let _inside = gate.enter();
        assert_eq!(gate.wait_until_empty(Duration::from_millis(1)), Err(1));
        assert!(!gate.wait_until_deserted(Duration::from_millis(1)));
    }

    #[test]
    fn a_wake_before_the_wait_ends_it() {
        let gate = Gate::default();
        let _inside = gate.enter();
        gate.set(Order::Run);
        gate.wake();
        let start = Instant::now();
        gate.wait_for(|| false, LONG);
        assert!(start.elapsed() < LONG);
    }
}
