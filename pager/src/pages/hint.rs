//! Free page hinting: pages that the guest names as free, and is believed only where it has not written to
//! them since.

use wire::{Run, runs};

use super::{
    Error, Pages,
    locked::Locked,
    table::{Entry, State, Taker},
};
use crate::mapping::{Mapping, pieces};

impl<M: Mapping> Pages<M> {
    /// From now on it is known whether these pages are written to. Pages with nothing to lose, in motion, or
    /// that the kernel may copy without us are left out.
    pub fn watch(&self, run: Run) -> Result<(), Error> {
        let has_content = |entry: Entry| {
            let has = matches!(entry.state(), State::Private | State::Shared | State::Compressed);
            has && !entry.open() && !entry.watched()
        };
        for run in pieces(self.clip(run)) {
            let pages: Vec<_> = run.gfns().filter_map(|gfn| self.lock_if(gfn, has_content)).collect();
            let protected = runs(private(&pages)).try_for_each(|run| self.mapping.protect(run));
            protected.map_err(|source| Error::Kernel { action: "watching", gfn: run.first, source })?;
            for page in pages {
                let entry = page.entry().into_watched();
                page.turn_into(entry);
            }
        }
        Ok(())
    }

    /// The guest said, at some time since [`Pages::watch`], that these pages were free. Those that nobody
    /// wrote to since that watch began go as in [`Pages::report_free`]; all others stay. How many went.
    pub fn drop_hinted(&self, run: Run, pattern: u32) -> Result<u32, Error> {
        let mut dropped = 0;
        for run in pieces(self.clip(run)) {
            let pages: Vec<_> = run.gfns().filter_map(|gfn| self.lock_if(gfn, Entry::watched)).collect();
            let count = pages.len() as u32;
            self.give_up(pages, Taker::Reporting, self.filled_after(pattern))?;
            dropped += count;
        }
        Ok(dropped)
    }

    /// Ends [`Pages::watch`]. Once this has returned, no hint drops anything.
    pub fn unwatch(&self, run: Run) -> Result<(), Error> {
        for run in pieces(self.clip(run)) {
            // Waits for pages in motion: they may be watched still when they come to rest.
            let watched = run.gfns().filter(|&gfn| self.table.peek(gfn).watched());
            let mut pages: Vec<_> = watched.map(|gfn| self.lock(gfn)).collect();
            pages.retain(|page| page.entry().watched());
            let writable = runs(private(&pages)).try_for_each(|run| self.mapping.unprotect(run));
            writable.map_err(|source| Error::Kernel { action: "unwatching", gfn: run.first, source })?;
            for page in pages {
                let entry = page.entry().into_unwatched();
                page.turn_into(entry);
            }
        }
        Ok(())
    }
}

fn private<M: Mapping>(pages: &[Locked<'_, M>]) -> impl Iterator<Item = wire::Gfn> {
    pages.iter().filter(|page| page.entry().state() == State::Private).map(Locked::gfn)
}
