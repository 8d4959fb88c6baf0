//! Many at once: neighbouring pages that come back from a tier are read into one buffer and mapped by one COPY.
//!
//! ```text
//!   lock_compressed   Compressed, lock, credit, decompress --+
//!   lock_in_file      Swapped, slots side by side, or        +--> buffer: | 0 | 1 | 2 | ... --- map: one COPY ---> Private, unlock, wake
//!                     Clean, lock, credit ... read ----------+
//! ```
//!
//! A COPY costs a system call and a look at the areas, whatever its length. All pages of a run are locked until it is mapped: a thread of the guest that
//! wants one waits for the rest of its run, some tens of microseconds.

use super::{Error, Pages};
use wire::{Gfn, Run};

use crate::{
    entry::{Entry, State},
    mapping::{Mapping, Woken},
    sys::PageBuffer,
};

/// The page is in a tier.
pub(super) fn is_away(entry: Entry) -> bool {
    matches!(entry.state(), State::Compressed | State::Swapped | State::Clean)
}

/// Whether a page lies `behind` pages behind that of `first` in the same file. (Clean pages of neighbours always do: the image is RAM as it was.)
fn follows(entry: Entry, first: Entry, behind: u32) -> bool {
    let side_by_side = entry.state() != State::Swapped || entry.slot() == first.slot() + u64::from(behind);
    entry.state() == first.state() && side_by_side
}

impl<M: Mapping> Pages<M> {
    /// Locks, pays for and decompresses pages from the beginning of `run` on, as far as they are compressed and `wanted` and there is room in
    /// `buffer`. Gives those that were.
    pub(super) fn lock_compressed(
        &self,
        run: Run,
        wanted: impl Fn(Entry) -> bool,
        buffer: &mut PageBuffer,
    ) -> Result<Run, Error> {
        let mut count = 0;
        for gfn in run.gfns().take(buffer.pages()) {
            let away = |entry: Entry| entry.state() == State::Compressed && wanted(entry);
            let Some(entry) = self.lock_if(gfn, away) else { break };
            if !self.credits.take(1) {
                self.unlock(gfn, entry, entry);
                break;
            }
            let content = self.content(gfn, entry, buffer.page_mut(count as usize));
            count += 1;
            if let Err(error) = content {
                Run { count, ..run }.gfns().for_each(|gfn| self.give_back(gfn));
                return Err(error);
            }
        }
        Ok(Run { count, ..run })
    }

    /// Locks and pays for pages from the beginning of `run` on, as far as they are `wanted` and lie side by side in the file that `first` speaks of: the
    /// first of the run `behind` pages behind it. Gives those that were.
    pub(super) fn lock_in_file(&self, run: Run, first: Entry, behind: u32, wanted: impl Fn(Entry) -> bool) -> Run {
        let mut count = 0;
        for gfn in run.gfns() {
            let next = |entry: Entry| follows(entry, first, behind + count) && wanted(entry);
            let Some(entry) = self.lock_if(gfn, next) else { break };
            if !self.credits.take(1) {
                self.unlock(gfn, entry, entry);
                break;
            }
            count += 1;
        }
        Run { count, ..run }
    }

    /// Maps pages that are locked, paid for, and in `buffer` from its page `first` on. They make room where they were, become what `into` says, and
    /// are unlocked.
    pub(super) fn map(
        &self,
        run: Run,
        buffer: &PageBuffer,
        first: usize,
        into: impl Fn(Gfn, Entry) -> Entry,
    ) -> Result<(), Error> {
        if run.count == 0 {
            return Ok(());
        }
        let copied = self.mapping.copy(run, buffer.bytes(first, run.count as usize));
        let woken = copied.map_err(|source| Error::Kernel { action: "bringing back", gfn: run.first, source })?;
        for gfn in run.gfns() {
            // Ours, and so as it was when it was locked.
            let entry = self.table.peek(gfn).unlocked();
            self.free_backing(entry);
            // The credit is the page's from now on. Who came after COPY woke all has left a mark.
            if self.table.unlock(gfn, entry, into(gfn, entry)) || woken == Woken::Nobody {
                self.mapping.wake(gfn.run());
            }
        }
        Ok(())
    }

    /// A page that is locked and paid for does not come back now: its credit does, and whoever waits for it faults again.
    pub(super) fn give_back(&self, gfn: Gfn) {
        // As above.
        let entry = self.table.peek(gfn).unlocked();
        self.credits.give(1);
        _ = self.table.unlock(gfn, entry, entry);
        self.mapping.wake(gfn.run());
    }

    /// Nobody needs any more what an evicted page's entry speaks of.
    pub(super) fn free_backing(&self, entry: Entry) {
        match entry.state() {
            State::Compressed => self.free_slot(entry),
            State::Swapped => self.swap.iter().for_each(|swap| swap.free(entry.slot())),
            State::Zero | State::Private | State::Shared | State::Ballooned | State::Clean => {}
        }
    }
}
