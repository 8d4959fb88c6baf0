//! Frame numbers in any order, and the fewest ranges that hold them.

use std::ops::Range;

/// A set of frames under construction.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    unsorted: Vec<Range<u32>>,
}

impl Ranges {
    /// Adds frames. Neighbours of the last range, as drivers send them in either direction, cost no memory.
    pub(crate) fn insert(&mut self, range: Range<u32>) {
        match self.unsorted.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if last.end == range.start => last.end = range.end,
            Some(last) if last.start == range.end => last.start = range.start,
            _ => self.unsorted.push(range),
        }
    }

    /// Hands on what was added, sorted, each frame once, and is empty again.
    pub(crate) fn drain(&mut self, mut hand_on: impl FnMut(Range<u32>)) {
        self.unsorted.sort_unstable_by_key(|range| range.start);
        let mut sorted = self.unsorted.drain(..);
        let Some(mut current) = sorted.next() else { return };
        for next in sorted {
            if next.start <= current.end {
                current.end = current.end.max(next.end);
            } else {
                hand_on(std::mem::replace(&mut current, next));
            }
        }
        hand_on(current);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn drained_ranges_hold_what_was_inserted_and_do_not_touch(
            inserted in prop::collection::vec((0u32..200, 0u32..20), 0..50),
        ) {
            let mut ranges = Ranges::default();
            for &(start, length) in &inserted {
                ranges.insert(start..start + length);
            }
            let mut drained = Vec::new();
            ranges.drain(|range| drained.push(range));

            let expected: BTreeSet<u32> = inserted.iter().flat_map(|&(start, length)| start..start + length).collect();
            prop_assert_eq!(drained.iter().cloned().flatten().collect::<Vec<_>>(), Vec::from_iter(expected));
            prop_assert!(drained.iter().all(|range| !range.is_empty()));
            prop_assert!(drained.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
