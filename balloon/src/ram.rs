//! Where the guest has RAM: what page numbers are compared with.

use std::ops::Range;

/// Frames of RAM as sorted ranges that do not touch; between them are holes, where devices or nothing at all
/// may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RamLayout {
    ranges: Vec<Range<u32>>,
}

impl RamLayout {
    /// RAM in these ranges of frames, in any order.
    pub fn new(ranges: impl IntoIterator<Item = Range<u32>>) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        sorted.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<u32>> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        RamLayout { ranges: merged }
    }

    /// Frames there are in all.
    pub fn frames(&self) -> u32 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// The first frame behind all RAM.
    pub fn end(&self) -> u32 {
        self.ranges.last().map_or(0, |range| range.end)
    }

    /// Whether this frame is RAM.
    pub(crate) fn contains(&self, frame: u32) -> bool {
        self.contains_all(frame..frame.saturating_add(1))
    }

    /// Whether all of a range that is not empty is RAM.
    pub(crate) fn contains_all(&self, frames: Range<u32>) -> bool {
        let behind = self.ranges.partition_point(|range| range.start <= frames.start);
        behind > 0 && frames.end <= self.ranges[behind - 1].end && frames.start < frames.end
    }
}

impl From<u32> for RamLayout {
    /// RAM from address 0 to this frame.
    fn from(frames: u32) -> Self {
        RamLayout::new(std::iter::once(0..frames))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_range_is_ram_if_every_frame_of_it_is(
            ranges in prop::collection::vec((0u32..100, 0u32..20), 0..8),
            asked in (0u32..130, 1u32..10),
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(start, length)| start..start + length).collect();
            let layout = RamLayout::new(ranges.clone());
            let is_ram = |frame| ranges.iter().any(|range| range.contains(&frame));
            let asked = asked.0..asked.0 + asked.1;

            prop_assert_eq!(layout.contains_all(asked.clone()), asked.clone().all(is_ram));
            prop_assert_eq!(layout.contains(asked.start), is_ram(asked.start));
            prop_assert_eq!(layout.frames() as usize, (0..130).filter(|&frame| is_ram(frame)).count());
        }
    }

    #[test]
    fn the_last_number_there_is_is_not_in_ram() {
        assert!(!RamLayout::from(u32::MAX).contains(u32::MAX));
        assert!(RamLayout::from(u32::MAX).contains(u32::MAX - 1));
    }
}
