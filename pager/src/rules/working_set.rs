//! What a guest was using when it was last let be, for bringing it back in bulk.
//!
//! ```text
//!   pages evicted so far   0 ........ from ============ to ......... now
//!                                     paused            resumed
//! ```
//!
//! Two numbers are the whole record. An evicted page remembers how many had been evicted before it
//! ([`Left`]), so one that left between `from` and `to` was private at `from`: while a guest is paused
//! nothing comes back. It is exact to the unit of that memory, 1/512 of RAM, and holds until eight times all
//! of RAM have been evicted since. (A bitmap of private pages would say the same for a bit a page, and a walk
//! over the table at the worst moment.)

use crate::pages::table::Left;

/// Pages that were evicted between two moments, each said as the pages evicted before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkingSet {
    from: u64,
    to: u64,
}

impl WorkingSet {
    /// What left between `from` and `to` pages evicted.
    pub fn new(from: u64, to: u64) -> WorkingSet {
        WorkingSet { from, to }
    }

    /// Where it begins.
    pub fn from(self) -> u64 {
        self.from
    }

    /// Both, and what left in between.
    pub fn and(self, other: WorkingSet) -> WorkingSet {
        WorkingSet { from: self.from.min(other.from), to: self.to.max(other.to) }
    }

    /// Nothing was evicted.
    pub fn is_empty(self) -> bool {
        self.from >= self.to
    }

    /// Whether a page that left at `left` belongs to it; `now` is the same for this moment, `evictions` the
    /// pages evicted until then, `unit` how many count as one.
    pub fn contains(self, left: Left, now: Left, evictions: u64, unit: u64) -> bool {
        let at = (evictions / unit).checked_sub(left.until(now).evictions);
        at.is_some_and(|at| (self.from / unit..=self.to / unit).contains(&at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: u64 = 128;

    fn contains(set: WorkingSet, left_at: u64, now: u64) -> bool {
        let left = |evictions: u64| Left { era: 0, evictions: evictions / UNIT % 4096 };
        set.contains(left(left_at), left(now), now, UNIT)
    }

    #[test]
    fn what_left_in_between_belongs_to_it_and_nothing_else_does() {
        let set = WorkingSet::new(10_000, 60_000);
        for now in [60_000, 61_000, 400_000] {
            assert!([10_000, 30_000, 59_999].iter().all(|&at| contains(set, at, now)), "{now}");
            assert!(![0, 5_000, 9_000].iter().any(|&at| contains(set, at, now)), "{now}");
        }
        assert!(!contains(set, 60_500, 61_000));
    }

    #[test]
    fn what_left_at_the_very_beginning_is_not_mistaken_for_what_left_a_round_later() {
        let round = 4096 * UNIT;
        assert!(contains(WorkingSet::new(0, 100), 50, round - UNIT));
        assert!(!contains(WorkingSet::new(round - 1000, round), 50, round - UNIT));
    }

    #[test]
    fn two_records_are_one_over_both() {
        let both = WorkingSet::new(10, 20).and(WorkingSet::new(30, 40));
        assert_eq!(both, WorkingSet::new(10, 40));
        assert!(!both.is_empty() && WorkingSet::new(7, 7).is_empty());
    }
}
