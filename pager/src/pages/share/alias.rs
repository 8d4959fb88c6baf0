//! Aliases: pages whose address range is made a mapping of frames elsewhere in the store.
//!
//! ```text
//!   place all, register once, map, protect, look for what the guest wrote in between      ~14 µs a run
//! ```
//!
//! Aliases are made in ascending order, because a run that begins where the last one ended splits one area
//! less; only when the budget of areas does not reach for all are the longest made first.

use std::{cmp::Reverse, collections::BTreeSet, io};

use wire::{Gfn, Run, Sharing, runs};

use super::{Pair, shared};
use crate::{
    mapping::{Alias, Mapping},
    pages::{Pages, table::Entry},
    rules::victims::LIVES_WRITTEN,
};

impl<M: Mapping> Pages<M> {
    /// Makes protected, equal pages aliases of their frames.
    pub(super) fn adopt_away(&self, pairs: Vec<Pair<'_, M>>, report: &mut dyn FnMut(Gfn, Sharing)) -> io::Result<()> {
        let (aliases, refused) = self.within_budget(aliases(&pairs));
        let (refused, adopted): (Vec<_>, Vec<_>) =
            pairs.into_iter().partition(|(page, _)| refused.contains(&page.gfn()));
        self.leave_private(refused, Sharing::Refused, report)?;
        let open = self.may_open();
        let copied = self.place(&aliases, open)?;
        for (page, frame) in adopted {
            let gfn = page.gfn();
            if copied.contains(&gfn) {
                self.references.remove(frame);
                page.turn_into(Entry::private_with(LIVES_WRITTEN));
                report(gfn, Sharing::Different);
            } else {
                page.turn_into(shared(frame, open));
                report(gfn, Sharing::Shared);
            }
        }
        Ok(())
    }

    /// The aliases there is room for, ascending, and the pages of the others: an alias adds at most two
    /// areas.
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

    /// Changes the placements and maps the frames. Pages that the guest wrote to in between, and so has
    /// copies of; none if they are open: such copies are noted later.
    fn place(&self, aliases: &[Alias], open: bool) -> io::Result<BTreeSet<Gfn>> {
        let mut copied = BTreeSet::new();
        if aliases.is_empty() {
            return Ok(copied);
        }
        self.mapping.place(aliases)?;
        for alias in aliases {
            self.mapping.map_placed(alias.run, open)?;
        }
        if open {
            return Ok(copied);
        }
        // An access between the placing and its registration may have mapped a page before us, unprotected:
        // to its frame, or, if it wrote, to a copy. Protected, neither can change; then look.
        let mine = || aliases.iter().flat_map(|alias| alias.run.gfns());
        for run in runs(mine()) {
            self.mapping.protect(run)?;
        }
        for alias in aliases {
            copied.extend(self.copied(alias.run)?);
        }
        for run in runs(copied.iter().copied()) {
            self.mapping.unprotect(run)?;
        }
        Ok(copied)
    }
}

/// Neighbours whose frames are neighbours, together.
fn aliases<M: Mapping>(pairs: &[Pair<'_, M>]) -> Vec<Alias> {
    let follows = |a: &Pair<'_, M>, b: &Pair<'_, M>| a.0.gfn().plus(1) == b.0.gfn() && a.1.plus(1) == b.1;
    let alias = |pairs: &[Pair<'_, M>]| {
        let (first, frame) = &pairs[0];
        Alias { run: Run { first: first.gfn(), count: pairs.len() as u32 }, frame: *frame }
    };
    pairs.chunk_by(follows).map(alias).collect()
}
