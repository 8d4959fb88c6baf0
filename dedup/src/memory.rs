//! What the scanner needs of a guest's memory. The pager implements it; the tests have a guest of plain arrays.

use std::ops::Range;

use crate::PageBytes;

/// What became of a run of pages that was to be shared. The four sum to its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShareOutcome {
    /// Shared now.
    pub shared: u32,
    /// Not equal to the frame (or the frame is not published any more).
    pub different: u32,
    /// Not private, or being moved by somebody else.
    pub not_private: u32,
    /// An alias would exceed the VMA budget.
    pub refused: u32,
}

/// A guest's memory, as the scanner sees it.
pub trait ScanMemory: Sync {
    /// Pages of the guest.
    fn pages(&self) -> u32;

    /// Locks each page of the range that is private in turn, and copies it out for `visit`; skips the others. Never blocks
    /// on a fault. Ascending.
    fn visit_private(&self, range: Range<u32>, visit: &mut dyn FnMut(u32, &PageBytes));

    /// Write-protects the private ones of pages `gfn..gfn + count`, compares each with its frame of `frame..frame + count`, and
    /// adopts what is equal. The pages are within the guest; the frames are an allegation.
    fn share(&self, gfn: u32, frame: u32, count: u32) -> ShareOutcome;

    /// Write-protects the private pages of the range, drops those that are all zero, and returns how many.
    fn drop_zero(&self, range: Range<u32>) -> u32;

    /// Whether a frame is published; false for one that does not exist.
    fn is_published(&self, frame: u32) -> bool;

    /// Calls `report(frame, held now)` for at most `most` frames of which this changed since they were last reported.
    fn take_hold_changes(&self, most: usize, report: &mut dyn FnMut(u32, bool));

    /// Whether any page refers to a frame now.
    fn holds(&self, frame: u32) -> bool;
}
