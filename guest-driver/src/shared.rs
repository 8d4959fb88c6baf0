//! What the vCPUs of a guest share: the machine, the pages, and a wish for more of them.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::allocator::Allocator;
use crate::lock::Spinlock;
use crate::machine::Machine;
use crate::memory::Ram;

/// What vCPUs share.
#[derive(Debug)]
pub(crate) struct Shared<M> {
    machine: M,
    allocator: Spinlock<Option<Allocator>>,
    relief_wish: AtomicBool,
}

impl<M: Machine> Shared<M> {
    /// Of a guest that has not started: there is no allocator yet.
    pub(crate) const fn new(machine: M) -> Self {
        Shared { machine, allocator: Spinlock::new(None), relief_wish: AtomicBool::new(false) }
    }

    pub(crate) fn machine(&self) -> &M {
        &self.machine
    }

    pub(crate) fn ram(&self) -> Ram {
        // SAFETY: that RAM is there, as long as the machine, is what `Machine::ram` and the boot information
        // promise.
        unsafe { Ram::new(self.machine.ram(), self.machine.boot().ram_bytes) }
    }

    pub(crate) fn allocator(&self) -> &Spinlock<Option<Allocator>> {
        &self.allocator
    }

    /// Says that an allocation failed that ought not to.
    pub(crate) fn wish_relief(&self) {
        self.relief_wish.store(true, Relaxed);
    }

    /// Whether somebody said so since the last time.
    pub(crate) fn take_relief_wish(&self) -> bool {
        self.relief_wish.load(Relaxed) && self.relief_wish.swap(false, Relaxed)
    }
}
