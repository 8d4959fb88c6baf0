//! What a guest's group is limited to.
//!
//! ```text
//!   allocation - its part of zram + what is charged beside anonymous memory + slack
//!
//!   wanted >= charged    set at once
//!   wanted <  charged    a step below what is charged: the kernel takes a step each time, while the VMM's
//!                        evictor, which is faster and knows better, gets there by itself
//!   threads wait, and there is no more relief    the same: all that could make room may be waiting for it
//! ```
//!
//! The allocation bounds anonymous memory, which the VMM counts. What the kernel charges besides (page
//! tables, stacks, sockets, pages of files) is measured, and not what the bound is about, up to what a VMM
//! has a use for.

use std::{num::NonZero, sync::LazyLock, thread};

use super::cgroup::Usage;

/// What the kernel charges ahead for each CPU that works for a group (`MEMCG_CHARGE_BATCH` pages), ...
const CHARGED_AHEAD_BYTES: u64 = 64 * 4096;
/// ... of which so many do at once at most; an estimate.
const CPUS_MAX: u64 = 4;
/// What a group may have for a while besides, when it met its limit: room for whoever is to make room.
const RELIEF_BYTES: u64 = 1 << 20;
/// Groups that may have it at once, all of it.
const RELIEVED_GROUPS: u64 = 8;
/// Limits are set in multiples of this, so that they are not set all the time; and relief comes and goes by
/// it.
const STEP_BYTES: u64 = 256 << 10;
/// What the kernel is made to take at a time: some milliseconds of the thread that sets the limit.
const SQUEEZE_BYTES: u64 = 1 << 20;

/// Part of what is added to a limit for what is not counted, whatever the guest's size.
const UNCOUNTED_BYTES: u64 = 32 << 20;

/// What a group may have above all that is counted.
fn slack_bytes() -> u64 {
    // Finding out takes as long as looking at a group.
    static CPUS: LazyLock<u64> = LazyLock::new(|| thread::available_parallelism().map_or(1, NonZero::get) as u64);
    CPUS_MAX.min(*CPUS) * CHARGED_AHEAD_BYTES
}

/// What the limits of so many guests may be above their allocations, all together; set aside from the budget.
pub(super) fn above_bytes(guests: usize) -> u64 {
    guests as u64 * slack_bytes() + relief_bytes(guests)
}

/// Relief of so many guests, all together.
fn relief_bytes(guests: usize) -> u64 {
    RELIEVED_GROUPS.min(guests as u64) * RELIEF_BYTES
}

/// What a VMM that can have so much of its own may have in memory and in swap together: without that, pages
/// that hardly compress could fill the device, whatever its limit in memory.
pub(super) fn all_bytes(usage: &Usage, most_bytes: u64) -> u64 {
    most_bytes + uncounted_bytes(usage, most_bytes) + above_bytes(1)
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

/// What a guest may have, bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// Of its own, here and swapped out, whatever it is allocated.
    pub(super) most_bytes: u64,
    pub(super) allocation_bytes: u64,
    /// Its part of zram.
    pub(super) zram_bytes: u64,
}

