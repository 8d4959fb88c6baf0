//! The kernel's own swap as a tier: whether it takes pages, and what they cost there.
//!
//! It is meant for a compressed device in memory (zram), with room and a price of its own; the host says
//! whether there is one, and what a page in it costs.

use control::{KERNEL_PAGE_PRICE_UNMEASURED, WHOLE_PAGE_PRICE};

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// For how long the tier is left alone after it took hardly anything, ms.
const SUSPENDED_MS: u64 = 1_000;
/// Pages to judge it by.
const TRIAL_PAGES: u32 = 128;
/// It works while it takes at least one of so many.
const TAKEN_DIVISOR: u32 = 8;

/// The kernel's swap.
#[derive(Debug)]
pub struct KernelTier {
    exists: bool,
    /// A page's price, in parts of [`WHOLE_PAGE_PRICE`].
    price: AtomicU32,
    suspended_until_ms: AtomicU64,
    /// Pages lent, and those of them that went, since it was last judged.
    lent: AtomicU32,
    gone: AtomicU32,
}

impl KernelTier {
    /// One, or none.
    pub fn new(exists: bool) -> KernelTier {
        KernelTier {
            exists,
            price: AtomicU32::new(KERNEL_PAGE_PRICE_UNMEASURED.into()),
            suspended_until_ms: AtomicU64::new(0),
            lent: AtomicU32::new(0),
            gone: AtomicU32::new(0),
        }
    }

    /// Whether there is one at all.
    pub fn exists(&self) -> bool {
        self.exists
    }

    /// Whether it takes pages at this moment.
    pub fn is_usable(&self, now_ms: u64) -> bool {
        self.exists() && now_ms >= self.suspended_until_ms.load(Ordering::Relaxed)
    }

    /// What a page in it costs from now on, in parts of [`WHOLE_PAGE_PRICE`]; more than a whole page is no
    /// loss to us.
    pub fn set_price(&self, price: u16) {
        self.price.store(price.min(WHOLE_PAGE_PRICE).into(), Ordering::Relaxed);
    }

    /// Credits that so many swapped out pages are worth.
    pub fn relief(&self, pages: i64) -> i64 {
        let whole = i64::from(WHOLE_PAGE_PRICE);
        (pages * (whole - i64::from(self.price.load(Ordering::Relaxed))) + whole / 2) / whole
    }

    /// Of so many pages that were lent, so many are gone. A device that is full takes none: then it is left
    /// alone for a while.
    pub fn judge(&self, lent: u32, gone: u32, now_ms: u64) {
        let lent = self.lent.fetch_add(lent, Ordering::Relaxed) + lent;
        let gone = self.gone.fetch_add(gone, Ordering::Relaxed) + gone;
        if lent < TRIAL_PAGES {
            return;
        }
        if gone < lent / TAKEN_DIVISOR {
            self.suspended_until_ms.store(now_ms + SUSPENDED_MS, Ordering::Relaxed);
        }
        self.lent.store(0, Ordering::Relaxed);
        self.gone.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::run_once;

    #[test]
    fn a_device_that_takes_nothing_is_left_alone_and_tried_again() {
        run_once(|| {
            let tier = KernelTier::new(true);
            (0..4).for_each(|_| tier.judge(32, 30, 10));
            assert!(tier.is_usable(10));
            (0..4).for_each(|_| tier.judge(32, 1, 10));
            assert!(!tier.is_usable(10) && tier.is_usable(10 + SUSPENDED_MS));
        });
    }

    #[test]
    fn a_price_makes_no_tier_where_there_is_none() {
        run_once(|| {
            let tier = KernelTier::new(false);
            tier.set_price(64);
            assert!(!tier.exists() && !tier.is_usable(0));
        });
    }

    #[test]
    fn what_a_page_wins_is_what_it_does_not_cost() {
        run_once(|| {
            let tier = KernelTier::new(true);
            tier.set_price(64);
            assert_eq!(tier.relief(100), 75);
            tier.set_price(256);
            assert_eq!(tier.relief(100), 0);
        });
    }
}
