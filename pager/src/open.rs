//! Open pages: mapped to the zero page or to a frame so that the kernel copies them on write without telling us.
//!
//! ```text
//!   Zero, open    --- close: dropped ------> Zero            --- copied ---> Private
//!   Shared, open  --- close: protected ----> Shared          --- copied ---> Private, its reference given back
//! ```
//!
//! An open page spares its guest a fault through user space at the first write, which costs several times the kernel's own copy. It
//! carries a page credit, because it may be private already: while credits last, pages are left open; when they run short, pages
//! are closed, and each write asks first.
//!
//! **Invariant:** an open page's frame is held until the page was closed or its copy was noted, so it is never punched under it.

use std::{collections::BTreeSet, io};

use wire::{Gfn, Run, runs};

use crate::{
    entry::{Entry, State},
    mapping::{Mapping, pieces},
    sync::Ordering,
    transition::{Error, Pages},
};

impl<M: Mapping> Pages<M> {
    /// Brings the table up to date with what the kernel copied without us, and closes open pages that it did not copy, until
    /// `wanted` credits have come back. How many did.
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

    pub(crate) fn close_run(&self, run: Run) -> Result<i64, Error> {
        let mut back = 0;
        for run in runs(run.gfns().filter(|&gfn| self.is_locked_open(gfn))) {
            let mut copied = BTreeSet::new();
            // Twice: what the guest writes until it is protected, and what the host swaps out once it is.
            let mut look = || self.mapping.anonymous(run, &mut |run| copied.extend(run.gfns()));
            let looked = look().and_then(|()| self.mapping.protect(run)).and_then(|()| look());
            let zero = |gfn: &Gfn| self.table.peek(*gfn).state() == State::Zero;
            let dropped = runs(run.gfns().filter(|gfn| looked.is_ok() && zero(gfn) && !copied.contains(gfn)))
                .try_for_each(|run| self.mapping.discard(run));
            let opened = runs(copied.iter().copied()).try_for_each(|run| self.mapping.unprotect(run));
            let result = looked.and(dropped).and(opened);
            for gfn in run.gfns() {
                let entry = self.table.peek(gfn).unlocked();
                if result.is_err() {
                    self.unlock(gfn, entry, entry);
                } else if copied.contains(&gfn) {
                    self.copied(gfn, entry);
                } else {
                    self.unlock(gfn, entry, entry.closed());
                    back += 1;
                }
            }
            result.map_err(|source| closing(run, source))?;
        }
        Ok(back)
    }

    /// Notes which open pages the guest has written to since: they are private. How many.
    pub fn note_written(&self) -> Result<u64, Error> {
        let mut noted = 0;
        let is_open = |gfn: &Gfn| self.table.peek(*gfn).open();
        for piece in pieces(self.maybe_open()).filter(|piece| piece.gfns().any(|gfn| is_open(&gfn))) {
            // Without locks first: few open pages are written to between two looks. All of the piece at once: open pages may lie scattered.
            let mut suspects = Vec::new();
            let look = self.mapping.anonymous(piece, &mut |run| suspects.extend(run.gfns().filter(is_open)));
            look.map_err(|source| closing(piece, source))?;
            for run in runs(suspects.into_iter().filter(|&gfn| self.is_locked_open(gfn))) {
                let mut copied = BTreeSet::new();
                let looked = self.mapping.anonymous(run, &mut |run| copied.extend(run.gfns()));
                for gfn in run.gfns() {
                    let entry = self.table.peek(gfn).unlocked();
                    if copied.contains(&gfn) { self.copied(gfn, entry) } else { self.unlock(gfn, entry, entry) }
                }
                noted += copied.len() as u64;
                looked.map_err(|source| closing(run, source))?;
            }
        }
        Ok(noted)
    }

    /// Locks the page if it is open.
    fn is_locked_open(&self, gfn: Gfn) -> bool {
        self.lock_if(gfn, Entry::open).is_some()
    }

    /// The kernel has copied a locked open page; unlocks it.
    fn copied(&self, gfn: Gfn, entry: Entry) {
        let copy = if entry.state() == State::Shared {
            self.references.remove(entry.frame());
            self.counters.breaks.fetch_add(1, Ordering::Relaxed);
            Entry::private()
        } else {
            Entry::fresh()
        };
        self.unlock(gfn, entry, copy);
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
