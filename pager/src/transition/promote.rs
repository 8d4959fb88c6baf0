//! Back from a tier: the fault on an evicted page.

use super::{Error, FILLED, Pages, REFAULT_ERAS};
use crate::{
    entry::Entry,
    mapping::Mapping,
    pool::SLAB_PAGES,
    sync::{Ordering, lock},
    units::{Gfn, PAGE_BYTES, PageBytes},
};

impl<M: Mapping> Pages<M> {
    /// A touch of an evicted page: its content comes back.
    pub(super) fn promote(&self, gfn: Gfn, entry: Entry, buffer: &mut PageBytes) -> Result<Option<Entry>, Error> {
        if !self.credits.take(1) {
            return Ok(None);
        }
        let result = self.content(gfn, entry, buffer).and_then(|()| {
            self.mapping.copy(gfn, buffer).map_err(|source| Error::Kernel { action: "bringing back", gfn, source })
        });
        if let Err(error) = result {
            self.credits.give(1);
            return Err(error);
        }
        self.free_slot(entry);
        self.counters.promotions.fetch_add(1, Ordering::Relaxed);
        if self.counters.era().wrapping_sub(entry.era()) & 0b11 <= REFAULT_ERAS {
            self.counters.refaults.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Some(Entry::private_hot()))
    }

    /// The content of a page in a tier.
    fn content(&self, gfn: Gfn, entry: Entry, buffer: &mut PageBytes) -> Result<(), Error> {
        let slot = entry.slot();
        if slot & FILLED != 0 {
            let pattern = (slot as u32).to_ne_bytes();
            buffer.chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&pattern));
            return Ok(());
        }
        match lz4_flex::block::decompress_into(lock(&self.pool).get(slot), buffer) {
            Ok(PAGE_BYTES) => Ok(()),
            _ => Err(Error::Damaged { gfn, slot }),
        }
    }

    /// Nobody needs what a `Compressed` entry speaks of any more.
    pub(super) fn free_slot(&self, entry: Entry) {
        if entry.slot() & FILLED == 0 {
            let emptied = lock(&self.pool).free(entry.slot());
            self.credits.give(emptied * SLAB_PAGES);
        }
    }
}
