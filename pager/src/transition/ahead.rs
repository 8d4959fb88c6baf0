//! Reading ahead: pages behind one that comes back from a tier come along, while returns follow each other.
//!
//! ```text
//!   return of 7        elsewhere: alone
//!   return of 8        follows: 8, 9            the next one that is away 10, 11, 12, 13; then 8, then 16 pages at a time
//!   return of 500      elsewhere: alone again
//! ```
//!
//! Pages in between that are there already cost nothing and do not end the sequence. So a guest that sweeps takes one fault in up to 16
//! pages, and one that jumps about brings nothing back that it did not ask for. (Linux's read-ahead in swap areas goes by hits on pages read ahead;
//! such hits are not seen here, but that the next miss is right behind the last window is the same news.)
//!
//! What comes along is locked and paid for like what was asked for, from the eighth part of the credits that are left, and has no lives: the hand
//! takes it first if it was not wanted.

use super::{Error, Pages};
use crate::{
    entry::{Entry, State},
    mapping::{Mapping, Woken},
    reach::Reach,
    sync::Ordering,
    units::{Gfn, PageBytes, Run},
};

/// Most pages that come back together, 64 KiB: some 40 µs of decompression after the page that was asked for is there, and one request to
/// the disk.
pub const AHEAD_MAX: usize = 16;
/// Pages that are there already which the end of a window looks past, at most.
const PAST_MAX: u32 = 512;

/// How far to read ahead of returns.
pub(crate) fn reach() -> Reach {
    Reach::new(1, AHEAD_MAX as u32)
}

impl<M: Mapping> Pages<M> {
    /// Whether the page is in a tier at this moment.
    pub(crate) fn is_away(&self, gfn: Gfn) -> bool {
        matches!(self.state(gfn), State::Compressed | State::Swapped)
    }

    /// The window of a return of `gfn`, which goes first. The next window begins at the first page behind it that is away.
    pub(super) fn window(&self, gfn: Gfn) -> Run {
        let spare = u32::try_from(self.credits.available() / 8).unwrap_or(0);
        let count = self.ahead.pages(gfn).min(1 + spare).min(self.table.pages() - gfn.0);
        let behind = Run { first: gfn, count: self.table.pages() - gfn.0 }.skip(count);
        let there = behind.gfns().take(PAST_MAX as usize).take_while(|&gfn| !self.is_away(gfn)).count();
        self.ahead.opened_up_to(behind.first.plus(there as u32), count);
        Run { first: gfn, count }
    }

    /// Brings back pages of the window behind its first that are compressed. What cannot be had now stays where it is.
    pub(super) fn promote_ahead(&self, window: Run, buffer: &mut PageBytes) -> Result<(), Error> {
        for gfn in window.skip(1).gfns() {
            let wanted = |entry: Entry| entry.state() == State::Compressed && !entry.probed();
            let Some(entry) = self.lock_if(gfn, wanted) else { continue };
            if !self.credits.take(1) {
                self.unlock(gfn, entry, entry);
                return Ok(());
            }
            let copied = self.content(gfn, entry, buffer).and_then(|()| {
                self.mapping.copy(gfn, buffer).map_err(|source| Error::Kernel { action: "reading ahead", gfn, source })
            });
            let woken = match copied {
                Ok(woken) => woken,
                Err(error) => {
                    self.credits.give(1);
                    self.unlock(gfn, entry, entry);
                    return Err(error);
                }
            };
            self.free_slot(entry);
            self.came_along(gfn, entry, woken);
        }
        Ok(())
    }

    /// Locks and pays for pages of the window behind its first, which is locked, as far as their slots lie behind that of the first, `slot`, one
    /// after the other. Gives all of them, with the first.
    pub(super) fn lock_swapped_ahead(&self, window: Run, slot: u64) -> Run {
        let mut count = 1;
        for gfn in window.skip(1).gfns() {
            let next = |entry: Entry| entry.state() == State::Swapped && entry.slot() == slot + u64::from(count);
            let Some(entry) = self.lock_if(gfn, next) else { break };
            if !self.credits.take(1) {
                self.unlock(gfn, entry, entry);
                break;
            }
            count += 1;
        }
        Run { count, ..window }
    }

    /// Ends the way back of a page that was not asked for.
    pub(super) fn came_along(&self, gfn: Gfn, entry: Entry, woken: Woken) {
        self.counters.read_ahead.fetch_add(1, Ordering::Relaxed);
        // The credit is the page's from now on.
        if self.table.unlock(gfn, entry, Entry::private()) || woken == Woken::Nobody {
            self.mapping.wake(gfn.run());
        }
    }
}
