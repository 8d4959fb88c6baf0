//! What the scanner needs of a guest's memory. The pager implements it; the tests have a guest of plain
//! arrays.

use wire::{Frame, Gfn, PageBytes, Run, Sharing};

/// What backs a page, as far as the scanner cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// A page of the guest's own.
    Private,
    /// The guest's own content, compressed in memory: it does not change while it is there.
    Pooled,
    /// A frame of the store.
    Shared,
    /// Anything else: nothing to be gained here.
    Other,
}

/// A guest's memory, as the scanner sees it.
pub trait ScanMemory: Sync {
    /// Pages of the guest.
    fn pages(&self) -> u32;

    /// Pages that are private or shared now: breaking a share does not change their number, fresh memory
    /// does.
    fn populated_pages(&self) -> u64;

    /// What backs a page at this moment.
    fn backing(&self, gfn: Gfn) -> Backing;

    /// Calls `visit` with a digest of each private page of the run, ascending; skips the others. Never blocks
    /// on a fault. The digest is of a few words of the page, 0 if and only if they are zero: a page whose
    /// digest changed has changed.
    fn sample_private(&self, run: Run, visit: &mut dyn FnMut(Gfn, u64));

    /// The scanner is done with these pages for now: it has told what is in them and had time to hear of
    /// equals, or cannot tell. Until then a fresh page is better not compressed.
    fn seen(&self, _gfns: &[Gfn]) {}

    /// Copies a page out, if it is private or pooled. Never blocks on a fault.
    fn read_held(&self, gfn: Gfn, into: &mut PageBytes) -> bool;

    /// Write-protects the private ones of the pages, compares each with its frame, adopts what is equal (and
    /// what is pooled and equal to the frame at its own offset), and reports what became of each, in any
    /// order. The pages are within the guest and ascend; the frames are an allegation.
    fn share(&self, pairs: &[(Gfn, Frame)], report: &mut dyn FnMut(Gfn, Sharing));

    /// Write-protects the private pages of the run, drops those that are all zero, and returns how many.
    fn drop_zero(&self, run: Run) -> u32;

    /// If address-space areas run short, gives up aliases that share nothing any more, at most `most` of
    /// them; how many areas that won back.
    fn reclaim_areas(&self, most: u32) -> u32;

    /// Pages were compared, and few more will be soon: gives up what was kept only to do so faster.
    fn rest(&self) {}

    /// Whether a frame is published; false for one that does not exist.
    fn is_published(&self, frame: Frame) -> bool;

    /// Calls `report(frame, held now)` for at most `most` frames of which this changed since they were last
    /// reported.
    fn take_hold_changes(&self, most: usize, report: &mut dyn FnMut(Frame, bool));

    /// Whether any page refers to a frame now: an answer to the store. If it is held, and is not any more
    /// before that was reported, the change is reported nevertheless.
    fn holds(&self, frame: Frame) -> bool;
}
