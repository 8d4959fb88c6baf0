//! Page credits: the allocation as a count of pages that may still become private.
//!
//! ```text
//!   allocation + relief = overhead + pool + private pages + open pages + available credits
//! ```
//!
//! A credit is taken before a page becomes private and given back after it stopped being so; therefore
//! resident bytes never exceed the allocation. A shrinking allocation may drive the count below zero: then
//! nothing is handed out and the evictor works until it is positive again.
//!
//! *Relief* is what the kernel has swapped out, less what it keeps that in. It is measured, and shrinks by
//! itself as the guest brings pages back: so it, too, may drive the count below zero. Until that is measured
//! the kernel's limit on the VMM is what holds.

use wire::PAGE_BYTES;

use crate::sync::{AtomicI64, Ordering};

/// Credits only the evictor may take: the pool grows before the pages that fill it are gone. A batch of
/// `memory::hands::BATCH` pages, at worst five a slab of four pages, fills seven slabs, and may
/// begin one more.
pub const EVICTOR_RESERVE: i64 = 32;

/// The count. All orderings are relaxed: a credit guards an amount, not data; what it pays for is ordered by
/// the page's lock.
#[derive(Debug)]
pub struct Credits {
    available: AtomicI64,
    allocation_bytes: AtomicI64,
    overhead_bytes: AtomicI64,
    relief: AtomicI64,
}

impl Credits {
    /// All of `allocation_bytes` less `overhead_bytes`, as credits.
    pub fn new(allocation_bytes: u64, overhead_bytes: u64) -> Credits {
        let credits = Credits {
            available: AtomicI64::new(0),
            allocation_bytes: AtomicI64::new(0),
            overhead_bytes: AtomicI64::new(0),
            relief: AtomicI64::new(0),
        };
        credits.resize(allocation_bytes, overhead_bytes);
        credits
    }

    /// Changes the allocation and what of it is overhead. Called by one thread at a time.
    pub fn resize(&self, allocation_bytes: u64, overhead_bytes: u64) {
        let pages = |allocation: i64, overhead: i64| (allocation - overhead).div_euclid(PAGE_BYTES as i64);
        let allocation = i64::try_from(allocation_bytes).unwrap_or(i64::MAX);
        let overhead = i64::try_from(overhead_bytes).unwrap_or(i64::MAX);
        let old = pages(
            self.allocation_bytes.swap(allocation, Ordering::Relaxed),
            self.overhead_bytes.swap(overhead, Ordering::Relaxed),
        );
        self.available.fetch_add(pages(allocation, overhead) - old, Ordering::Relaxed);
    }

    /// Takes `count` credits, or none.
    pub fn take(&self, count: i64) -> bool {
        self.available
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |available| {
                (available >= count + EVICTOR_RESERVE).then(|| available - count)
            })
            .is_ok()
    }

    /// Takes as many credits as there are, at most `count`.
    pub fn take_up_to(&self, count: i64) -> i64 {
        let mut taken = 0;
        let _ = self.available.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |available| {
            taken = count.min(available - EVICTOR_RESERVE).max(0);
            Some(available - taken)
        });
        taken
    }

    /// Takes `count` credits whether they are there or not: for the pool's slabs, which save more than they
    /// cost.
    pub fn force(&self, count: i64) {
        self.available.fetch_sub(count, Ordering::Relaxed);
    }

    /// Whether the pool could take `count` credits, the evictor's reserve included, and the guest stay within
    /// its allocation.
    pub fn covers(&self, count: i64) -> bool {
        self.available.load(Ordering::Relaxed) >= count
    }

    /// The kernel keeps so many pages for us, net of what that costs.
    pub fn set_relief(&self, pages: i64) {
        let before = self.relief.swap(pages, Ordering::Relaxed);
        self.available.fetch_add(pages - before, Ordering::Relaxed);
    }

    /// As it was last measured.
    pub fn relief(&self) -> i64 {
        self.relief.load(Ordering::Relaxed)
    }

    /// Gives `count` credits back.
    pub fn give(&self, count: i64) {
        self.available.fetch_add(count, Ordering::Relaxed);
    }

    /// Credits that [`Credits::take`] could take now; negative while the guest is above its allocation.
    pub fn available(&self) -> i64 {
        self.available.load(Ordering::Relaxed) - EVICTOR_RESERVE
    }

    /// The allocation, bytes.
    pub fn allocation_bytes(&self) -> u64 {
        self.allocation_bytes.load(Ordering::Relaxed).max(0) as u64
    }

    /// The part of the allocation that is neither guest pages nor pool, bytes.
    pub fn overhead_bytes(&self) -> u64 {
        self.overhead_bytes.load(Ordering::Relaxed).max(0) as u64
    }

    /// What the guest may be using at this moment: its allocation, or more while it has not shrunk to it yet.
    pub fn committed_bytes(&self) -> u64 {
        let over = (-self.available.load(Ordering::Relaxed)).max(0) as u64;
        self.allocation_bytes() + over * PAGE_BYTES as u64
    }
}
