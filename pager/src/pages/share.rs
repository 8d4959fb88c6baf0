//! Sharing: private pages give way to equal frames of the store.
//!
//! ```text
//!   lock, protect, compare     at home: the page's address is a mapping of this very frame
//!        │ equal                  discard, map                                ~0.8 µs a page, in batches
//!        ├────────────────────────►
//!        │                     away: its address has to become one, see `alias`   ~14 µs a run
//!        └────────────────────────►
//! ```

mod alias;
mod rehome;

use std::io;

use wire::{Frame, Gfn, Run, Sharing, runs};

use super::{Error, Pages, locked::Locked, scan::PREFETCH, table::Entry};
use crate::mapping::{Mapping, RUN_MAX};

/// Pages whose aliases are made together: they stay locked for it, some ten microseconds a run.
const AWAY_MAX: usize = 64;

/// A locked page, and the frame that it is to share.
type Pair<'p, M> = (Locked<'p, M>, Frame);

impl<M: Mapping> Pages<M> {
    /// Shares private pages with equal frames, and pages of the pool with those at home; reports what became
    /// of each, in any order. The pages ascend.
    pub fn share(&self, pairs: &[(Gfn, Frame)], report: &mut dyn FnMut(Gfn, Sharing)) -> Result<(), Error> {
        let exist = |&(gfn, frame): &(Gfn, Frame)| gfn.0 < self.count() && frame.0 < self.references.count();
        let (exist, strange): (Vec<_>, Vec<_>) = pairs.iter().partition(|pair| exist(pair));
        strange.iter().for_each(|&(gfn, _)| report(gfn, Sharing::NotPrivate));
        let at_home = |gfn: Gfn, frame: Frame| self.mapping.placement(gfn) == frame;
        let (pooled, exist): (Vec<_>, Vec<_>) = exist.into_iter().partition(|&(gfn, _)| self.is_pooled(gfn));
        let home: Vec<_> = pooled.iter().filter(|&&(gfn, frame)| at_home(gfn, frame)).map(|&(gfn, _)| gfn).collect();
        let rejoined = self.rejoin(&home)?;
        for (gfn, _) in pooled {
            let is_shared = rejoined.binary_search(&gfn).is_ok();
            report(gfn, if is_shared { Sharing::Shared } else { Sharing::NotPrivate });
        }
        let (home, away): (Vec<_>, Vec<_>) = exist.into_iter().partition(|&(gfn, frame)| at_home(gfn, frame));
        for pairs in home.chunks(RUN_MAX as usize).chain(away.chunks(AWAY_MAX)) {
            let failed = |source| Error::Kernel { action: "sharing", gfn: pairs[0].0, source };
            let equal = self.lock_equal(pairs, report).map_err(failed)?;
            // Anew: until the lock was taken, somebody else could have placed the page.
            let (home, away): (Vec<_>, Vec<_>) =
                equal.into_iter().partition(|(page, frame)| at_home(page.gfn(), *frame));
            self.adopt_home(home, report).map_err(failed)?;
            self.adopt_away(away, report).map_err(failed)?;
        }
        Ok(())
    }

    /// Locks and protects what is private and keeps what equals its frame, whose reference is then counted.
    fn lock_equal(&self, pairs: &[(Gfn, Frame)], report: &mut dyn FnMut(Gfn, Sharing)) -> io::Result<Vec<Pair<'_, M>>> {
        let mut locked = Vec::with_capacity(pairs.len());
        for (at, &(gfn, frame)) in pairs.iter().enumerate() {
            if let Some(&(next, _)) = pairs.get(at + PREFETCH) {
                self.mapping.prefetch(next);
            }
            match self.lock_alike(gfn, frame) {
                Ok(page) => locked.push((page, frame)),
                Err(why) => report(gfn, why),
            }
        }
        let mut protected = Ok(());
        for run in runs(gfns(&locked)) {
            protected = self.mapping.protect(run).and(protected);
        }
        let equal = |(page, frame): &Pair<'_, M>| protected.is_ok() && self.mapping.equal(page.gfn(), *frame);
        let (equal, different): (Vec<_>, Vec<_>) = locked.into_iter().partition(equal);
        self.leave_private(different, Sharing::Different, report).and(protected).map(|()| equal)
    }

    /// Locks a private page and counts its reference to a published frame, if both look the same at a glance:
    /// most pages that differ are spared the protection.
    fn lock_alike(&self, gfn: Gfn, frame: Frame) -> Result<Locked<'_, M>, Sharing> {
        let page = self.lock_private(gfn).ok_or(Sharing::NotPrivate)?;
        // Counted first, looked up second: see `accounts::references`.
        self.references.add(frame);
        if self.mapping.published(frame) && self.mapping.alike(gfn, frame) {
            return Ok(page);
        }
        self.references.remove(frame);
        Err(Sharing::Different)
    }

    /// Puts protected pages back, and their references: private, like pages that nobody asked for.
    fn leave_private(
        &self,
        pairs: Vec<Pair<'_, M>>,
        why: Sharing,
        report: &mut dyn FnMut(Gfn, Sharing),
    ) -> io::Result<()> {
        pairs.iter().for_each(|&(_, frame)| self.references.remove(frame));
        runs(gfns(&pairs)).try_for_each(|run| self.mapping.unprotect(run))?;
        for (page, _) in pairs {
            let gfn = page.gfn();
            page.turn_into(Entry::private());
            report(gfn, why);
        }
        Ok(())
    }

    /// Maps frames in the place of protected, equal pages that are at home.
    fn adopt_home(&self, pairs: Vec<Pair<'_, M>>, report: &mut dyn FnMut(Gfn, Sharing)) -> io::Result<()> {
        let open = self.may_open();
        let runs: Vec<Run> = runs(gfns(&pairs)).collect();
        self.mapping.discard_all(&runs)?;
        runs.iter().try_for_each(|&run| self.mapping.map_placed(run, open))?;
        for (page, frame) in pairs {
            let gfn = page.gfn();
            page.turn_into(shared(frame, open));
            report(gfn, Sharing::Shared);
        }
        Ok(())
    }

    /// Whether there are credits to spare, so that shared pages can keep theirs and be open.
    pub(super) fn may_open(&self) -> bool {
        self.credits.available() >= self.open_credits
    }
}

pub(super) fn shared(frame: Frame, open: bool) -> Entry {
    if open { Entry::shared_open(frame) } else { Entry::shared(frame) }
}

fn gfns<M: Mapping>(pairs: &[Pair<'_, M>]) -> impl Iterator<Item = Gfn> {
    pairs.iter().map(|(page, _)| page.gfn())
}
