//! Pages that the guest does not need: the balloon's, and those that are reported free.

use wire::{Run, runs};

use super::{
    Error, Pages,
    locked::Locked,
    table::{Entry, Page, State, Taker},
};
use crate::mapping::{Mapping, pieces};

impl<M: Mapping> Pages<M> {
    /// The guest gave up these pages: nothing backs them any more.
    pub fn inflate(&self, run: Run) -> Result<(), Error> {
        pieces(self.clip(run))
            .try_for_each(|run| self.give_up(self.lock_all(run), Taker::Balloon, Entry::into_ballooned))
    }

    /// The guest reported these pages free: nothing backs them, and it may touch them again without a word.
    /// It finds them zero, or filled with the pattern.
    pub fn report_free(&self, run: Run, pattern: u32) -> Result<(), Error> {
        pieces(self.clip(run))
            .try_for_each(|run| self.give_up(self.lock_all(run), Taker::Reporting, self.filled_after(pattern)))
    }

    /// The guest wants these pages back; those that are not ballooned stay as they are.
    pub fn deflate(&self, run: Run) {
        for gfn in self.clip(run).gfns() {
            let page = self.lock(gfn);
            if page.decode() == Page::Ballooned {
                let entry = page.entry().into_zero();
                page.turn_into(entry);
            }
        }
    }

    /// Waits for pages in motion.
    fn lock_all(&self, run: Run) -> Vec<Locked<'_, M>> {
        run.gfns().map(|gfn| self.lock(gfn)).collect()
    }

    /// What becomes of a page that the guest does not need, but wants to find filled with a pattern if it
    /// comes back.
    pub(super) fn filled_after(&self, pattern: u32) -> impl Fn(Entry) -> Entry {
        let left = self.now();
        move |entry| match pattern {
            0 => entry.into_zero(),
            _ => Entry::filled(pattern, left),
        }
    }

    /// Takes what backs these pages.
    pub(super) fn give_up(
        &self,
        pages: Vec<Locked<'_, M>>,
        taker: Taker,
        into: impl Fn(Entry) -> Entry,
    ) -> Result<(), Error> {
        let is_backed = |entry: Entry| entry.state() != State::Ballooned && entry != Entry::UNTOUCHED;
        let backed = pages.iter().filter(|page| is_backed(page.entry())).map(Locked::gfn);
        for run in runs(backed) {
            let discarded = self.mapping.discard(run);
            discarded.map_err(|source| Error::Kernel { action: "giving up", gfn: run.first, source })?;
        }
        let (era, mut taken) = (self.counters.era(), 0);
        for page in pages {
            let entry = page.entry();
            let mut new = into(entry);
            // An open page has its credit, and most likely a copy that nobody has noted yet.
            if entry.open() || !matches!(entry.state(), State::Zero | State::Ballooned) {
                taken += 1;
                // One that is to be found filled remembers by itself when it left.
                new = if new.state() == State::Compressed { new } else { new.taken_by(taker, era) };
            }
            self.free_backing(entry);
            page.turn_into(new);
        }
        self.counters.took(taker, taken);
        Ok(())
    }
}
