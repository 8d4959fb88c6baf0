//! Open pages: mapped to the zero page or to a frame so that the kernel copies them on write without telling
//! us.
//!
//! ```text
//!   Zero, open    --- close: dropped ------> Zero        --- copied ---> Private
//!   Shared, open  --- close: protected ----> Shared      --- copied ---> Private, its reference given back
//! ```
//!
//! An open page spares its guest a fault through user space at the first write, which costs several times the
//! kernel's own copy. It carries a page credit, because it may be private already: while credits last, pages
//! are left open; when they run short, pages are closed, and each write asks first.
//!
//! **Invariant:** an open page's frame is held until the page was closed or its copy was noted, so it is
//! never punched under it.

use std::{collections::BTreeSet, io};

use wire::{Gfn, Run, runs};

use super::{
    Error, Pages,
    locked::{LockedRun, locked_runs},
    table::{Entry, Page, State},
};
use crate::{
    mapping::{Mapped, Mapping, pieces},
    sync::Ordering,
};

impl<M: Mapping> Pages<M> {
    /// Brings the table up to date with what the kernel copied without us, and closes open pages that it did
    /// not copy, until `wanted` credits have come back. How many did.
    pub fn close_open(&self, wanted: i64) -> Result<i64, Error> {
        let mut back = 0;
        for run in self.open_runs().flat_map(pieces) {
            if back >= wanted {
                break;
            }
            back += self.close_run(run)?;
        }
        Ok(back)
    }

    /// Closes the open pages of a run. How many credits came back.
    pub(super) fn close_run(&self, run: Run) -> Result<i64, Error> {
        let mut back = 0;
        for pages in self.lock_open(run.gfns()) {
            let run = pages.run();
            let copied = self.close(&pages).map_err(|source| closing(run, source))?;
            pages.turn_each(|gfn, entry| {
                if copied.contains(&gfn) {
                    return self.after_copy(entry);
                }
                back += 1;
                entry.closed()
            });
        }
        Ok(back)
    }

    /// Protects open pages, or takes away what they are mapped to, but for those that the kernel has copied.
    fn close(&self, pages: &LockedRun<'_, M>) -> io::Result<BTreeSet<Gfn>> {
        let run = pages.run();
        self.mapping.protect(run)?;
        let copied = self.copied(run)?;
        let zero = pages.entries().filter(|(_, entry)| entry.state() == State::Zero).map(|(gfn, _)| gfn);
        runs(zero.filter(|gfn| !copied.contains(gfn))).try_for_each(|run| self.mapping.discard(run))?;
        runs(copied.iter().copied()).try_for_each(|run| self.mapping.unprotect(run))?;
        Ok(copied)
    }

    /// Which of these locked, protected pages the kernel has copied for the guest.
    pub(super) fn copied(&self, run: Run) -> io::Result<BTreeSet<Gfn>> {
        let (mut copied, mut doubtful) = (BTreeSet::new(), Vec::new());
        self.mapping.look(run, &mut |run, mapped| match mapped {
            Mapped::Doubtful => doubtful.push(run),
            _ if mapped.is_anonymous() => copied.extend(run.gfns()),
            _ => {}
        })?;
        for run in doubtful {
            // What is absent faults without the mark, too; a copy can be told from it from now on.
            self.mapping.unprotect(run)?;
            self.each_anonymous(run, &mut |run| copied.extend(run.gfns()))?;
        }
        Ok(copied)
    }

    /// Calls `found` with runs of anonymous pages that are not protected.
    fn each_anonymous(&self, run: Run, found: &mut dyn FnMut(Run)) -> io::Result<()> {
        self.mapping.look(run, &mut |run, mapped| {
            if mapped.is_anonymous() {
                found(run);
            }
        })
    }

    /// Notes which open pages the guest has written to since: they are private. How many.
    pub fn note_written(&self) -> Result<u64, Error> {
        let mut noted = 0;
        let is_open = |gfn: &Gfn| self.table.peek(*gfn).open();
        for piece in pieces(self.maybe_open()).filter(|piece| piece.gfns().any(|gfn| is_open(&gfn))) {
            // Without locks first: few open pages are written to between two looks. All of the piece at once:
            // open pages may lie scattered.
            let mut suspects = Vec::new();
            let look = self.each_anonymous(piece, &mut |run| suspects.extend(run.gfns().filter(is_open)));
            look.map_err(|source| closing(piece, source))?;
            for pages in self.lock_open(suspects) {
                let (run, mut copied) = (pages.run(), BTreeSet::new());
                let looked = self.each_anonymous(run, &mut |run| copied.extend(run.gfns()));
                looked.map_err(|source| closing(run, source))?;
                noted += copied.len() as u64;
                pages.turn_each(|gfn, entry| if copied.contains(&gfn) { self.after_copy(entry) } else { entry });
            }
        }
        Ok(noted)
    }

    /// Locks those of the pages, which ascend, that are open.
    fn lock_open(&self, gfns: impl IntoIterator<Item = Gfn>) -> impl Iterator<Item = LockedRun<'_, M>> {
        locked_runs(gfns.into_iter().filter_map(|gfn| self.lock_if(gfn, Entry::open)))
    }

    /// What an open page is that the kernel has copied.
    fn after_copy(&self, entry: Entry) -> Entry {
        if let Page::Shared { frame, .. } = entry.decode() {
            self.references.remove(frame);
            self.counters.breaks_total.fetch_add(1, Ordering::Relaxed);
            Entry::private()
        } else {
            Entry::fresh()
        }
    }

    /// Runs of pages that are open at this moment, or were just now.
    fn open_runs(&self) -> impl Iterator<Item = Run> {
        runs(self.maybe_open().gfns().filter(|&gfn| self.table.peek(gfn).open()))
    }

    /// All pages, or none if none is open.
    fn maybe_open(&self) -> Run {
        Run { first: Gfn(0), count: if self.table.open() == 0 { 0 } else { self.table.pages() } }
    }
}

fn closing(run: Run, source: io::Error) -> Error {
    Error::Kernel { action: "closing", gfn: run.first, source }
}
