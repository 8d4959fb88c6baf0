//! Back from a tier: the fault on an evicted page.
//!
//! ```text
//!   Compressed --- fault: credit, decompress, COPY ---> Private
//!
//!   Swapped --- fault: credit ---> SwapIn, locked --- swap_in: read, check, COPY ---> Private       and those that come along
//!               on the fault thread                   on a thread that may wait for a disk
//! ```

use super::{Error, FILLED, Pages, REFAULT_ERAS, Served};
use wire::{Gfn, PageBytes, Run};

use crate::{
    entry::{Entry, Left, State},
    mapping::{Mapping, Woken},
    rules::victims::lives,
    sync::{Ordering, lock},
    sys::PageBuffer,
    tiers::pool::SLAB_PAGES,
};

/// A swapped page that is to come back, and those that come along: pages and slots side by side, locked and paid for. Hand it to
/// [`Pages::swap_in`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the page is locked, and a thread waits for it"]
pub struct SwapIn {
    run: Run,
    /// Of the page that was asked for, the first.
    entry: Entry,
}

impl<M: Mapping> Pages<M> {
    /// A touch of an evicted page: its content comes back.
    pub(super) fn promote(
        &self,
        gfn: Gfn,
        entry: Entry,
        buffer: &mut PageBuffer,
    ) -> Result<Option<(Entry, Woken)>, Error> {
        if !self.credits.take(1) {
            return Ok(None);
        }
        let page = buffer.page_mut(0);
        let result = self.content(gfn, entry, page).and_then(|()| {
            let copied = self.mapping.copy(gfn.run(), page);
            copied.map_err(|source| Error::Kernel { action: "bringing back", gfn, source })
        });
        let woken = result.inspect_err(|_| self.credits.give(1))?;
        self.free_slot(entry);
        let window = self.window(gfn);
        self.promote_ahead(window, buffer)?;
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
        let read_frame = |frame, into: &mut PageBytes| self.mapping.read_frame(frame, into);
        let decompressed = lock(&self.pool).decompress(slot, buffer, read_frame);
        if decompressed { Ok(()) } else { Err(Error::Damaged { gfn, slot }) }
    }

    /// A touch of a swapped or clean page, which is locked: pays for it.
    pub(super) fn begin_swap_in(&self, gfn: Gfn, entry: Entry) -> Served {
        if self.credits.take(1) {
            let ahead = self.lock_in_file(self.window(gfn).skip(1), entry, 1, |_| true);
            return Served::Read(SwapIn { run: Run { first: gfn, count: 1 + ahead.count }, entry });
        }
        self.unlock(gfn, entry, entry);
        Served::NoCredit
    }

    /// Reads pages back; waits for the disk. Of a page that was asked for and cannot be read, the lock is kept: nobody will ever see it. One
    /// that was to come along stays where it is until it is asked for.
    pub fn swap_in(&self, SwapIn { run, entry }: SwapIn, buffer: &mut PageBuffer) -> Result<(), Error> {
        let read = self.read_back(run, entry, buffer)?;
        self.map(Run { count: read, ..run }, buffer, 0, |gfn, entry| {
            if gfn == run.first { self.returned(entry) } else { self.came_along() }
        })
    }

    /// Reads pages that are locked, paid for and side by side in the file, the first with `entry`. How many are right, from the first on; the others
    /// stay where they are.
    pub(super) fn read_back(&self, run: Run, entry: Entry, buffer: &mut PageBuffer) -> Result<u32, Error> {
        let read = match entry.state() {
            State::Clean => self.read_image(run, buffer),
            _ => self.read_swap(run, entry.slot(), buffer),
        };
        let read = read.inspect_err(|_| run.skip(1).gfns().for_each(|gfn| self.give_back(gfn)))?;
        run.skip(read).gfns().for_each(|gfn| self.give_back(gfn));
        Ok(read)
    }

    fn read_swap(&self, run: Run, slot: u64, buffer: &mut PageBuffer) -> Result<u32, Error> {
        let gfn = run.first;
        let swap = self.swap.as_ref().ok_or(Error::NoSwap { gfn, slot })?;
        swap.read(slot, gfn, run.count, buffer).map_err(|source| Error::Unreadable { gfn, slot, source })
    }

    fn read_image(&self, run: Run, buffer: &mut PageBuffer) -> Result<u32, Error> {
        let gfn = run.first;
        let image = self.image.as_ref().ok_or(Error::NoImage { gfn })?;
        image.read(gfn, run.count, buffer).map_err(|source| Error::Image { gfn, name: image.name(), source })
    }

    /// Takes a [`Served::Read`] back: nobody can see to it now. Who waits for the pages faults again.
    pub fn put_back(&self, SwapIn { run, .. }: SwapIn) {
        run.gfns().for_each(|gfn| self.give_back(gfn));
    }

    /// What an evicted page is after the guest wanted it back.
    pub(super) fn returned(&self, entry: Entry) -> Entry {
        if entry.probed() {
            // It did not go for want of memory, so its return says nothing about that.
            return Entry::private_with(1);
        }
        let passed = entry.left().until(self.now());
        self.counters.promotions.fetch_add(1, Ordering::Relaxed);
        if passed.era <= REFAULT_ERAS {
            self.counters.refaults.fetch_add(1, Ordering::Relaxed);
            let swapped = u64::from(matches!(entry.state(), State::Swapped | State::Clean));
            self.counters.refaults_swapped.fetch_add(swapped, Ordering::Relaxed);
        }
        Entry::private_with(lives(passed.evictions * self.eviction_unit(), self.table.private()))
    }

    /// What a page that leaves at this moment is to remember.
    pub(super) fn now(&self) -> Left {
        let evictions = self.counters.evictions.load(Ordering::Relaxed) / self.eviction_unit();
        Left { era: self.counters.era(), evictions }
    }

    /// Evictions that [`Left`] counts as one: so that its 12 bits go round once in eight times all of RAM.
    pub(super) fn eviction_unit(&self) -> u64 {
        u64::from(self.table.pages()).div_ceil(512)
    }

    /// Nobody needs what a `Compressed` entry speaks of any more.
    pub(super) fn free_slot(&self, entry: Entry) {
        if entry.slot() & FILLED != 0 {
            return;
        }
        let (frame, emptied) = {
            let mut pool = lock(&self.pool);
            (pool.frame(entry.slot()), pool.free(entry.slot()))
        };
        self.credits.give(emptied * SLAB_PAGES);
        frame.into_iter().for_each(|frame| self.references.remove_patch(frame));
    }
}
