//! Looks at pages that leave them where they are: the scanner's, and the hand's.

use wire::{Gfn, PageBytes, Run};

use super::{
    Pages,
    table::{Entry, Page, State},
};
use crate::mapping::Mapping;

/// How many pages ahead samples are fetched: memory answers in some 100 ns, a page is done in 20.
pub(super) const PREFETCH: usize = 6;

impl<M: Mapping> Pages<M> {
    /// Calls `visit` with a digest of each private page of the run that is in memory and not in
    /// motion; see [`Mapping::sample`].
    pub fn sample_private(&self, run: Run, visit: &mut dyn FnMut(Gfn, u64)) {
        let run = self.clip(run);
        for gfn in run.gfns() {
            if gfn.0 + (PREFETCH as u32) < run.first.0 + run.count {
                self.mapping.prefetch(gfn.plus(PREFETCH as u32));
            }
            let Some(page) = self.lock_here(gfn) else { continue };
            let sample = self.mapping.sample(gfn);
            drop(page);
            visit(gfn, sample);
        }
    }

    /// Copies out a page, if it is private and in memory, or in the pool, and not in motion. It is not
    /// touched by that.
    pub fn read_held(&self, gfn: Gfn, into: &mut PageBytes) -> bool {
        let held = |entry: Entry| entry.is_here() || entry.is_pooled();
        let exists = gfn.0 < self.count();
        let Some(page) = exists.then(|| self.lock_if(gfn, held)).flatten() else { return false };
        if page.entry().state() == State::Private {
            self.mapping.read(gfn, into);
            return true;
        }
        // Whoever needs the page will learn that it is damaged.
        self.content(gfn, page.entry(), into).is_ok()
    }

    /// Whether the page is in the pool, and takes room there.
    pub fn is_pooled(&self, gfn: Gfn) -> bool {
        self.table.peek(gfn).is_pooled()
    }

    /// The hand passes a private page: it has a life less.
    pub(crate) fn cool(&self, gfn: Gfn) {
        if let Some(page) = self.lock_here(gfn) {
            let cooled = page.entry().cooled();
            page.turn_into(cooled);
        }
    }

    /// The scanner has dealt with these pages: whether others have what is in them is known, or cannot be.
    pub fn seen(&self, gfns: impl Iterator<Item = Gfn>) {
        let is_unseen = |entry: Entry| matches!(entry.decode(), Page::Private { unseen: true, .. });
        for page in gfns.filter_map(|gfn| self.lock_if(gfn, is_unseen)) {
            let seen = page.entry().into_seen();
            page.turn_into(seen);
        }
    }
}
