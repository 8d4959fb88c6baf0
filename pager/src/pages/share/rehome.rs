//! Winning address-space areas back: an alias whose pages share nothing any more gets its home placement
//! again.
//!
//! ```text
//!   lock all pages of the alias; protect and copy out the private ones
//!   map the home offset elsewhere, register it, move it over the alias    one step for the guest
//!   copy the private ones back in; unlock
//! ```
//!
//! A placement made with `mmap` is not registered with userfaultfd for a moment, in which an access would see
//! what the store has at that offset. For an alias that is the right content; here it would not be. So the
//! new mapping is registered before it takes the old one's place: `mremap` keeps the registration
//! (`UFFD_FEATURE_EVENT_REMAP`), and no thread of the guest has to be held.

use std::io;

use wire::{Gfn, PAGE_BYTES, PageBytes, Run, runs};

use crate::{
    mapping::Mapping,
    pages::{Error, Pages, locked::Locked, table::State},
};

/// Pages that are moved together: they stay locked for it, and those that are private are copied twice.
const REHOME_MAX: u32 = 64;

impl<M: Mapping> Pages<M> {
    /// Brings at most `most` aliases that share nothing home. How many areas that won back.
    pub fn reclaim_areas(&self, most: u32) -> Result<u32, Error> {
        let before = self.mapping.vmas();
        let (mut first, mut left) = (Gfn(0), most);
        while before > 0 && left > 0 && first.0 < self.count() {
            let run = self.placed_together(first);
            let shares = |gfn: Gfn| self.table.peek(gfn).state() == State::Shared;
            if !self.is_home(first) && !run.gfns().any(shares) {
                left -= 1;
                self.rehome(run)?;
            }
            first = first.plus(run.count);
        }
        Ok(before.saturating_sub(self.mapping.vmas()))
    }

    /// Whether aliases cost so many areas that some should be won back: three quarters of the budget.
    pub fn areas_run_short(&self) -> bool {
        u64::from(self.mapping.vmas()) * 4 > u64::from(self.vma_budget) * 3
    }

    fn is_home(&self, gfn: Gfn) -> bool {
        self.mapping.placement(gfn) == gfn.home()
    }

    /// Pages from `first` on that lie in one area; not more than can be moved at a time, unless they are at
    /// home.
    fn placed_together(&self, first: Gfn) -> Run {
        let frame = self.mapping.placement(first);
        let most = if self.is_home(first) { u32::MAX } else { REHOME_MAX };
        let together = |&i: &u32| frame.0.checked_add(i) == Some(self.mapping.placement(first.plus(i)).0);
        let count = 1 + (1..(self.count() - first.0).min(most)).take_while(together).count() as u32;
        Run { first, count }
    }

    fn rehome(&self, run: Run) -> Result<(), Error> {
        let free = |gfn| self.lock_if(gfn, |entry| entry.state() != State::Shared && !entry.open());
        let pages: Vec<_> = run.gfns().map_while(free).collect();
        // Until the locks were taken, somebody else could have placed a page.
        if pages.len() < run.count as usize || run.gfns().any(|gfn| self.is_home(gfn)) {
            return Ok(());
        }
        let private = pages.iter().filter(|page| page.entry().state() == State::Private).map(Locked::gfn);
        let moved = self.move_home(run, &private.collect::<Vec<_>>());
        moved.map_err(|source| Error::Kernel { action: "bringing home", gfn: run.first, source })?;
        for page in pages {
            // A page that was moved is not write-protected any more.
            let entry = page.entry().into_unwatched();
            page.turn_into(if entry.is_lent() { entry.into_here(0) } else { entry });
        }
        Ok(())
    }

    fn move_home(&self, run: Run, private: &[Gfn]) -> io::Result<()> {
        for run in runs(private.iter().copied()) {
            self.mapping.protect(run)?;
        }
        let mut contents: Vec<PageBytes> = vec![[0; PAGE_BYTES]; private.len()];
        private.iter().zip(&mut contents).for_each(|(&gfn, page)| self.mapping.read(gfn, page));
        self.mapping.rehome(run)?;
        private.iter().zip(&contents).try_for_each(|(&gfn, page)| self.mapping.copy(gfn.run(), page).map(drop))
    }
}
