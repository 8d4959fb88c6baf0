//! Reading ahead: pages behind one that comes back from a tier come along, while returns follow each other.
//!
//! ```text
//!   return of 7        elsewhere: alone
//!   return of 8        follows: 8, 9       the next one that is away: 10 to 13; then 8, then 16 at a time
//!   return of 500      elsewhere: alone again
//! ```
//!
//! Pages in between that are there already cost nothing and do not end the sequence. So a guest that sweeps
//! takes one fault in up to 16 pages, and one that jumps about brings nothing back that it did not ask for.
//! (Linux's read-ahead in swap areas goes by hits on pages read ahead; such hits are not seen here, but that
//! the next miss is right behind the last window is the same news.)
//!
//! What comes along is locked and paid for like what was asked for, from the eighth part of the credits that
//! are left, and has no lives: the hand takes it first if it was not wanted.

use wire::{Gfn, Run};

use crate::{
    mapping::Mapping,
    pages::{Error, Pages, table::Entry},
    sync::Ordering,
    sys::PageBuffer,
};

/// Pages that are there already which the end of a window looks past, at most.
const PAST_MAX: u32 = 512;

impl<M: Mapping> Pages<M> {
    /// The window of a return of `gfn`, which goes first. The next window begins at the first page behind it
    /// that is away.
    pub(super) fn window(&self, gfn: Gfn) -> Run {
        let spare = u32::try_from(self.credits.available() / 8).unwrap_or(0);
        let count = self.ahead.pages(gfn).min(1 + spare).min(self.table.pages() - gfn.0);
        let behind = Run { first: gfn, count: self.table.pages() - gfn.0 }.skip(count);
        let is_there = |gfn: &Gfn| !self.table.peek(*gfn).is_away();
        let there = behind.gfns().take(PAST_MAX as usize).take_while(is_there).count();
        self.ahead.opened_up_to(behind.first.plus(there as u32), count);
        Run { first: gfn, count }
    }

    /// Brings back pages of the window behind its first that are compressed. What cannot be had now stays
    /// where it is.
    pub(super) fn promote_ahead(&self, window: Run, buffer: &mut PageBuffer) -> Result<(), Error> {
        let mut rest = window.skip(1);
        while rest.count > 0 {
            let pages = self.lock_compressed(rest, |entry| !entry.probed(), buffer)?;
            // The one behind it is there already, in motion, elsewhere, or there is no credit for it.
            rest = rest.skip((pages.run().count + 1).min(rest.count));
            self.map(pages, buffer, |_, _| self.came_along())?;
        }
        Ok(())
    }

    /// What a page becomes that was not asked for.
    pub(super) fn came_along(&self) -> Entry {
        self.counters.read_ahead_total.fetch_add(1, Ordering::Relaxed);
        Entry::private()
    }
}
