//! The kernel's own swap as a tier: whether it takes pages, and what they cost there.
//!
//! It is meant for a compressed device in memory (zram), with room and a price of its own; the host says
//! whether there is one, and what a page in it costs.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// What a page is taken to cost until the host has said: half.
const PRICE_UNKNOWN: u32 = 128;
/// For how long the tier is left alone after it took hardly anything, ms.
const SUSPENDED_MS: u64 = 1_000;
/// Pages to judge it by.
const TRIAL_PAGES: u32 = 128;
/// It works while it takes at least one of so many.
const TAKEN_DIVISOR: u32 = 8;

/// The kernel's swap.
#[derive(Debug)]
pub struct KernelTier {
    /// A page's price, in 256ths of a page; 0 where there is no tier.
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
            price: AtomicU32::new(if exists { PRICE_UNKNOWN } else { 0 }),
            suspended_until_ms: AtomicU64::new(0),
            lent: AtomicU32::new(0),
            gone: AtomicU32::new(0),
        }
    }

    /// Whether there is one at all.
    pub fn exists(&self) -> bool {
        self.price.load(Ordering::Relaxed) > 0
    }

    /// Whether it takes pages at this moment.
    pub fn is_usable(&self, now_ms: u64) -> bool {
        self.exists() && now_ms >= self.suspended_until_ms.load(Ordering::Relaxed)
    }

    /// What a page in it costs from now on, in 256ths of a page; 0: there is none any more.
    pub fn set_price(&self, price: u32) {
        self.price.store(price.min(256), Ordering::Relaxed);
    }

    /// Credits that so many swapped out pages are worth.
    pub fn relief(&self, pages: i64) -> i64 {
        let price = match self.price.load(Ordering::Relaxed) {
            0 => PRICE_UNKNOWN,
            price => price,
        };
        (pages * i64::from(256 - price) + 128) / 256
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

    #[test]
    fn a_device_that_takes_nothing_is_left_alone_and_tried_again() {
        shuttle::check_random(
            || {
                let tier = KernelTier::new(true);
                (0..4).for_each(|_| tier.judge(32, 30, 10));
                assert!(tier.is_usable(10));
                (0..4).for_each(|_| tier.judge(32, 1, 10));
                assert!(!tier.is_usable(10) && tier.is_usable(10 + SUSPENDED_MS));
                assert!(!KernelTier::new(false).is_usable(0));
            },
            1,
        );
    }

    #[test]
    fn what_a_page_wins_is_what_it_does_not_cost() {
        shuttle::check_random(
            || {
                let tier = KernelTier::new(true);
                tier.set_price(64);
                assert_eq!(tier.relief(100), 75);
                tier.set_price(256);
                assert_eq!(tier.relief(100), 0);
            },
            1,
        );
    }
}
