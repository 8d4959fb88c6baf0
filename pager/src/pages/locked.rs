//! A page's lock in hand. Whoever has it either says what the page turned into, or drops it, and the page is
//! as it was.
//!
//! ```text
//!   lock, try to, or leave a mark --> Locked --- turn_into(entry) --> unlocked with the new entry
//!                                       |   \--- dropped ----------> unlocked as it was
//!                                       | neighbours
//!                                       v
//!                                   LockedRun -- turn_each(..), or dropped: the same for each
//!                                       | each paid for
//!                                       v
//!                                    PaidRun --- turn_each(..): the credits are the pages' from then on
//!                                                dropped: they come back, and who waits faults again
//! ```
//!
//! With the unlock, credits that the page no longer carries come back, and who left a mark is woken. Nothing
//! else unlocks. So a page whose transition ends early, by an error or for want of a credit, is not left
//! locked, and no entry has to be made up for it.

use std::{
    iter,
    mem::{self, ManuallyDrop},
};

use wire::{Gfn, Run};

use super::{
    Pages,
    table::{Entry, Page, State},
};
use crate::mapping::{Mapping, RUN_MAX, Woken};

/// One page, locked.
#[must_use = "dropping it leaves the page as it was"]
pub(crate) struct Locked<'p, M: Mapping> {
    pages: &'p Pages<M>,
    gfn: Gfn,
    entry: Entry,
}

impl<'p, M: Mapping> Locked<'p, M> {
    /// Which page.
    pub fn gfn(&self) -> Gfn {
        self.gfn
    }

    /// What it is.
    pub fn entry(&self) -> Entry {
        self.entry
    }

    /// The same, by state.
    pub fn decode(&self) -> Page {
        self.entry.decode()
    }

    /// Whether a thread of the guest waits for it.
    pub fn is_wanted(&self) -> bool {
        self.pages.table.peek(self.gfn).waiters()
    }

    /// Its content is in another slot of the pool from now on, whatever becomes of this lock.
    pub fn set_slot(&mut self, slot: u64) {
        self.entry = self.entry.with_slot(slot);
    }

    /// Ends the transition.
    pub fn turn_into(self, new: Entry) {
        self.turn_into_mapped(new, Woken::All);
    }

    /// Ends the transition of a page that was mapped, which `woken` says of who waited until then.
    pub fn turn_into_mapped(self, new: Entry, woken: Woken) {
        let page = ManuallyDrop::new(self);
        page.pages.unlock(page.gfn, page.entry, new, woken);
    }
}

impl<M: Mapping> Drop for Locked<'_, M> {
    fn drop(&mut self) {
        self.pages.unlock(self.gfn, self.entry, self.entry, Woken::All);
    }
}

/// Pages next to each other, each locked. Costs no memory: their entries are in the table, where nobody else
/// changes them.
#[must_use = "dropping it leaves the pages as they were"]
pub(crate) struct LockedRun<'p, M: Mapping> {
    pages: &'p Pages<M>,
    run: Run,
}

impl<'p, M: Mapping> LockedRun<'p, M> {
    /// None yet; the first is to be `first`.
    pub fn empty(pages: &'p Pages<M>, first: Gfn) -> Self {
        LockedRun { pages, run: Run { first, count: 0 } }
    }

    /// Which pages.
    pub fn run(&self) -> Run {
        self.run
    }

    /// What each is.
    pub fn entries(&self) -> impl Iterator<Item = (Gfn, Entry)> {
        self.run.gfns().map(|gfn| (gfn, self.pages.table.held(gfn)))
    }

    fn next(&self) -> Gfn {
        self.run.first.plus(self.run.count)
    }

    /// The page behind the last, too.
    pub fn push(&mut self, page: Locked<'p, M>) {
        debug_assert_eq!(page.gfn, self.next());
        debug_assert_eq!(page.entry, self.pages.table.held(page.gfn));
        mem::forget(page);
        self.run.count += 1;
    }

    /// Ends the transition of each.
    pub fn turn_each(self, into: impl FnMut(Gfn, Entry) -> Entry) {
        self.turn_each_mapped(Woken::All, into);
    }

    fn turn_each_mapped(mut self, woken: Woken, into: impl FnMut(Gfn, Entry) -> Entry) {
        self.unlock_each(woken, into);
    }

    /// Whatever `into` does, no page is unlocked twice, and the rest is unlocked by `drop`.
    fn unlock_each(&mut self, woken: Woken, mut into: impl FnMut(Gfn, Entry) -> Entry) {
        while self.run.count > 0 {
            let gfn = self.run.first;
            let entry = self.pages.table.held(gfn);
            let new = into(gfn, entry);
            self.run = self.run.skip(1);
            self.pages.unlock(gfn, entry, new, woken);
        }
    }
}

impl<M: Mapping> Drop for LockedRun<'_, M> {
    fn drop(&mut self) {
        self.unlock_each(Woken::All, |_, entry| entry);
    }
}

/// Pages next to each other that are to become private, each locked and paid for with a credit.
#[must_use = "dropping it leaves the pages as they were"]
pub(crate) struct PaidRun<'p, M: Mapping>(LockedRun<'p, M>);

impl<'p, M: Mapping> PaidRun<'p, M> {
    /// None yet; the first is to be `first`.
    pub fn empty(pages: &'p Pages<M>, first: Gfn) -> Self {
        PaidRun(LockedRun::empty(pages, first))
    }

