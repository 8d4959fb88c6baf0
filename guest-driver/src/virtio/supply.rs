//! Where the pages of a balloon come from: what an operating system, a unikernel or a firmware writes for
//! [`crate::virtio::balloon`].

use core::ops::Range;

/// The guest's pages, from the balloon's point of view. Nothing here may allocate: the balloon grows when
/// there is no memory.
///
/// What is not overridden means that the guest does not report free pages or hint at them.
pub trait PageSupply {
    /// Takes up to `gfns.len()` pages out of use, for the balloon, leaving at least `floor_pages` outside of
    /// it. Says how many; they are in the balloon from now on, and must not be touched.
    fn take_for_balloon(&mut self, floor_pages: u32, gfns: &mut [u32]) -> usize;

    /// Names up to `gfns.len()` pages of the balloon to take back. They stay in it until
    /// [`Self::return_ballooned`].
    fn pick_ballooned(&mut self, gfns: &mut [u32]) -> usize;

    /// The host gave these pages back: they are free, and may hold anything.
    fn return_ballooned(&mut self, gfns: impl Iterator<Item = u32>);

    /// What the guest says of itself, [`crate::virtio::driver::STATISTICS_MAX`] pairs of tag
    /// ([`wire::balloon::stat`]) and value at most. Says how many; at least one, and always the same tags.
    fn statistics(&mut self, into: &mut [(u16, u64)]) -> usize;

    /// Free pages, those in reports and hints left out.
    fn free_pages(&mut self) -> u32 {
        0
    }

    /// Sets ranges of free pages aside that the host does not know of, at most `pages_max` pages. Says how
    /// many ranges. They must not be used until [`Self::report_done`].
    fn take_for_report(&mut self, _pages_max: u32, _ranges: &mut [Range<u32>]) -> usize {
        0
    }

    /// The host has seen these ranges.
    fn report_done(&mut self, _ranges: &[Range<u32>]) {}

    /// From now on all free pages are to be hinted at once more.
    fn begin_hints(&mut self) {}

    /// Whether there may be more to hint at.
    fn has_hints(&mut self) -> bool {
        false
    }

    /// Sets the next ranges of free pages aside to hint at. Says how many. They may be used when nothing else
    /// is left, by whoever writes to them first (5.5.6.5.1).
    fn take_for_hint(&mut self, _ranges: &mut [Range<u32>]) -> usize {
        0
    }

    /// The host needs the hinted pages no more.
    fn release_hinted(&mut self) {}
}
