//! Why private pages are private, as far as the scanner's notes tell: counted at the end of a pass, apart
//! from the scanning itself.

use control::status::Unmerged;
use wire::Run;

use crate::scanner::notes::{Notes, Why};
use crate::{Backing, ScanMemory};

/// Counts the guest's private pages by reason, those never visited left out.
pub(crate) fn census(memory: &(impl ScanMemory + ?Sized), notes: &Notes) -> Unmerged {
    let mut unmerged = Unmerged::default();
    for gfn in Run::from_range(0..memory.pages()).gfns().filter(|&gfn| memory.backing(gfn) == Backing::Private) {
        match notes.why(gfn) {
            Why::NotVisited => {}
            Why::Volatile => unmerged.volatile += 1,
            Why::Unique => unmerged.unique += 1,
            Why::Broken => unmerged.broken += 1,
            Why::VmaBudget => unmerged.vma_budget += 1,
            Why::StoreBudget => unmerged.store_budget += 1,
        }
    }
    unmerged
}