impl Bound {
    /// Relief that so many guests, with these bounds, have left to share.
    pub(super) fn relief_left_bytes<'a>(guests: usize, bounds: impl Iterator<Item = &'a Bound>) -> u64 {
        relief_bytes(guests).saturating_sub(bounds.map(|bound| bound.relief_bytes).sum())
    }

    /// Nobody is in the group: it needs no relief.
    pub(super) fn rest(&mut self) {
        self.relief_bytes = 0;
    }

    /// The limit that is due, if it is another than the one in force. Relief is taken from what is left of
    /// it, and given back.
    pub(super) fn next(&mut self, usage: &Usage, due: Due, relief_left_bytes: &mut u64) -> Option<u64> {
        let is_short = usage.waits || usage.hits_total > self.hits_total;
        self.hits_total = usage.hits_total;
        let is_relieved = match is_short {
            true => self.take_relief(relief_left_bytes),
            false => {
                let back_bytes = self.relief_bytes.min(STEP_BYTES);
                (self.relief_bytes, *relief_left_bytes) =
                    (self.relief_bytes - back_bytes, *relief_left_bytes + back_bytes);
                true
            }
        };
        let squeezed_bytes = usage.charged_bytes.saturating_sub(SQUEEZE_BYTES);
        let uncounted_bytes = uncounted_bytes(usage, due.most_bytes);
        let counted_bytes = due.allocation_bytes.saturating_sub(due.zram_bytes);
        let wanted_bytes = counted_bytes + uncounted_bytes + slack_bytes() + self.relief_bytes;
        let is_stuck = usage.waits && !is_relieved;
        let limit_bytes = if is_stuck { squeezed_bytes } else { wanted_bytes.max(squeezed_bytes) };
        let limit_bytes = limit_bytes.next_multiple_of(STEP_BYTES);
        (limit_bytes != usage.limit_bytes).then_some(limit_bytes)
    }

    /// Whether there was relief to be had.
    fn take_relief(&mut self, left_bytes: &mut u64) -> bool {
        let taken_bytes = STEP_BYTES.min(RELIEF_BYTES - self.relief_bytes).min(*left_bytes);
        (self.relief_bytes, *left_bytes) = (self.relief_bytes + taken_bytes, *left_bytes - taken_bytes);
        taken_bytes > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const MOST: u64 = 128 * MIB;

    fn due(allocation: u64, zram: u64) -> Due {
        Due { most_bytes: MOST, allocation_bytes: allocation * MIB, zram_bytes: zram * MIB }
    }

    /// The next limit less slack, MiB, with plenty of relief.
    fn next(bound: &mut Bound, usage: &Usage, due: Due) -> Option<u64> {
        bound.next(usage, due, &mut RELIEF_BYTES.clone()).map(|limit| (limit - slack_bytes()) / MIB)
    }

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
        let (mut bound, usage, due) = (Bound::default(), usage(70, 60), due(100, 20));
        let limit_bytes = 90 * MIB + slack_bytes();
        assert_eq!(next(&mut bound, &usage, due), Some(90));
        assert_eq!(next(&mut bound, &Usage { limit_bytes, ..usage }, due), None);
        // Whatever somebody else has set.
        assert_eq!(next(&mut bound, &Usage { limit_bytes: MIB, ..usage }, due), Some(90));
    }

    #[test]
    fn what_is_not_counted_lifts_no_limit_without_end() {
        let limit = |uncounted: u64| next(&mut Bound::default(), &usage(60 + uncounted, 60), due(100, 0)).unwrap();
        assert_eq!([10, 48, 100].map(limit), [110, 148, 158]);
        assert_eq!(next(&mut Bound::default(), &usage(200, 60), due(300, 0)), Some(348));
        assert_eq!(all_bytes(&usage(200, 60), MOST), (128 + 48) * MIB + above_bytes(1));
    }

    #[test]
    fn a_group_above_its_allocation_is_squeezed_by_steps() {
        let (mut bound, mut none) = (Bound::default(), 0);
        for charged in (60..=100).rev() {
            assert_eq!(bound.next(&usage(charged, charged), due(50, 0), &mut none), Some((charged - 1) * MIB));
        }
        assert_eq!(bound.next(&usage(50, 50), due(50, 0), &mut none), Some(50 * MIB + slack_bytes()));
    }

    #[test]
    fn relief_comes_while_the_limit_is_met_and_goes_again() {
        let (mut bound, mut left, mut usage) = (Bound::default(), 2 * RELIEF_BYTES, usage(50, 50));
        let mut limit = |hits_total, waits| {
            usage = Usage { hits_total, waits, ..usage };
            bound.next(&usage, due(50, 0), &mut left).unwrap()
        };
        let settled = limit(0, false);
        let reached: Vec<_> = (1..=6).map(|hit| limit(hit, false) - settled).collect();
        assert_eq!(reached, [1, 2, 3, 4, 4, 4].map(|steps| steps * STEP_BYTES));
        let back: Vec<_> = (0..5).map(|_| limit(6, false) - settled).collect();
        assert_eq!(back, [3, 2, 1, 0, 0].map(|steps| steps * STEP_BYTES));
        assert_eq!(left, 2 * RELIEF_BYTES);
    }

    #[test]
    fn guests_have_no_more_relief_together_than_is_set_aside() {
        let (mut bounds, usage) = ([Bound::default(); 20], Usage { hits_total: 1, ..usage(50, 50) });
        for hits_total in 1..=20 {
            let mut left = Bound::relief_left_bytes(bounds.len(), bounds.iter());
            for bound in &mut bounds {
                bound.next(&Usage { hits_total, ..usage }, due(50, 0), &mut left);
            }
        }
        let given_bytes: u64 = bounds.iter().map(|bound| bound.relief_bytes).sum();
        assert_eq!(given_bytes, relief_bytes(20));
        assert_eq!(above_bytes(20), 20 * slack_bytes() + given_bytes);
    }

    #[test]
    fn the_kernel_is_made_to_take_from_a_group_that_waits_with_all_its_relief() {
        let (mut bound, mut left) = (Bound::default(), RELIEF_BYTES);
        let waits = Usage { waits: true, ..usage(50, 50) };
        let limits: Vec<_> = (0..6).map(|_| bound.next(&waits, due(50, 0), &mut left).unwrap()).collect();
        assert!(limits[..4].iter().all(|&limit| limit > 50 * MIB), "{limits:?}");
        assert_eq!(limits[4..], [49 * MIB; 2]);
    }
}
