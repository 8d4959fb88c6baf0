//! What a guest's group is limited to.
//!
//! ```text
//!   allocation - its part of zram + what is charged beside anonymous memory + slack
//!
//!   wanted >= charged    set at once
//!   wanted <  charged    a step below what is charged: the kernel takes a step each time, while the VMM's
//!                        evictor, which is faster and knows better, gets there by itself
//! ```
//!
//! The allocation bounds anonymous memory, which the VMM counts. What the kernel charges besides (page
//! tables, stacks, sockets, pages of files) is measured, and not what the bound is about, up to what a VMM
//! has a use for.

use super::cgroup::Usage;

/// What a group may have above all that is counted: the kernel charges 64 pages ahead for each CPU that works
/// for it, and four do at once; an estimate.
const SLACK_BYTES: u64 = 1 << 20;
/// What a group may have for a while besides, when it met its limit: room for whoever is to make room.
const RELIEF_BYTES: u64 = 1 << 20;
/// Limits are set in multiples of this, so that they are not set all the time; and relief comes and goes by
/// it.
const STEP_BYTES: u64 = 256 << 10;
/// What the kernel is made to take at a time: some milliseconds of the thread that sets the limit.
const SQUEEZE_BYTES: u64 = 1 << 20;

/// Part of what is added to a limit for what is not counted, whatever the guest's size.
const UNCOUNTED_BYTES: u64 = 32 << 20;

/// What the limit of one guest may be above its allocation; set aside from the budget.
pub(super) const ABOVE_BYTES: u64 = SLACK_BYTES + RELIEF_BYTES;

/// What a VMM that can have so much of its own may have in memory and in swap together: without that, pages
/// that hardly compress could fill the device, whatever its limit in memory.
pub(super) fn all_bytes(usage: &Usage, most_bytes: u64) -> u64 {
    most_bytes + uncounted_bytes(usage, most_bytes) + ABOVE_BYTES
}

/// What is charged besides, as far as that is added to a limit: areas of 300 bytes a page and page tables
/// twice are less than an eighth of what they are for; the rest is for sockets and pages of files. An
/// estimate.
fn uncounted_bytes(usage: &Usage, most_bytes: u64) -> u64 {
    usage.charged_bytes.saturating_sub(usage.anonymous_bytes).min(most_bytes / 8 + UNCOUNTED_BYTES)
}

/// What is carried from one look at a group to the next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bound {
    relief_bytes: u64,
    hits_total: u64,
}

impl Bound {
    /// The limit that is due to a VMM that can have so much of its own, if it is another than the one in
    /// force.
    pub(super) fn next(
        &mut self,
        usage: &Usage,
        most_bytes: u64,
        allocation_bytes: u64,
        zram_bytes: u64,
    ) -> Option<u64> {
        let is_short = usage.waits || usage.hits_total > self.hits_total;
        self.hits_total = usage.hits_total;
        self.relief_bytes = match is_short {
            true => (self.relief_bytes + STEP_BYTES).min(RELIEF_BYTES),
            false => self.relief_bytes.saturating_sub(STEP_BYTES),
        };
        let uncounted_bytes = uncounted_bytes(usage, most_bytes);
        let counted_bytes = allocation_bytes.saturating_sub(zram_bytes);
        let wanted_bytes = counted_bytes + uncounted_bytes + SLACK_BYTES + self.relief_bytes;
        let due_bytes =
            wanted_bytes.max(usage.charged_bytes.saturating_sub(SQUEEZE_BYTES)).next_multiple_of(STEP_BYTES);
        (due_bytes != usage.limit_bytes).then_some(due_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const MOST: u64 = 128 * MIB;

    fn usage(charged: u64, anonymous: u64) -> Usage {
        Usage {
            charged_bytes: charged * MIB,
            anonymous_bytes: anonymous * MIB,
            limit_bytes: u64::MAX,
            ..Usage::default()
        }
    }

    #[test]
    fn the_limit_is_the_allocation_less_zram_and_more_what_nobody_counts() {
        let (mut bound, usage) = (Bound::default(), usage(70, 60));
        assert_eq!(bound.next(&usage, MOST, 100 * MIB, 20 * MIB), Some(91 * MIB));
        assert_eq!(bound.next(&Usage { limit_bytes: 91 * MIB, ..usage }, MOST, 100 * MIB, 20 * MIB), None);
        // Whatever somebody else has set.
        assert_eq!(bound.next(&Usage { limit_bytes: MIB, ..usage }, MOST, 100 * MIB, 20 * MIB), Some(91 * MIB));
    }

    #[test]
    fn what_is_not_counted_lifts_no_limit_without_end() {
        let due = |uncounted: u64| Bound::default().next(&usage(60 + uncounted, 60), MOST, 100 * MIB, 0).unwrap() / MIB;
        assert_eq!([10, 48, 100].map(due), [111, 149, 159]);
        assert_eq!(Bound::default().next(&usage(200, 60), MOST, 300 * MIB, 0), Some(349 * MIB));
        assert_eq!(all_bytes(&usage(200, 60), MOST), (128 + 48 + 2) * MIB);
    }

    #[test]
    fn a_group_above_its_allocation_is_squeezed_by_steps() {
        let mut bound = Bound::default();
        for charged in (60..=100).rev() {
            let due = bound.next(&usage(charged, charged), MOST, 50 * MIB, 0).unwrap();
            assert_eq!(due, (charged - 1) * MIB);
        }
        assert_eq!(bound.next(&usage(51, 51), MOST, 50 * MIB, 0), Some(51 * MIB));
    }

    #[test]
    fn relief_comes_while_the_limit_is_met_and_goes_again() {
        let (mut bound, mut usage) = (Bound::default(), usage(50, 50));
        let mut due = |hits_total, waits| {
            usage = Usage { hits_total, waits, ..usage };
            bound.next(&usage, MOST, 50 * MIB, 0).unwrap()
        };
        let settled = due(0, false);
        let reached: Vec<_> = (1..=6).map(|hit| due(hit, hit % 2 == 0) - settled).collect();
        assert_eq!(reached, [1, 2, 3, 4, 4, 4].map(|steps| steps * STEP_BYTES));
        let left: Vec<_> = (0..5).map(|_| due(6, false) - settled).collect();
        assert_eq!(left, [3, 2, 1, 0, 0].map(|steps| steps * STEP_BYTES));
        assert!(settled + RELIEF_BYTES <= 50 * MIB + ABOVE_BYTES);
    }
}
