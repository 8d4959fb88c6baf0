//! A spinlock: the bare machine has nothing to sleep on.
//!
//! **Invariant:** never held over an MMIO access or the doorbell, so a holder waits for page faults at most.

use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};

/// A value that one vCPU at a time may use.
#[derive(Debug)]
pub struct Spinlock<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through a `Guard` only, of which there is one at a time.
unsafe impl<T: Send> Sync for Spinlock<T> {}

impl<T> Spinlock<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        Spinlock { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock.
    pub fn lock(&self) -> Guard<'_, T> {
        // Acquire pairs with the Release in `Guard::drop`: what the last holder wrote is seen.
        while self.taken.compare_exchange_weak(false, true, Acquire, Relaxed).is_err() {
            while self.taken.load(Relaxed) {
                spin_loop();
            }
        }
        Guard { lock: self }
    }
}

/// The right to use the value; given back when dropped.
#[derive(Debug)]
pub struct Guard<'a, T> {
    lock: &'a Spinlock<T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one, so nobody writes meanwhile.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard is the only one, and borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.lock.taken.store(false, Release);
    }
}
