//! The fault on an evicted page.

use wire::Run;

use crate::{
    mapping::Mapping,
    pages::{
        Error, Pages,
        fault::{SOON_ERAS, Served},
        locked::{Locked, PaidRun, SwapIn},
        table::{Entry, Left, Page, State},
    },
    rules::victims::lives,
    sync::Ordering,
    sys::PageBuffer,
};

impl<M: Mapping> Pages<M> {
    /// A touch of a compressed page: its content comes back.
    pub(in crate::pages) fn promote(&self, page: Locked<'_, M>, buffer: &mut PageBuffer) -> Result<Served, Error> {
        let (gfn, entry) = (page.gfn(), page.entry());
        let mut pages = PaidRun::empty(self, gfn);
        if !pages.pay(page) {
            return Ok(Served::NoCredit);
        }
        self.content(gfn, entry, buffer.page_mut(0))?;
        self.map(pages, buffer, |_, entry| self.returned(entry))?;
        self.promote_ahead(self.window(gfn), buffer)?;
        Ok(Served::Done)
    }

    /// A touch of a swapped or clean page: pays for it, and for those that come along.
    pub(in crate::pages) fn begin_swap_in(&self, page: Locked<'_, M>) -> Served {
        let gfn = page.gfn();
        let mut pages = PaidRun::empty(self, gfn);
        if !pages.pay(page) {
            return Served::NoCredit;
        }
        self.lock_in_file(&mut pages, self.window(gfn).count, |_| true);
        Served::Read(pages.suspend())
    }

    /// Reads pages back; waits for the disk. Of a page that was asked for and cannot be read, the lock is
    /// kept: nobody will ever see it. One that was to come along stays where it is until it is asked for.
    pub fn swap_in(&self, pages: SwapIn, buffer: &mut PageBuffer) -> Result<(), Error> {
        let mut pages = self.resume(pages);
        if let Err(error) = self.read_back(&mut pages, buffer) {
            pages.seal();
            return Err(error);
        }
        let asked_for = pages.run().first;
        self.map(pages, buffer, |gfn, entry| if gfn == asked_for { self.returned(entry) } else { self.came_along() })
    }

    /// Takes a [`Served::Read`] back: nobody can see to it now. Who waits for the pages faults again.
    pub fn put_back(&self, pages: SwapIn) {
        drop(self.resume(pages));
    }

    /// Reads pages that are side by side in the file. Those that are right, from the first on, are left; the
    /// others stay where they are. With an error, only the first is left.
    pub(super) fn read_back(&self, pages: &mut PaidRun<'_, M>, buffer: &mut PageBuffer) -> Result<(), Error> {
        let run = pages.run();
        let read = match pages.first().decode() {
            Page::Swapped { slot } => self.read_swap(run, slot, buffer),
            _ => self.read_image(run, buffer),
        };
        pages.truncate(*read.as_ref().unwrap_or(&1));
        read.map(drop)
    }

    fn read_swap(&self, Run { first: gfn, count }: Run, slot: u64, buffer: &mut PageBuffer) -> Result<u32, Error> {
        let swap = self.swap.as_ref().ok_or(Error::NoSwap { gfn, slot })?;
        swap.read(slot, gfn, count, buffer).map_err(|source| Error::Unreadable { gfn, slot, source })
    }

    fn read_image(&self, Run { first: gfn, count }: Run, buffer: &mut PageBuffer) -> Result<u32, Error> {
        let image = self.image.as_ref().ok_or(Error::NoImage { gfn })?;
        image.read(gfn, count, buffer).map_err(|source| Error::Image { gfn, name: image.name(), source })
    }

    /// What an evicted page is after the guest wanted it back.
    fn returned(&self, entry: Entry) -> Entry {
        if entry.probed() {
            // It did not go for want of memory, so its return says nothing about that.
            return Entry::private_with(1);
        }
        let passed = entry.left().until(self.now());
        self.counters.promotions_total.fetch_add(1, Ordering::Relaxed);
        if passed.era <= SOON_ERAS {
            self.counters.refaults_total.fetch_add(1, Ordering::Relaxed);
            let swapped = u64::from(matches!(entry.state(), State::Swapped | State::Clean));
            self.counters.refaults_swapped_total.fetch_add(swapped, Ordering::Relaxed);
        }
        Entry::private_with(lives(passed.evictions * self.eviction_unit(), self.table.here()))
    }

    /// What a page that leaves at this moment is to remember.
    pub(in crate::pages) fn now(&self) -> Left {
        let evictions = self.counters.evictions_total.load(Ordering::Relaxed) / self.eviction_unit();
        Left { era: self.counters.era(), evictions }
    }

    /// Evictions that [`Left`] counts as one: so that its 12 bits go round once in eight times all of RAM.
    pub(in crate::pages) fn eviction_unit(&self) -> u64 {
        u64::from(self.table.pages()).div_ceil(512)
    }
}
