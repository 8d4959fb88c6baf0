//! Sharing: private pages give way to equal frames of the store.
//!
//! ```text
//!   lock, protect, compare          at home: the page's address is a mapping of this very frame
//!        │ equal                       discard, map                                     ~0.8 µs a page, in batches
//!        ├────────────────────────►
//!        │                          away: its address has to become one (an alias)
//!        └────────────────────────►    place all, register once, map, protect, look     ~14 µs a run
//! ```
//!
//! Aliases are made in ascending order, because a run that begins where the last one ended splits one area less; only when the
//! budget of areas does not reach for all are the longest made first.

use std::{cmp::Reverse, collections::BTreeSet, io};

use wire::{Frame, Gfn, Run, Sharing, runs};

use crate::{
    entry::Entry,
    mapping::Alias,
    mapping::{Mapping, RUN_MAX},
    rules::victims::LIVES_WRITTEN,
    transition::{Error, PREFETCH, Pages},
};

/// Pages whose aliases are made together: they stay locked for it, some ten microseconds a run.
const AWAY_MAX: usize = 64;

impl<M: Mapping> Pages<M> {
    /// Shares private pages with equal frames, and pages of the pool with those at home; reports what became of each, in any order. The pages ascend.
    pub fn share(&self, pairs: &[(Gfn, Frame)], report: &mut dyn FnMut(Gfn, Sharing)) -> Result<(), Error> {
        let exist = |&(gfn, frame): &(Gfn, Frame)| gfn.0 < self.count() && frame.0 < self.references.count();
        let (exist, strange): (Vec<_>, Vec<_>) = pairs.iter().partition(|pair| exist(pair));
        strange.iter().for_each(|&(gfn, _)| report(gfn, Sharing::NotPrivate));
        let at_home = |&(gfn, frame): &(Gfn, Frame)| self.mapping.placement(gfn) == frame;
        let (pooled, exist): (Vec<_>, Vec<_>) = exist.into_iter().partition(|&(gfn, _)| self.is_pooled(gfn));
        let home: Vec<_> = pooled.iter().filter(|pair| at_home(pair)).map(|&(gfn, _)| gfn).collect();
        let rejoined = self.rejoin(&home)?;
        for (gfn, _) in pooled {
            let is_shared = rejoined.binary_search(&gfn).is_ok();
            report(gfn, if is_shared { Sharing::Shared } else { Sharing::NotPrivate });
        }
        let (home, away): (Vec<_>, Vec<_>) = exist.into_iter().partition(at_home);
        for pairs in home.chunks(RUN_MAX as usize).chain(away.chunks(AWAY_MAX)) {
            let equal = self.lock_equal(pairs, report)?;
            // Anew: until the lock was taken, somebody else could have placed the page.
            let (home, away): (Vec<_>, Vec<_>) = equal.into_iter().partition(at_home);
            let adopted = self.adopt_home(&home, report);
            self.adopt_away(&away, report).and(adopted)?;
        }
        Ok(())
    }

    /// Locks and protects what is private and keeps what equals its frame, whose reference is then counted.
    fn lock_equal(
        &self,
        pairs: &[(Gfn, Frame)],
        report: &mut dyn FnMut(Gfn, Sharing),
    ) -> Result<Vec<(Gfn, Frame)>, Error> {
        let mut locked = Vec::with_capacity(pairs.len());
        for (at, &(gfn, frame)) in pairs.iter().enumerate() {
            if let Some(&(next, _)) = pairs.get(at + PREFETCH) {
                self.mapping.prefetch(next);
            }
            match self.lock_alike(gfn, frame) {
                Ok(()) => locked.push((gfn, frame)),
                Err(why) => report(gfn, why),
            }
        }
        let mut protected = Ok(());
        for run in runs(gfns(&locked)) {
            protected = self.mapping.protect(run).and(protected);
        }
        let mut different = Vec::new();
        locked.retain(|&(gfn, frame)| {
            let equal = protected.is_ok() && self.mapping.equal(gfn, frame);
            if !equal {
                self.references.remove(frame);
                different.push(gfn);
            }
            equal
        });
        let left = self.leave_private(different, Sharing::Different, report);
        protected.and(left).map(|()| locked).map_err(|source| sharing(pairs, source))
    }

    /// Locks a private page and counts its reference to a published frame, if both look the same at a glance: most pages that differ
    /// are spared the protection.
    fn lock_alike(&self, gfn: Gfn, frame: Frame) -> Result<(), Sharing> {
        let (_, entry) = self.lock_one_private(gfn).ok_or(Sharing::NotPrivate)?;
        // Counted first, looked up second: see `frames`.
        self.references.add(frame);
        if self.mapping.published(frame) && self.mapping.alike(gfn, frame) {
            return Ok(());
        }
        self.references.remove(frame);
        self.unlock(gfn, Entry::private(), entry);
        Err(Sharing::Different)
    }

    /// Puts locked and protected pages back as they were.
    fn leave_private(&self, gfns: Vec<Gfn>, why: Sharing, report: &mut dyn FnMut(Gfn, Sharing)) -> io::Result<()> {
        let mut result = Ok(());
        for run in runs(gfns) {
            result = self.mapping.unprotect(run).and(result);
            for gfn in run.gfns() {
                self.unlock(gfn, Entry::private(), Entry::private());
                report(gfn, why);
            }
        }
        result
    }

