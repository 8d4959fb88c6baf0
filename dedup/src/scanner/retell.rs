//! When content that the store was told before is told again.

use wire::Gfn;

/// Pages that are looked at between two looks into the letter box: what one page table maps, and at most half
/// a millisecond.
pub const BATCH_PAGES: u32 = 512;
/// Stable content is hashed and told again every so many passes, because the store forgets candidates, and a
/// sample does not see every change.
pub const RETELL_PASSES: u64 = 16;
/// The same for content that would be shared if there were room: in the store, or in the VMA budget.
pub const RETRY_PASSES: u64 = 4;

/// Whether content that the store was told is told anew in this pass. Whole batches together, so that runs
/// stay together.
pub fn is_retold(gfn: Gfn, pass: u64, every: u64) -> bool {
    (pass + u64::from(gfn.0 / BATCH_PAGES)).is_multiple_of(every)
}
