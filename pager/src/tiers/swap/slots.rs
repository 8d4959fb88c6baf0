//! Which slots are taken, and the checksums of what is in them.
//!
//! Pages that leave together get slots side by side, so that they are one write, and one read when they come
//! back: the search goes round the file from where it last ended, for a run as long as is wanted, or else the
//! longest it met.

use std::ops::Range;

/// Slots of a cluster, the unit of discarding: 1 MiB.
pub const CLUSTER_SLOTS: u32 = 256;
/// Words of 64 slots that one search looks at, at most: 1 GiB of file, some 50 µs.
const SEARCH_WORDS: u32 = 4096;

/// The slots of one file.
pub struct Slots {
    taken: Vec<u64>,
    checksums: Vec<u64>,
    /// By cluster: slots taken.
    used: Vec<u16>,
    /// By cluster: written since it was last discarded.
    written: Vec<bool>,
    count: u32,
    free: u32,
    cursor: u32,
}

impl Slots {
    /// `count` free slots. Memory for checksums is used as slots are.
    pub fn new(count: u32) -> Slots {
        let clusters = count.div_ceil(CLUSTER_SLOTS) as usize;
        let mut slots = Slots {
            taken: vec![0; count.div_ceil(64) as usize],
            checksums: vec![0; count as usize],
            used: vec![0; clusters],
            written: vec![false; clusters],
            count,
            free: count,
            cursor: 0,
        };
        // What the last word has beyond the end is never free.
        if let Some(last) = slots.taken.last_mut().filter(|_| !count.is_multiple_of(64)) {
            *last = u64::MAX << (count % 64);
        }
        slots
    }

    /// Slots there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Slots that are not taken.
    pub fn free(&self) -> u32 {
        self.free
    }

    /// Takes a run of up to `most` free slots; none only when no slot is free.
    pub fn allocate(&mut self, most: u32) -> Option<Range<u32>> {
        if self.free == 0 || most == 0 {
            return None;
        }
        let mut best = 0..0;
        let (mut at, mut left, mut looked) = (self.cursor, self.count, 0);
        while left > 0 && best.len() < most as usize && (looked < SEARCH_WORDS * 64 || best.is_empty()) {
            let run = self.free_run(at, most.min(left));
            // The slot after the run is taken, or the run is long enough, or the file is at its end.
            let passed = (run.end - at).max(1).min(left);
            if run.len() > best.len() {
                best = run;
            }
            (left, looked) = (left - passed, looked + passed);
            at = if at + passed >= self.count { 0 } else { at + passed };
        }
        for slot in best.clone() {
            self.taken[slot as usize / 64] |= 1 << (slot % 64);
            self.used[(slot / CLUSTER_SLOTS) as usize] += 1;
            self.written[(slot / CLUSTER_SLOTS) as usize] = true;
        }
        self.free -= best.len() as u32;
        self.cursor = if best.end >= self.count { 0 } else { best.end };
        Some(best).filter(|run| !run.is_empty())
    }

    /// The first free run at or after `at`, up to `most` slots from `at` on for the search, and at most
    /// `most` long; empty at the place where the search ended if there is none.
    fn free_run(&self, at: u32, most: u32) -> Range<u32> {
        let end = self.count;
        let mut start = at;
        // Over whole words of taken slots at once.
        while start < end && self.is_taken(start) {
            let word = self.taken[start as usize / 64] >> (start % 64);
            start += word.trailing_ones().min(64 - start % 64);
        }
        let start = start.min(end);
        let mut stop = start;
        while stop < end && stop - start < most && !self.is_taken(stop) {
            stop += 1;
        }
        start..stop
    }

    fn is_taken(&self, slot: u32) -> bool {
        self.taken[slot as usize / 64] & 1 << (slot % 64) != 0
    }

    /// Frees a taken slot.
    pub fn free_slot(&mut self, slot: u32) {
        debug_assert!(self.is_taken(slot), "slot {slot} freed twice");
        self.taken[slot as usize / 64] &= !(1 << (slot % 64));
        self.used[(slot / CLUSTER_SLOTS) as usize] -= 1;
        self.free += 1;
    }

    /// Remembers the checksum of what was written to a slot.
    pub fn set_checksum(&mut self, slot: u32, checksum: u64) {
        self.checksums[slot as usize] = checksum;
    }

    /// The checksum of what was written to a slot.
    pub fn checksum(&self, slot: u32) -> u64 {
        self.checksums[slot as usize]
    }

