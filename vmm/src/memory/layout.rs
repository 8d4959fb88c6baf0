//! Where the pages of RAM, which are numbered without a gap, are among guest-physical addresses.
//!
//! ```text
//!   pages     0 ........................... | .....................
//!   bare      from address 0 on, all of them
//!   PC        from address 0 to 3 GiB       | from 4 GiB on          (boot::ram_ranges)
//! ```

use std::ops::Range;

use balloon::RamLayout;
use wire::PAGE_BYTES;

/// See the module's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout(Vec<Range<u64>>);

impl Layout {
    /// RAM in one piece, as bare machines have it.
    pub fn flat(ram_bytes: u64) -> Layout {
        Layout(std::iter::once(0..ram_bytes).collect())
    }

    /// RAM with a PC's hole.
    pub fn pc(ram_bytes: u64) -> Layout {
        Layout(boot::ram_ranges(ram_bytes).collect())
    }

    /// The parts in order: their addresses, and how many bytes of RAM are before each.
    pub fn parts(&self) -> impl Iterator<Item = (Range<u64>, u64)> {
        self.0.iter().scan(0, |before, range| {
            let offset = *before;
            *before += range.end - range.start;
            Some((range.clone(), offset))
        })
    }

    /// The frames, as the balloon checks them.
    pub fn frames(&self) -> RamLayout {
        let frame = |gpa: u64| (gpa / PAGE_BYTES as u64) as u32;
        RamLayout::new(self.0.iter().map(|range| frame(range.start)..frame(range.end)))
    }

    /// The page at this address, which is in RAM.
    pub fn page(&self, gpa: u64) -> u32 {
        let before =
            self.parts().find(|(range, _)| range.contains(&gpa)).map_or(0, |(range, offset)| range.start - offset);
        ((gpa - before) / PAGE_BYTES as u64) as u32
    }

    /// The pages of frames that are all in one part.
    pub fn pages(&self, frames: Range<u32>) -> Range<u32> {
        let first = self.page(u64::from(frames.start) * PAGE_BYTES as u64);
        first..first + frames.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn what_is_behind_the_hole_follows_what_is_before_it() {
        let layout = Layout::pc(5 * GIB);
        assert_eq!(layout.parts().collect::<Vec<_>>(), [(0..3 * GIB, 0), (4 * GIB..6 * GIB, 3 * GIB)]);
        assert_eq!((layout.frames().frames(), layout.frames().end()), (5 << 18, 6 << 18));
        assert_eq!(layout.pages(4 << 18..(4 << 18) + 8), 3 << 18..(3 << 18) + 8);
        assert_eq!([0, 3 * GIB - 1, 4 * GIB + 4096].map(|gpa| layout.page(gpa)), [0, (3 << 18) - 1, (3 << 18) + 1]);
    }

    #[test]
    fn without_a_hole_pages_are_frames() {
        for layout in [Layout::flat(5 * GIB), Layout::pc(GIB)] {
            assert_eq!(layout.pages(7..9), 7..9);
            assert_eq!(layout.parts().count(), 1);
        }
    }
}
