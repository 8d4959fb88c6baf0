//! From the pool back to sharing, at home: pages that were compressed before the scanner came to them, or
//! before their frame was published.
//!
//! ```text
//!   Pooled --lock, silence { published? count }, decompress, compare--+-- equal: free, map --> Shared
//!                                                                     +-- different: uncount --> as it was
//! ```
//!
//! Guests that fill their memory faster than it is scanned have much of what they have in common in their
//! pools, a copy each, and a guest whose allocation is full of such copies could never get rid of them. Which
//! frame a page might share is known without asking anybody as long as it is the one at its own address: no
//! look-up, no message, no area. Equals elsewhere become patches (`down::patch`).

use wire::{Gfn, PAGE_BYTES, PageBytes, runs};

use crate::{
    mapping::Mapping,
    pages::{Error, Pages, table::Entry},
    sync::Ordering,
};

/// A page that was sampled is to be left alone, or it would look touched.
fn may_leave(entry: Entry) -> bool {
    entry.is_pooled() && !entry.probed()
}

impl<M: Mapping> Pages<M> {
    /// Whether it pays to look if the page equals the frame at its address.
    pub(crate) fn may_rejoin(&self, gfn: Gfn) -> bool {
        may_leave(self.table.peek(gfn)) && self.mapping.published(self.mapping.placement(gfn))
    }

    /// Shares the frames at their addresses with pages, all of `gfns` (which ascend) that are in the pool,
    /// not in motion, and equal to theirs. Those that do so now.
    pub fn rejoin(&self, gfns: &[Gfn]) -> Result<Vec<Gfn>, Error> {
        let mut equal = Vec::with_capacity(gfns.len());
        let mut content = [0; PAGE_BYTES];
        let mut result = Ok(());
        for page in gfns.iter().filter_map(|&gfn| self.lock_if(gfn, may_leave)) {
            // No transition places a locked page anew.
            let frame = self.mapping.placement(page.gfn());
            let equals = |published: &PageBytes| {
                self.content(page.gfn(), page.entry(), &mut content).map(|()| content == *published)
            };
            match self.adopt_if(frame, equals) {
                Ok(true) => equal.push((page, frame)),
                Ok(false) => {}
                Err(error) => result = result.and(Err(error)),
            }
        }
        let mapped = result.and_then(|()| {
            runs(equal.iter().map(|(page, _)| page.gfn())).try_for_each(|run| {
                let mapped = self.mapping.map_placed(run, false);
                mapped.map_err(|source| Error::Kernel { action: "sharing", gfn: run.first, source })
            })
        });
        if let Err(error) = mapped {
            // They stay in the pool, to which what was mapped is equal.
            equal.iter().for_each(|&(_, frame)| self.references.remove(frame));
            return Err(error);
        }
        let gfns = equal.iter().map(|(page, _)| page.gfn()).collect();
        self.counters.pool_rejoined_total.fetch_add(equal.len() as u64, Ordering::Relaxed);
        for (page, frame) in equal {
            self.free_backing(page.entry());
            page.turn_into(Entry::shared(frame));
        }
        Ok(gfns)
    }
}
