//! A touch: what a fault of the guest does. Never waits for a lock or for memory.

use wire::{Frame, Gfn, Run};

use super::{
    Error, Pages,
    locked::{Locked, PaidRun, SwapIn},
    table::{Entry, Page},
};
use crate::{
    mapping::{Mapped, Mapping, Woken},
    rules::{reach::REACH_MIN, victims::LIVES_WRITTEN},
    sync::Ordering,
    sys::PageBuffer,
};

/// Pages that the guest wants back within this many eras of their going were missed.
pub(super) const SOON_ERAS: u64 = 1;

/// What became of a fault.
#[derive(Debug, PartialEq, Eq)]
pub enum Served {
    /// The page is there; whoever waited for it has been woken.
    Done,
    /// Somebody is moving the page and will wake who waits for it.
    Moving,
    /// There is no credit; the fault must be served again.
    NoCredit,
    /// The page is on disk: whoever may wait for that brings it back, and wakes who waits.
    Read(SwapIn),
}

impl<M: Mapping> Pages<M> {
    /// Serves one fault on `gfn`. Never waits for a lock or for memory. `buffer` is for at least one page;
    /// with one for [`AHEAD_MAX`](crate::rules::reach::AHEAD_MAX) pages those that come along are mapped
    /// together.
    pub fn fault(&self, gfn: Gfn, write: bool, buffer: &mut PageBuffer) -> Result<Served, Error> {
        let Some(page) = self.lock_or_wait(gfn) else { return Ok(Served::Moving) };
        match page.decode() {
            Page::Private { .. } => self.allow_write(page),
            Page::Shared { open, .. } if !write || open => self.map_frame(page, write, open),
            Page::Shared { frame, .. } => self.break_share(page, frame),
            Page::Zero { .. } | Page::Ballooned => self.fill_zero(page, write),
            Page::Filled { .. } | Page::Pooled { .. } => self.promote(page, buffer),
            Page::Swapped { .. } | Page::Clean => Ok(self.begin_swap_in(page)),
        }
    }

    /// Served by somebody else between the fault and now, or protected for a transition that came to nothing.
    fn allow_write(&self, page: Locked<'_, M>) -> Result<Served, Error> {
        let gfn = page.gfn();
        let writable = self.mapping.unprotect(gfn.run());
        writable.map_err(|source| Error::Kernel { action: "unprotecting", gfn, source })?;
        // Now: while it is protected, a page that the kernel has swapped out looks absent.
        if let Ok(Mapped::Absent) = self.mapping.mapped(gfn) {
            return Err(Error::Lost { gfn });
        }
        let entry = page.entry().into_unwatched();
        page.turn_into_mapped(entry, Woken::Nobody);
        Ok(Served::Done)
    }

    /// A touch of a shared page that leaves it shared.
    fn map_frame(&self, page: Locked<'_, M>, write: bool, open: bool) -> Result<Served, Error> {
        let gfn = page.gfn();
        let mapped = self.mapping.map_placed(gfn.run(), open);
        // An open page can have been protected by mistake.
        let writable = mapped.and_then(|()| if write { self.mapping.unprotect(gfn.run()) } else { Ok(()) });
        writable.map_err(|source| Error::Kernel { action: "mapping the frame of", gfn, source })?;
        let entry = page.entry();
        page.turn_into_mapped(entry, Woken::Nobody);
        Ok(Served::Done)
    }

    /// A write to a shared page: it gets a copy of its own.
    fn break_share(&self, page: Locked<'_, M>, frame: Frame) -> Result<Served, Error> {
        if !self.credits.take(1) {
            return Ok(Served::NoCredit);
        }
        let gfn = page.gfn();
        let copied = self.mapping.discard(gfn.run()).and_then(|()| self.mapping.copy_frame(gfn, frame));
        let woken = copied.map_err(|source| Error::Kernel { action: "breaking the share of", gfn, source })?;
        self.references.remove(frame);
        self.counters.breaks_total.fetch_add(1, Ordering::Relaxed);
        page.turn_into_mapped(Entry::private_with(LIVES_WRITTEN), woken);
        Ok(Served::Done)
    }

    /// A first touch: the zero page for it, and for untouched neighbours while credits last.
    ///
    /// The page is open from now on, even if this touch is a write: the kernel's copy comes only when the
    /// thread tries again, and until then a hole punched in the store at the page's placement takes the zero
    /// page away once more.
    ///
    /// A sweep that writes gets pages of its own instead: a vCPU that breaks the zero page loses what KVM had
    /// mapped for it, and faults once more. They are zero until they are written to, so those that the sweep
    /// does not come to are dropped as such.
    fn fill_zero(&self, page: Locked<'_, M>, write: bool) -> Result<Served, Error> {
        let (gfn, entry) = (page.gfn(), page.entry());
        if !entry.open() && !self.credits.take(1) {
            return Ok(Served::NoCredit);
        }
        let neighbours = match entry {
            Entry::UNTOUCHED => self.lock_untouched_after(gfn),
            _ => PaidRun::empty(self, gfn.plus(1)),
        };
        let run = Run { first: gfn, count: 1 + neighbours.run().count };
        if let Some(taker) = entry.taken().filter(|_| entry.eras_since_taken(self.counters.era()) <= SOON_ERAS) {
            self.counters.back_soon(taker);
        }
        let is_sweep = write && entry == Entry::UNTOUCHED && self.reach.follows(gfn);
        let (new, mapped) = match is_sweep {
            true => (Entry::fresh(), self.mapping.clear(run)),
            false => (Entry::zero_open(), self.mapping.zero(run)),
        };
        let woken = mapped.map_err(|source| Error::Kernel { action: "zeroing", gfn, source })?;
        // Of them, only who left a mark waits: they were not touched before.
        neighbours.turn_each(Woken::All, |_, _| new);
        if entry == Entry::UNTOUCHED {
            self.reach.opened(gfn, run.count);
        }
        page.turn_into_mapped(new, woken);
        Ok(Served::Done)
    }

    /// Locks and pays for untouched pages behind `gfn`.
    fn lock_untouched_after(&self, gfn: Gfn) -> PaidRun<'_, M> {
        let first = gfn.plus(1);
        // What is opened takes credits that other faults may need sooner: a sweep gets the eighth part of
        // them.
        let spare = u32::try_from(self.credits.available() / 8).unwrap_or(0).max(REACH_MIN);
        let most = (self.reach.pages(gfn).min(spare) - 1).min(self.table.pages() - first.0);
        let fresh = (0..most).take_while(|&i| self.table.peek(first.plus(i)) == Entry::UNTOUCHED).count();
        let credits = self.credits.take_up_to(fresh as i64);
        let mut run = PaidRun::empty(self, first);
        for i in 0..credits as u32 {
            let Some(page) = self.lock_if(first.plus(i), |entry| entry == Entry::UNTOUCHED) else { break };
            run.push_paid(page);
        }
        self.credits.give(credits - i64::from(run.run().count));
        run
    }
}
