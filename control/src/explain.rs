//! Why a guest's pages are not merged: each page that is neither shared nor zero has exactly one reason.
//!
//! Where a page is (compressed, swapped, given up) is of this moment; why a private page is private is what
//! the scanner found at its last visit, brought to the number of pages that are private now: what it has not
//! come to yet is `not_visited`, and what has left since is taken off in proportion.

use crate::Dedup;
use crate::status::GuestStatus;

/// Reasons, and what each means; in the order of [`unmerged`].
pub const REASONS: [(&str, &str); 12] = [
    ("unique", "its content was found nowhere else in its domain"),
    ("volatile", "its content changed between the last two visits"),
    ("broken", "it was merged and written to: it is tried again later and later"),
    ("vma_budget", "its equal lies elsewhere, and another alias would exceed the budget of address-space areas"),
    ("store_budget", "it has an equal, and the frame store has no room"),
    ("not_visited", "the scanner has not seen it twice yet"),
    ("zero_pages_only", "its domain shares nothing"),
    ("dedup_off", "nothing is looked for"),
    ("compressed", "it is cold, and in the compressed pool"),
    ("swapped", "it is in the swap file"),
    ("clean", "the image its guest started from has it"),
    ("ballooned", "the guest gave it up"),
];

/// Pages by reason. They sum to the pages that are neither shared nor zero.
pub fn unmerged(status: &GuestStatus) -> [(&'static str, u64); REASONS.len()] {
    let (pages, found) = (&status.pager.pages, &status.dedup.unmerged);
    let private = match status.dedup.mode {
        Dedup::Off => [0, 0, 0, 0, 0, 0, 0, pages.private],
        Dedup::ZeroPagesOnly => [0, 0, 0, 0, 0, 0, pages.private, 0],
        Dedup::On => {
            let seen = [found.unique, found.volatile, found.broken, found.vma_budget, found.store_budget];
            let [unique, volatile, broken, vma_budget, store_budget] = fit(seen, pages.private);
            let known: u64 = unique + volatile + broken + vma_budget + store_budget;
            [unique, volatile, broken, vma_budget, store_budget, pages.private - known, 0, 0]
        }
    };
    let elsewhere = [pages.compressed, pages.swapped, pages.clean, pages.ballooned];
    let mut counts = private.into_iter().chain(elsewhere);
    REASONS.map(|(reason, _)| (reason, counts.next().unwrap_or(0)))
}

/// The counts, made smaller in proportion where they sum to more than `most`: to exactly that, then.
fn fit<const N: usize>(counts: [u64; N], most: u64) -> [u64; N] {
    let sum: u128 = counts.iter().map(|&count| u128::from(count)).sum();
    if sum <= u128::from(most) {
        return counts;
    }
    let mut before = 0u128;
    counts.map(|count| {
        // Differences of a rounded running sum: they add up, whatever is lost in rounding.
        let start = before * u128::from(most) / sum;
        before += u128::from(count);
        (before * u128::from(most) / sum - start) as u64
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{PageCounts, Unmerged};
    use proptest::prelude::*;

    fn status(mode: Dedup, pages: PageCounts, unmerged: Unmerged) -> GuestStatus {
        let mut status = GuestStatus::default();
        (status.pager.pages, status.dedup.mode, status.dedup.unmerged) = (pages, mode, unmerged);
        status
    }

    fn of(status: &GuestStatus, reason: &str) -> u64 {
        unmerged(status).into_iter().find(|(name, _)| *name == reason).map_or(0, |(_, pages)| pages)
    }

    #[test]
    fn what_the_scanner_has_not_come_to_is_not_visited() {
        let pages = PageCounts { private: 100, compressed: 7, ..PageCounts::default() };
        let found = Unmerged { unique: 60, broken: 10, ..Unmerged::default() };
        let status = status(Dedup::On, pages, found);
        assert_eq!(
            ["unique", "broken", "not_visited", "compressed"].map(|reason| of(&status, reason)),
            [60, 10, 30, 7]
        );
    }

    #[test]
    fn without_sharing_every_private_page_has_one_reason() {
        let pages = PageCounts { private: 100, ..PageCounts::default() };
        for (mode, reason) in [(Dedup::Off, "dedup_off"), (Dedup::ZeroPagesOnly, "zero_pages_only")] {
            let found = Unmerged { unique: 60, ..Unmerged::default() };
            assert_eq!(of(&status(mode, pages, found), reason), 100);
        }
    }

    proptest! {
        #[test]
        fn reasons_sum_to_the_pages_that_are_neither_shared_nor_zero(
            private in 0..1u64 << 40, others in prop::array::uniform6(0..1u64 << 40), found in prop::array::uniform5(0..1u64 << 40),
        ) {
            let [shared, zero, ballooned, compressed, swapped, clean] = others;
            let [volatile, unique, broken, vma_budget, store_budget] = found;
            let pages = PageCounts { private, shared, zero, ballooned, compressed, swapped, clean };
            let found = Unmerged { volatile, unique, broken, vma_budget, store_budget };
            for mode in [Dedup::Off, Dedup::ZeroPagesOnly, Dedup::On] {
                let sum: u64 = unmerged(&status(mode, pages, found)).iter().map(|(_, pages)| pages).sum();
                prop_assert_eq!(sum, private + ballooned + compressed + swapped + clean);
            }
        }
    }
}
