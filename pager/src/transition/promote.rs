//! Back from a tier: the fault on an evicted page.
//!
//! ```text
//!   Compressed --- fault: credit, decompress, COPY ---> Private
//!
//!   Swapped --- fault: credit ---> SwapIn, locked --- swap_in: read, check, COPY ---> Private
//!               on the fault thread                   on a thread that may wait for a disk
//! ```

use super::{Error, FILLED, Pages, REFAULT_ERAS, Served};
use crate::{
    entry::{Entry, Left},
    mapping::{Mapping, Woken},
    pool::SLAB_PAGES,
    swap::PageBuffer,
    sync::{Ordering, lock},
    units::{Gfn, PageBytes},
    victims::lives,
};

/// A swapped page that is to come back. It is locked and paid for: hand it to [`Pages::swap_in`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the page is locked, and a thread waits for it"]
pub struct SwapIn {
    gfn: Gfn,
    entry: Entry,
}

impl<M: Mapping> Pages<M> {
    /// A touch of an evicted page: its content comes back.
    pub(super) fn promote(
        &self,
        gfn: Gfn,
        entry: Entry,
        buffer: &mut PageBytes,
    ) -> Result<Option<(Entry, Woken)>, Error> {
        if !self.credits.take(1) {
            return Ok(None);
        }
        let result = self.content(gfn, entry, buffer).and_then(|()| {
            self.mapping.copy(gfn, buffer).map_err(|source| Error::Kernel { action: "bringing back", gfn, source })
        });
        let woken = result.inspect_err(|_| self.credits.give(1))?;
        self.free_slot(entry);
        Ok(Some((self.returned(entry), woken)))
    }

    /// The content of a `Compressed` page.
    pub(super) fn content(&self, gfn: Gfn, entry: Entry, buffer: &mut PageBytes) -> Result<(), Error> {
        let slot = entry.slot();
        if slot & FILLED != 0 {
            let pattern = (slot as u32).to_ne_bytes();
            buffer.chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&pattern));
            return Ok(());
        }
        let decompressed = lock(&self.pool).decompress(slot, buffer);
        if decompressed { Ok(()) } else { Err(Error::Damaged { gfn, slot }) }
    }

    /// A touch of a swapped page, which is locked: pays for it.
    pub(super) fn begin_swap_in(&self, gfn: Gfn, entry: Entry) -> Served {
        if self.credits.take(1) {
            return Served::Read(SwapIn { gfn, entry });
        }
        self.unlock(gfn, entry, entry);
        Served::NoCredit
    }

    /// Reads a page back; waits for the disk. A page that cannot be read stays locked: nobody will ever see it.
    pub fn swap_in(&self, SwapIn { gfn, entry }: SwapIn, buffer: &mut PageBuffer) -> Result<(), Error> {
        let slot = entry.slot();
        let swap = self.swap.as_ref().ok_or(Error::NoSwap { gfn, slot })?;
        swap.read(slot, gfn, buffer).map_err(|source| Error::Unreadable { gfn, slot, source })?;
        let copied = self.mapping.copy(gfn, buffer.page(0));
        let woken = copied.map_err(|source| Error::Kernel { action: "bringing back", gfn, source })?;
        swap.free(slot);
        // The credit is the page's from now on. Who came after COPY woke all has left a mark.
        if self.table.unlock(gfn, entry, self.returned(entry)) || woken == Woken::Nobody {
            self.mapping.wake(gfn.run());
        }
        Ok(())
    }

    /// Takes a [`Served::Read`] back: nobody can see to it now. Who waits for the page faults again.
    pub fn put_back(&self, SwapIn { gfn, entry }: SwapIn) {
        self.credits.give(1);
        _ = self.table.unlock(gfn, entry, entry);
        self.mapping.wake(gfn.run());
    }

    /// What an evicted page is after the guest wanted it back.
    fn returned(&self, entry: Entry) -> Entry {
        if entry.probed() {
            // It did not go for want of memory, so its return says nothing about that.
            return Entry::private_with(1);
        }
        let passed = entry.left().until(self.now());
        self.counters.promotions.fetch_add(1, Ordering::Relaxed);
        if passed.era <= REFAULT_ERAS {
            self.counters.refaults.fetch_add(1, Ordering::Relaxed);
        }
        Entry::private_with(lives(passed.evictions * self.eviction_unit(), self.table.private()))
    }

    /// What a page that leaves at this moment is to remember.
    pub(super) fn now(&self) -> Left {
        let evictions = self.counters.evictions.load(Ordering::Relaxed) / self.eviction_unit();
        Left { era: self.counters.era(), evictions }
    }

    /// Evictions that [`Left`] counts as one: so that its 12 bits go round once in eight times all of RAM.
    fn eviction_unit(&self) -> u64 {
        u64::from(self.table.pages()).div_ceil(512)
    }

    /// Nobody needs what a `Compressed` entry speaks of any more.
    pub(super) fn free_slot(&self, entry: Entry) {
        if entry.slot() & FILLED == 0 {
            let emptied = lock(&self.pool).free(entry.slot());
            self.credits.give(emptied * SLAB_PAGES);
        }
    }
}
