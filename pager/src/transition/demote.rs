//! Down the tiers: from a page of its own to a pattern in the entry, or a slot of the pool.

use super::{Error, FILLED, Pages, pieces};
use crate::{
    entry::Entry,
    mapping::Mapping,
    pool::{COMPRESSED_BYTES_MAX, SLAB_PAGES},
    sync::lock,
    units::{Gfn, PAGE_BYTES, PageBytes, Run, runs},
};

/// What became of pages to be evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Pages compressed, found filled with one pattern, or found zero.
    pub evicted: u32,
    /// Pages that stay because they do not compress.
    pub incompressible: u32,
}

impl<M: Mapping> Pages<M> {
    /// Compresses private pages, all of `gfns` that are private and not in motion.
    pub fn evict(&self, gfns: &[Gfn]) -> Result<Evicted, Error> {
        let mut outcome = Evicted::default();
        let locked: Vec<_> = gfns.iter().filter_map(|&gfn| self.lock_one_private(gfn)).collect();
        for run in runs(locked.into_iter().map(|(gfn, _)| gfn)).flat_map(pieces) {
            self.evict_locked(run, &mut outcome)?;
        }
        Ok(outcome)
    }

    fn evict_locked(&self, run: Run, outcome: &mut Evicted) -> Result<(), Error> {
        if let Err(source) = self.mapping.protect(run) {
            run.gfns().for_each(|gfn| self.unlock(gfn, Entry::private(), Entry::private()));
            return Err(Error::Kernel { action: "protecting", gfn: run.first, source });
        }
        let mut stored = Vec::with_capacity(run.count as usize);
        let mut error = None;
        for gfn in run.gfns() {
            match self.store(gfn) {
                Some(entry) => stored.push((gfn, entry)),
                None => {
                    outcome.incompressible += 1;
                    error = error.or(self.mapping.unprotect(gfn.run()).err());
                    self.unlock(gfn, Entry::private(), Entry::private().into_incompressible());
                }
            }
        }
        for run in runs(stored.iter().map(|&(gfn, _)| gfn)) {
            error = error.or(self.mapping.discard(run).err());
        }
        outcome.evicted += stored.len() as u32;
        for (gfn, entry) in stored {
            self.unlock(gfn, Entry::private(), entry);
        }
        error.map_or(Ok(()), |source| Err(Error::Kernel { action: "evicting", gfn: run.first, source }))
    }

    /// Puts a protected page's content into the cheapest tier that takes it.
    fn store(&self, gfn: Gfn) -> Option<Entry> {
        let mut page = [0; PAGE_BYTES];
        self.mapping.read(gfn, &mut page);
        let era = self.counters.era();
        if let Some(pattern) = filled_with(&page) {
            let entry =
                if pattern == 0 { Entry::zero_touched() } else { Entry::compressed(FILLED | u64::from(pattern), era) };
            return Some(entry);
        }
        let mut compressed = [0; lz4_flex::block::get_maximum_output_size(PAGE_BYTES)];
        let length = lz4_flex::block::compress_into(&page, &mut compressed).ok()?;
        if length > COMPRESSED_BYTES_MAX {
            return None;
        }
        let mut pool = lock(&self.pool);
        if pool.needs_slab(length) {
            self.credits.force(SLAB_PAGES);
        }
        let before = pool.bytes();
        let slot = pool.store(&compressed[..length]).ok();
        if slot.is_none() && pool.bytes() == before {
            self.credits.give(SLAB_PAGES);
        }
        slot.map(|slot| Entry::compressed(slot, era))
    }
}

/// The 32-bit pattern that fills the page, if one does.
fn filled_with(page: &PageBytes) -> Option<u32> {
    let first = &page[..4];
    let pattern = u32::from_ne_bytes([first[0], first[1], first[2], first[3]]);
    page.chunks_exact(4).all(|word| word == first).then_some(pattern)
}