    /// Maps frames in the place of protected, locked, equal pages that are at home.
    fn adopt_home(&self, pairs: &[(Gfn, Frame)], report: &mut dyn FnMut(Gfn, Sharing)) -> Result<(), Error> {
        let open = self.may_open();
        let runs: Vec<_> = runs(gfns(pairs)).collect();
        let discarded = self.mapping.discard_all(&runs);
        let result = discarded.and_then(|()| runs.iter().try_for_each(|&run| self.mapping.map_placed(run, open)));
        for &(gfn, frame) in pairs {
            self.unlock(gfn, Entry::private(), shared(frame, open));
            report(gfn, Sharing::Shared);
        }
        result.map_err(|source| sharing(pairs, source))
    }

    /// Makes protected, locked, equal pages aliases of their frames.
    fn adopt_away(&self, pairs: &[(Gfn, Frame)], report: &mut dyn FnMut(Gfn, Sharing)) -> Result<(), Error> {
        let (aliases, refused) = self.within_budget(aliases(pairs));
        let (refused, adopted): (Vec<_>, Vec<_>) = pairs.iter().partition(|(gfn, _)| refused.contains(gfn));
        refused.iter().for_each(|&(_, frame)| self.references.remove(frame));
        let left = self.leave_private(gfns(&refused).collect(), Sharing::Refused, report);
        let open = self.may_open();
        let placed = left.and_then(|()| self.place(&aliases, open));
        for &(gfn, frame) in &adopted {
            if placed.as_ref().is_ok_and(|copied| copied.contains(&gfn)) {
                self.references.remove(frame);
                self.unlock(gfn, Entry::private(), Entry::private_with(LIVES_WRITTEN));
                report(gfn, Sharing::Different);
            } else {
                self.unlock(gfn, Entry::private(), shared(frame, open));
                report(gfn, Sharing::Shared);
            }
        }
        placed.map(drop).map_err(|source| sharing(pairs, source))
    }

    /// The aliases there is room for, ascending, and the pages of the others: an alias adds at most two areas.
    fn within_budget(&self, mut aliases: Vec<Alias>) -> (Vec<Alias>, BTreeSet<Gfn>) {
        let room = self.vma_budget.saturating_sub(self.mapping.vmas()) as usize / 2;
        if aliases.len() <= room {
            return (aliases, BTreeSet::new());
        }
        aliases.sort_by_key(|alias| Reverse(alias.run.count));
        let refused = aliases.split_off(room).into_iter().flat_map(|alias| alias.run.gfns()).collect();
        aliases.sort_by_key(|alias| alias.run.first);
        (aliases, refused)
    }

    /// Whether there are credits to spare, so that shared pages can keep theirs and be open.
    fn may_open(&self) -> bool {
        self.credits.available() >= self.open_credits
    }

    /// Changes the placements and maps the frames. Pages that the guest wrote to in between, and so has copies of; none if they
    /// are open: such copies are noted later.
    fn place(&self, aliases: &[Alias], open: bool) -> io::Result<BTreeSet<Gfn>> {
        let mut copied = BTreeSet::new();
        let (Some(first), Some(last)) = (aliases.first(), aliases.last()) else { return Ok(copied) };
        self.mapping.place(aliases)?;
        for alias in aliases {
            self.mapping.map_placed(alias.run, open)?;
        }
        if open {
            return Ok(copied);
        }
        // An access between the placing and its registration may have mapped a page before us, unprotected: to its frame, or,
        // if it wrote, to a copy. Protected, neither can change; then look.
        let mine = || aliases.iter().flat_map(|alias| alias.run.gfns());
        for run in runs(mine()) {
            self.mapping.protect(run)?;
        }
        let end = last.run.first.0 + last.run.count;
        self.mapping.anonymous(Run { first: first.run.first, count: end - first.run.first.0 }, &mut |run| {
            copied.extend(run.gfns());
        })?;
        let mine: BTreeSet<Gfn> = mine().collect();
        copied.retain(|gfn| mine.contains(gfn));
        for run in runs(copied.iter().copied()) {
            self.mapping.unprotect(run)?;
        }
        Ok(copied)
    }
}

fn shared(frame: Frame, open: bool) -> Entry {
    if open { Entry::shared_open(frame) } else { Entry::shared(frame) }
}

fn gfns(pairs: &[(Gfn, Frame)]) -> impl Iterator<Item = Gfn> {
    pairs.iter().map(|&(gfn, _)| gfn)
}

fn aliases(pairs: &[(Gfn, Frame)]) -> Vec<Alias> {
    let follows = |a: &(Gfn, Frame), b: &(Gfn, Frame)| a.0.0 + 1 == b.0.0 && a.1.0 + 1 == b.1.0;
    let alias = |pairs: &[(Gfn, Frame)]| {
        let (first, frame) = pairs[0];
        Alias { run: Run { first, count: pairs.len() as u32 }, frame }
    };
    pairs.chunk_by(follows).map(alias).collect()
}

fn sharing(pairs: &[(Gfn, Frame)], source: io::Error) -> Error {
    let gfn = pairs.first().map_or(Gfn(0), |&(gfn, _)| gfn);
    Error::Kernel { action: "sharing", gfn, source }
}