    /// Takes the next clusters at or after slot `from` that hold nothing but what was freed, all that lie
    /// side by side: nobody else gets their slots until [`Slots::restore`].
    pub fn withdraw(&mut self, from: u32) -> Option<Range<u32>> {
        let idle = |slots: &Slots, cluster: usize| slots.used[cluster] == 0 && slots.written[cluster];
        let clusters = self.used.len();
        let first = (from.div_ceil(CLUSTER_SLOTS) as usize..clusters).find(|&cluster| idle(self, cluster))?;
        let end = (first..clusters).find(|&cluster| !idle(self, cluster)).unwrap_or(clusters);
        let run = first as u32 * CLUSTER_SLOTS..(end as u32 * CLUSTER_SLOTS).min(self.count);
        for slot in run.clone() {
            self.taken[slot as usize / 64] |= 1 << (slot % 64);
        }
        for cluster in first..end {
            self.used[cluster] = CLUSTER_SLOTS as u16;
            self.written[cluster] = false;
        }
        self.free -= run.len() as u32;
        Some(run)
    }

    /// Frees what [`Slots::withdraw`] took.
    pub fn restore(&mut self, run: Range<u32>) {
        for slot in run.clone() {
            self.taken[slot as usize / 64] &= !(1 << (slot % 64));
        }
        for cluster in run.start / CLUSTER_SLOTS..run.end.div_ceil(CLUSTER_SLOTS) {
            self.used[cluster as usize] = 0;
        }
        self.free += run.len() as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_slot_is_handed_out_twice_and_none_is_lost(
            count in 1u32..700, steps in proptest::collection::vec((0u8..4, 1u32..70), 1..300),
        ) {
            let mut slots = Slots::new(count);
            let mut held: Vec<u32> = Vec::new();
            for (what, n) in steps {
                match what {
                    0 | 1 => match slots.allocate(n) {
                        Some(run) => {
                            prop_assert!(run.len() as u32 <= n && run.end <= count);
                            held.extend(run);
                        }
                        None => prop_assert_eq!(held.len(), count as usize),
                    },
                    2 => for _ in 0..n.min(held.len() as u32) {
                        slots.free_slot(held.swap_remove(n as usize % held.len()));
                    },
                    _ => {
                        let mut from = 0;
                        while let Some(run) = slots.withdraw(from) {
                            from = run.end;
                            prop_assert!(run.clone().all(|slot| !held.contains(&slot)));
                            slots.restore(run);
                        }
                    }
                }
                prop_assert_eq!(held.iter().collect::<HashSet<_>>().len(), held.len());
                prop_assert_eq!(slots.free() as usize, count as usize - held.len());
            }
        }
    }

    #[test]
    fn pages_that_leave_together_lie_together_even_in_a_file_with_holes() {
        let mut slots = Slots::new(1024);
        assert_eq!(slots.allocate(32), Some(0..32));
        assert_eq!(slots.allocate(1000), Some(32..1024));
        (100..110).chain(300..340).for_each(|slot| slots.free_slot(slot));
        assert_eq!(slots.allocate(32), Some(300..332));
        assert_eq!(slots.allocate(32), Some(100..110), "the longest there is");
        assert_eq!(slots.allocate(32), Some(332..340));
        assert_eq!(slots.allocate(1), None);
    }

    #[test]
    fn only_clusters_that_were_written_and_are_free_are_withdrawn_and_nobody_gets_their_slots_meanwhile() {
        let mut slots = Slots::new(4 * CLUSTER_SLOTS);
        let all = slots.allocate(3 * CLUSTER_SLOTS).unwrap();
        all.filter(|&slot| slot != CLUSTER_SLOTS).for_each(|slot| slots.free_slot(slot));
        assert_eq!(slots.withdraw(0), Some(0..CLUSTER_SLOTS));
        assert_eq!(slots.withdraw(CLUSTER_SLOTS), Some(2 * CLUSTER_SLOTS..3 * CLUSTER_SLOTS));
        assert_eq!(slots.withdraw(3 * CLUSTER_SLOTS), None);
        let others = std::iter::from_fn(|| slots.allocate(4 * CLUSTER_SLOTS)).flatten().collect::<HashSet<_>>();
        assert_eq!(others.len() as u32, 2 * CLUSTER_SLOTS - 1);
        assert!(
            others.iter().all(|slot| (CLUSTER_SLOTS..2 * CLUSTER_SLOTS).contains(slot) || *slot >= 3 * CLUSTER_SLOTS)
        );
        slots.restore(0..CLUSTER_SLOTS);
        assert_eq!(slots.free(), CLUSTER_SLOTS);
        assert_eq!(slots.withdraw(0), None, "discarded already");
    }
}
