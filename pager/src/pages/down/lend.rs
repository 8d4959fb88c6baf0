//! To the kernel: private pages that it swaps out, and brings back by itself.
//!
//! ```text
//!   Private --- lock, MADV_PAGEOUT, unlock ---> Private, lent     the kernel may have left it where it was
//!                                                  |   a touch brings it back, and we are not told
//!   Private, with lives by how long <--- note_returned: it is in memory
//! ```
//!
//! It costs a third of what the pool does on the way there, and a tenth on the way back. The mark is a hint;
//! nothing that concerns content goes by it.

use std::time::Duration;

use wire::{Gfn, PageBytes, Run, runs};

use crate::{
    accounts::stall::Cause,
    mapping::{Mapping, pieces},
    pages::{
        Error, Pages,
        fault::SOON_ERAS,
        locked::Locked,
        table::{Entry, Page},
    },
    rules::victims::lives,
    sync::Ordering,
    tiers::squeeze::is_noise,
};

use super::store::filled_with;

/// What a vCPU loses when it touches a page that the kernel has swapped out to zram: 4 µs for a thread of
/// the host, 12 with an exit from the guest. An estimate: the kernel does not tell, and its delay accounting
/// is off on most machines (`kernel.task_delayacct`).
const SWAP_IN: Duration = Duration::from_micros(12);

impl<M: Mapping> Pages<M> {
    /// Whether the kernel is the cheapest that takes this locked page: not for what nothing needs to back, or
    /// what does not compress. `buffer` is for its content, which may be changing.
    pub(in crate::pages) fn suits_kernel(&self, page: &Locked<'_, M>, buffer: &mut PageBytes) -> bool {
        if !self.kernel.is_usable(self.counters.now_ms())
            || matches!(page.decode(), Page::Private { incompressible: true, .. })
        {
            return false;
        }
        self.mapping.read(page.gfn(), buffer);
        let is_clean = || self.image.as_ref().is_some_and(|image| image.holds(page.gfn(), buffer));
        filled_with(buffer).is_none() && !is_noise(buffer) && !is_clean()
    }

    /// Lends these private pages, which ascend, to the kernel, each `marked`.
    pub(in crate::pages) fn lend(
        &self,
        pages: Vec<Locked<'_, M>>,
        marked: impl Fn(Entry) -> Entry,
    ) -> Result<(), Error> {
        let Some(gfn) = pages.first().map(Locked::gfn) else { return Ok(()) };
        let runs: Vec<_> = runs(pages.iter().map(Locked::gfn)).collect();
        let failed = |source| Error::Kernel { action: "swapping out", gfn, source };
        self.mapping.page_out(&runs).map_err(failed)?;
        // The first run stands for all: a device that is full takes none.
        let mut stayed = 0;
        self.mapping.look_present(runs[0], &mut |run| stayed += run.count).map_err(failed)?;
        self.kernel.judge(runs[0].count, runs[0].count - stayed, self.counters.now_ms());
        for page in pages {
            let lent = page.entry().into_lent(self.now());
            page.turn_into(marked(lent));
        }
        Ok(())
    }

    /// Finds out which lent pages the guest has brought back, of all. How many.
    pub fn note_returned(&self) -> Result<u64, Error> {
        if self.table.lent() == 0 {
            return Ok(0);
        }
        self.note_returned_in(Run { first: Gfn(0), count: self.table.pages() })
    }

    /// The same, of those in `run`.
    pub fn note_returned_in(&self, run: Run) -> Result<u64, Error> {
        let mut noted = 0;
        let is_lent = |gfn: &Gfn| self.table.peek(*gfn).is_lent();
        for piece in pieces(run).filter(|piece| piece.gfns().any(|gfn| is_lent(&gfn))) {
            let mut found = Vec::new();
            let looked = self.mapping.look_present(piece, &mut |run| found.extend(run.gfns().filter(is_lent)));
            looked.map_err(|source| Error::Kernel { action: "looking at", gfn: piece.first, source })?;
            for page in found.into_iter().filter_map(|gfn| self.lock_if(gfn, Entry::is_lent)) {
                let entry = self.after_return(page.entry());
                page.turn_into(entry);
                noted += 1;
            }
        }
        Ok(noted)
    }

    /// What a lent page is once the guest has brought it back.
    fn after_return(&self, entry: Entry) -> Entry {
        let Page::Private { lent: Some(left), .. } = entry.decode() else { return entry };
        if entry.probed() {
            // It did not go for want of memory, so its return says nothing about that.
            return entry.into_here(1);
        }
        let passed = left.until(self.now());
        self.counters.stall.add(Cause::Kernel, SWAP_IN);
        self.counters.promotions_total.fetch_add(1, Ordering::Relaxed);
        if passed.era <= SOON_ERAS {
            self.counters.refaults_total.fetch_add(1, Ordering::Relaxed);
        }
        entry.into_here(lives(passed.evictions * self.eviction_unit(), self.table.here()))
    }
}
