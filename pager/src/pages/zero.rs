//! Private pages that are all zero are dropped: nothing needs to back them.

use wire::{Run, runs};

use super::{
    Error, Pages,
    locked::locked_runs,
    table::{Entry, Taker},
};
use crate::mapping::Mapping;

impl<M: Mapping> Pages<M> {
    /// Drops private pages that are all zero. How many were.
    pub fn drop_zero(&self, run: Run) -> Result<u32, Error> {
        // Most that are not zero are spared the protection.
        let private = self.clip(run).gfns().filter_map(|gfn| self.lock_here(gfn));
        let zero: Vec<_> = private.filter(|page| self.mapping.is_zero(page.gfn())).collect();
        let mut dropped = 0;
        for pages in locked_runs(zero) {
            let run = pages.run();
            let failed = |source| Error::Kernel { action: "dropping", gfn: run.first, source };
            self.mapping.protect(run).map_err(failed)?;
            let (zero, other): (Vec<_>, Vec<_>) = run.gfns().partition(|&gfn| self.mapping.is_zero(gfn));
            runs(other).try_for_each(|run| self.mapping.unprotect(run)).map_err(failed)?;
            runs(zero.iter().copied()).try_for_each(|run| self.mapping.discard(run)).map_err(failed)?;
            dropped += zero.len() as u32;
            // One that was written to in between is taken for one that nobody asked for.
            let is_zero = |gfn| zero.binary_search(&gfn).is_ok();
            pages.turn_each(|gfn, _| if is_zero(gfn) { self.found_zero() } else { Entry::private() });
        }
        Ok(dropped)
    }

    /// A page that was found to be all zero, and what was behind it is taken.
    pub(super) fn found_zero(&self) -> Entry {
        self.counters.took(Taker::Zero, 1);
        Entry::zero_touched().taken_by(Taker::Zero, self.counters.era())
    }
}