    /// Which pages.
    pub fn run(&self) -> Run {
        self.0.run
    }

    /// What the first is; there is one.
    pub fn first(&self) -> Entry {
        self.0.pages.table.held(self.0.run.first)
    }

    /// Pays for the page behind the last and has it, too; false, and the page is as it was, without a credit.
    pub fn pay(&mut self, page: Locked<'p, M>) -> bool {
        let paid = self.0.pages.credits.take(1);
        if paid {
            self.push_paid(page);
        }
        paid
    }

    /// The page behind the last, too, which the caller has paid for.
    pub fn push_paid(&mut self, page: Locked<'p, M>) {
        self.0.push(page);
    }

    /// Gives those behind the first `count` up.
    pub fn truncate(&mut self, count: u32) {
        let rest = self.0.run.skip(count.min(self.0.run.count));
        self.0.run.count -= rest.count;
        drop(PaidRun(LockedRun { pages: self.0.pages, run: rest }));
    }

    /// Ends the transition of each, mapped, which `woken` says of who waited until then. The credits are the
    /// pages' from now on.
    pub fn turn_each(self, woken: Woken, into: impl FnMut(Gfn, Entry) -> Entry) {
        self.into_locked().turn_each_mapped(woken, into);
    }

    /// The pages stay locked for ever: the guest ends, and nobody is to see them any more.
    pub fn seal(self) {
        mem::forget(self);
    }

    fn into_locked(self) -> LockedRun<'p, M> {
        let paid = ManuallyDrop::new(self);
        LockedRun { pages: paid.0.pages, run: paid.0.run }
    }

    /// For another thread to go on with: see [`Pages::resume`].
    pub fn suspend(self) -> SwapIn {
        SwapIn { run: ManuallyDrop::new(self).0.run }
    }
}

impl<M: Mapping> Drop for PaidRun<'_, M> {
    fn drop(&mut self) {
        let run = self.0.run;
        if run.count > 0 {
            self.0.pages.credits.give(i64::from(run.count));
            self.0.unlock_each(Woken::Nobody, |_, entry| entry);
        }
    }
}

/// A swapped page that is to come back, and those that come along, locked and paid for, on their way to a
/// thread that may wait for a disk. Hand it to [`Pages::swap_in`], or back to [`Pages::put_back`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the page is locked, and a thread waits for it"]
pub struct SwapIn {
    run: Run,
}

impl<M: Mapping> Pages<M> {
    /// Goes on with pages of [`PaidRun::suspend`].
    pub(super) fn resume(&self, SwapIn { run }: SwapIn) -> PaidRun<'_, M> {
        PaidRun(LockedRun { pages: self, run })
    }

    fn locked(&self, gfn: Gfn, entry: Entry) -> Locked<'_, M> {
        Locked { pages: self, gfn, entry }
    }

    /// Locks a page, waiting for whoever has it: see [`super::table::PageTable::lock`].
    pub(super) fn lock(&self, gfn: Gfn) -> Locked<'_, M> {
        self.locked(gfn, self.table.lock(gfn))
    }

    /// Locks a page, or leaves a mark that a faulting thread waits for it.
    pub(super) fn lock_or_wait(&self, gfn: Gfn) -> Option<Locked<'_, M>> {
        self.table.lock_or_wait(gfn).map(|entry| self.locked(gfn, entry))
    }

    /// Locks a page if it is `wanted` and nobody has it, without waiting.
    pub(super) fn lock_if(&self, gfn: Gfn, wanted: impl Fn(Entry) -> bool) -> Option<Locked<'_, M>> {
        if !wanted(self.table.peek(gfn)) {
            return None;
        }
        let page = self.locked(gfn, self.table.try_lock(gfn)?);
        wanted(page.entry).then_some(page)
    }

    /// Locks a page if it is private and nobody has it, without waiting.
    pub(super) fn lock_private(&self, gfn: Gfn) -> Option<Locked<'_, M>> {
        self.lock_if(gfn, |entry| entry.state() == State::Private)
    }

    /// Locks a page if it is private, in memory as far as we know, and nobody has it, without waiting.
    pub(super) fn lock_here(&self, gfn: Gfn) -> Option<Locked<'_, M>> {
        self.lock_if(gfn, Entry::is_here)
    }

    /// Ends a transition: the new entry, the credits it no longer carries, and a wake for whoever waited: who
    /// has left a mark, and everybody if they were not `woken`.
    fn unlock(&self, gfn: Gfn, old: Entry, new: Entry, woken: Woken) {
        let released = old.credits() - new.credits();
        if released > 0 {
            self.credits.give(released);
        }
        if self.table.unlock(gfn, old, new) || woken == Woken::Nobody {
            self.mapping.wake(gfn.run());
        }
    }
}

/// Neighbours among locked pages, which ascend, together: at most [`RUN_MAX`].
pub(super) fn locked_runs<'p, M: Mapping + 'p>(
    pages: impl IntoIterator<Item = Locked<'p, M>>,
) -> impl Iterator<Item = LockedRun<'p, M>> {
    let mut pages = pages.into_iter().peekable();
    iter::from_fn(move || {
        let first = pages.next()?;
        let mut run = LockedRun::empty(first.pages, first.gfn);
        run.push(first);
        while run.run.count < RUN_MAX
            && let Some(page) = pages.next_if(|page| page.gfn == run.next())
        {
            run.push(page);
        }
        Some(run)
    })
}
