//! From the pool back to sharing, at home: pages that were compressed before the scanner came to them, or before their frame was published.
//!
//! ```text
//!   Compressed --lock, silence { published? count }, decompress, compare--+-- equal: free the slot, map --> Shared
//!                                                                         +-- different: uncount ---------> as it was
//! ```
//!
//! Guests that fill their memory faster than it is scanned have much of what they have in common in their pools, a copy
//! each, and a guest whose allocation is full of such copies could never get rid of them. Which frame a page might share is known without asking
//! anybody as long as it is the one at its own address: no look-up, no message, no area. Equals elsewhere become patches ([`super::patch`]).

use super::{Error, Pages, in_pool};
use wire::{Frame, Gfn, PAGE_BYTES, PageBytes, runs};

use crate::{accounts::references::References, entry::Entry, mapping::Mapping, sync::Ordering};

impl<M: Mapping> Pages<M> {
    /// Whether it pays to look if the page equals the frame at its address: one that was sampled is to be left alone, or it would look touched.
    pub(crate) fn may_rejoin(&self, gfn: Gfn) -> bool {
        let entry = self.table.peek(gfn);
        in_pool(entry) && !entry.probed() && self.mapping.published(self.mapping.placement(gfn))
    }

    /// Shares the frames at their addresses with pages, all of `gfns` (which ascend) that are in the pool, not in motion, and equal to theirs. Those that
    /// do so now.
    pub fn rejoin(&self, gfns: &[Gfn]) -> Result<Vec<Gfn>, Error> {
        let mut equal = Vec::with_capacity(gfns.len());
        let mut page = [0; PAGE_BYTES];
        for &gfn in gfns {
            let Some(entry) = self.lock_if(gfn, |entry| in_pool(entry) && !entry.probed()) else { continue };
            // No transition places a locked page anew.
            let frame = self.mapping.placement(gfn);
            match self.adopt_equal(gfn, entry, frame, &mut page) {
                Ok(true) => equal.push((gfn, entry, frame)),
                Ok(false) => self.unlock(gfn, entry, entry),
                Err(error) => {
                    self.unlock(gfn, entry, entry);
                    equal.iter().for_each(|&(gfn, entry, frame)| self.stay(gfn, entry, frame));
                    return Err(error);
                }
            }
        }
        let mut runs = runs(equal.iter().map(|&(gfn, ..)| gfn));
        if let Err(source) = runs.try_for_each(|run| self.mapping.map_placed(run, false)) {
            // What was mapped is equal to what is in the pool; an error of the kernel ends the guest.
            equal.iter().for_each(|&(gfn, entry, frame)| self.stay(gfn, entry, frame));
            return Err(Error::Kernel { action: "sharing", gfn: equal[0].0, source });
        }
        for &(gfn, entry, frame) in &equal {
            self.free_slot(entry);
            self.unlock(gfn, entry, Entry::shared(frame));
        }
        self.counters.pool_rejoined.fetch_add(equal.len() as u64, Ordering::Relaxed);
        Ok(equal.iter().map(|&(gfn, ..)| gfn).collect())
    }

    /// Whether a locked page of the pool equals this frame, if that is published; then its reference is counted.
    fn adopt_equal(&self, gfn: Gfn, entry: Entry, frame: Frame, page: &mut PageBytes) -> Result<bool, Error> {
        if !self.adopt(frame, References::add) {
            return Ok(false);
        }
        let mut published = [0; PAGE_BYTES];
        self.mapping.read_frame(frame, &mut published);
        let equal = self.content(gfn, entry, page).map(|()| *page == published);
        if !matches!(equal, Ok(true)) {
            self.references.remove(frame);
        }
        equal
    }

    fn stay(&self, gfn: Gfn, entry: Entry, frame: Frame) {
        self.references.remove(frame);
        self.unlock(gfn, entry, entry);
    }
}
