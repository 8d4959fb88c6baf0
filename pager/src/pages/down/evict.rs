//! Eviction: private pages leave memory for the cheapest tier that takes them.

use std::io;

use wire::{Gfn, Run, runs};

use super::staging::{Fate, Staged, Staging};
use crate::{
    mapping::Mapping,
    pages::{
        Error, Pages,
        locked::Locked,
        table::{Entry, Page},
    },
    rules::victims::{LIVES_NOISE, LIVES_WRITTEN},
};

/// Pages between two that go, at most, over which protection is stretched: a block of the hand's.
const GAP_MAX: u32 = 32;

/// What became of pages to be evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Pages lent to the kernel, compressed, found filled with one pattern, found zero, or written to the
    /// swap file.
    pub evicted: u32,
    /// Pages that stay because they do not compress, and no swap file takes them.
    pub incompressible: u32,
}

/// What becomes of a page that does not compress while there is a swap file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// It stays the first time it is found so, with [`LIVES_NOISE`]: writing it and its return cost several
    /// times what they cost a page of the pool.
    Spared,
    /// It goes to the file.
    Written,
}

/// How a page is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Density {
    /// By lz4, if that does.
    Quick,
    /// By zstd.
    Dense,
}

/// A page whose content is safe elsewhere, and what it is to become.
type Stored<'p, M> = (Locked<'p, M>, Entry);

impl<M: Mapping> Pages<M> {
    /// Evicts private pages, all of `gfns` (which ascend) that are private, in memory and not in motion.
    pub fn evict(&self, gfns: &[Gfn], noise: Noise, staging: &mut Staging) -> Result<Evicted, Error> {
        let mut outcome = Evicted::default();
        let victims = gfns.iter().filter_map(|&gfn| self.lock_here(gfn));
        let (lent, victims): (Vec<_>, Vec<_>) = victims.partition(|page| self.suits_kernel(page, staging.page()));
        outcome.evicted = lent.len() as u32;
        self.lend(lent, |lent| lent)?;
        self.store_all(victims, Density::Quick, noise, staging, &mut outcome)?;
        Ok(outcome)
    }

    /// On from the kernel: pages of `gfns` (which ascend) that are lent to it and not in motion are packed
    /// densely, or written to the swap file. How many went.
    pub fn pack_lent(&self, gfns: &[Gfn], staging: &mut Staging) -> Result<u32, Error> {
        let mut outcome = Evicted::default();
        let lent = gfns.iter().filter_map(|&gfn| self.lock_if(gfn, Entry::is_lent)).collect();
        self.store_all(lent, Density::Dense, Noise::Written, staging, &mut outcome)?;
        Ok(outcome.evicted)
    }

    /// Takes private pages, which ascend, to the tiers that are ours.
    fn store_all(
        &self,
        victims: Vec<Locked<'_, M>>,
        density: Density,
        noise: Noise,
        staging: &mut Staging,
        outcome: &mut Evicted,
    ) -> Result<(), Error> {
        let protected = self.protect_all(&victims);
        protected.map_err(|(gfn, source)| Error::Kernel { action: "protecting", gfn, source })?;
        let (mut stored, mut staged) = (Vec::with_capacity(victims.len()), Staged::new(staging));
        for page in victims {
            if staged.is_full() {
                self.evict_staged(&mut staged, outcome)?;
            }
            let gfn = page.gfn();
            self.mapping.read(gfn, staged.next());
            let (content, squeeze) = staged.next_and_squeeze();
            let clean = self.image.as_ref().is_some_and(|image| image.holds(gfn, content));
            let clean = clean.then(|| Entry::clean(self.now()));
            let was_noise = matches!(page.decode(), Page::Private { incompressible: true, .. });
            let quick = || match density {
                Density::Quick => self.store(gfn, content),
                Density::Dense => self.store_filled(content),
            };
            match clean.or_else(quick).or_else(|| self.store_densely(gfn, content, squeeze)) {
                Some(entry) => stored.push((page, entry)),
                None if self.swap_usable() && (noise == Noise::Written || was_noise) => staged.push(page),
                None => {
                    let lives = if self.swap_usable() { LIVES_NOISE } else { 0 };
                    outcome.incompressible += 1;
                    self.keep(page, Entry::private_with(lives).into_incompressible())?;
                }
            }
        }
        self.give_away(stored, outcome)?;
        self.evict_staged(&mut staged, outcome)
    }

    /// Protects locked pages, which ascend, in as few calls as possible: each interrupts all CPUs that run
    /// the guest, for their TLBs.
    ///
    /// Pages that are away may lie in between: protection leaves the mark on them that they have anyhow. One
    /// of them that comes back meanwhile may be protected by mistake, which costs its next write a fault.
    fn protect_all(&self, pages: &[Locked<'_, M>]) -> Result<(), (Gfn, io::Error)> {
        let is_away = |gfn: Gfn| self.table.peek(gfn).is_away();
        let joined = |a: &Locked<'_, M>, b: &Locked<'_, M>| {
            let (a, b) = (a.gfn().0, b.gfn().0);
            b - a <= GAP_MAX && (a + 1..b).map(Gfn).all(is_away)
        };
        for span in pages.chunk_by(joined) {
            let (first, last) = (span[0].gfn(), span[span.len() - 1].gfn());
            let run = Run { first, count: last.0 - first.0 + 1 };
            // It fails where the mapping of a page in between is being replaced: then one by one.
            let victims = || runs(span.iter().map(Locked::gfn)).try_for_each(|run| self.mapping.protect(run));
            self.mapping.protect(run).or_else(|_| victims()).map_err(|source| (first, source))?;
        }
        Ok(())
    }

    fn evict_staged(&self, staged: &mut Staged<'_, '_, M>, outcome: &mut Evicted) -> Result<(), Error> {
        let Some(swap) = &self.swap else { return Ok(()) };
        let mut stored = Vec::new();
        for (page, fate) in staged.write(swap, self.counters.now_ms()) {
            match fate {
                Fate::Written(slot) => stored.push((page, Entry::swapped(slot, self.now()))),
                Fate::Wanted => self.keep(page, Entry::private_with(LIVES_WRITTEN))?,
                Fate::Kept => {
                    outcome.incompressible += 1;
                    self.keep(page, Entry::private().into_incompressible())?;
                }
            }
        }
        self.give_away(stored, outcome)
    }

    /// A protected page stays private after all.
    fn keep(&self, page: Locked<'_, M>, entry: Entry) -> Result<(), Error> {
        let gfn = page.gfn();
        let unprotected = self.mapping.unprotect(gfn.run());
        unprotected.map_err(|source| Error::Kernel { action: "unprotecting", gfn, source })?;
        page.turn_into(entry);
        Ok(())
    }

    /// Pages, ascending, whose content is safe elsewhere go.
    fn give_away(&self, stored: Vec<Stored<'_, M>>, outcome: &mut Evicted) -> Result<(), Error> {
        let Some((first, _)) = stored.first() else { return Ok(()) };
        let gfn = first.gfn();
        let runs: Vec<_> = runs(stored.iter().map(|(page, _)| page.gfn())).collect();
        self.mapping.discard_all(&runs).map_err(|source| Error::Kernel { action: "evicting", gfn, source })?;
        outcome.evicted += stored.len() as u32;
        stored.into_iter().for_each(|(page, entry)| page.turn_into(entry));
        Ok(())
    }

    /// Whether there is a swap file that takes pages now.
    pub fn swap_usable(&self) -> bool {
        self.swap.as_ref().is_some_and(|swap| swap.usable(self.counters.now_ms()))
    }
}
