//! Which pages go, and who does the work: the clock hand and the evictor thread.
//!
//! There are no accessed bits to read, so a page's only sign of life is the fault that brought it in (*hot*). The hand goes round
//! RAM; a hot page it passes is cooled and spared, a cool private page is evicted. Whatever the guest needs soon it faults
//! back in, hot again: reclaim is the probe. A second hand goes round the pages in the pool, in the same order, and so from those that
//! were compressed longest ago: they go on to the swap file when the pool has grown too large.

use crate::{
    entry::State,
    mapping::Mapping,
    sync::Ordering,
    transition::{Error, Evicted, Pages, Staging, in_pool},
    units::Gfn,
};

/// Pages evicted between two looks at whether that was enough; bounds what the pool may overdraw, see
/// [`crate::credit::EVICTOR_RESERVE`].
pub const BATCH: usize = 32;
/// Pages the hand passes in one step: a quarter of a small guest, so that a fault waits for no long search.
const STRIDE: u32 = 16_384;
/// Pages younger than this many eras stay in the pool while there are older ones.
const YOUNG_ERAS: u64 = 2;

/// Where the hands stand.
pub struct Clock {
    hand: u32,
    /// Pages passed since an eviction succeeded.
    barren: u32,
    pool_hand: u32,
    /// Pages the pool's hand passed since it found one to write.
    pool_barren: u32,
    staging: Staging,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { hand: 0, barren: 0, pool_hand: 0, pool_barren: 0, staging: Staging::new(BATCH) }
    }
}

impl Clock {
    /// Evicts up to [`BATCH`] pages, the next cool ones. Fewer when the hand meets few in [`STRIDE`] steps.
    pub fn evict<M: Mapping>(&mut self, pages: &Pages<M>) -> Result<Evicted, Error> {
        let mut victims = Vec::with_capacity(BATCH);
        let swaps = pages.swap_usable();
        for _ in 0..STRIDE.min(pages.table.pages()) {
            let gfn = Gfn(self.hand);
            self.hand = (self.hand + 1) % pages.table.pages();
            self.barren = self.barren.saturating_add(1);
            let entry = pages.table.peek(gfn);
            if entry.state() != State::Private {
                continue;
            }
            if entry.hot() || entry.incompressible() && !swaps {
                pages.cool(gfn, self.desperate(pages));
                continue;
            }
            victims.push(gfn);
            if victims.len() == BATCH {
                break;
            }
        }
        victims.sort_unstable();
        let outcome = pages.evict(&victims, &mut self.staging)?;
        if outcome.evicted > 0 {
            self.barren = 0;
        }
        pages.counters.evictions.fetch_add(u64::from(outcome.evicted), Ordering::Relaxed);
        pages.counters.incompressible.fetch_add(u64::from(outcome.incompressible), Ordering::Relaxed);
        Ok(outcome)
    }

    /// Moves up to [`BATCH`] pages from the pool to the swap file, old ones first. How many went.
    pub fn write_back<M: Mapping>(&mut self, pages: &Pages<M>) -> Result<u32, Error> {
        let mut victims = Vec::with_capacity(BATCH);
        let era = pages.counters.era();
        for _ in 0..STRIDE.min(pages.table.pages()) {
            let gfn = Gfn(self.pool_hand);
            self.pool_hand = (self.pool_hand + 1) % pages.table.pages();
            self.pool_barren = self.pool_barren.saturating_add(1);
            let entry = pages.table.peek(gfn);
            let young = era.wrapping_sub(entry.era()) & 0b11 < YOUNG_ERAS;
            if in_pool(entry) && (!young || self.pool_barren > pages.table.pages()) {
                victims.push(gfn);
                if victims.len() == BATCH {
                    break;
                }
            }
        }
        let gone = pages.write_back(&victims, &mut self.staging)?;
        if gone > 0 {
            self.pool_barren = 0;
        }
        Ok(gone)
    }

    /// Twice round the pool's pages without one that could be written.
    pub fn nothing_to_write_back<M: Mapping>(&self, pages: &Pages<M>) -> bool {
        self.pool_barren > 2 * pages.table.pages()
    }

    /// Twice round without a page: those that would not compress may have changed since.
    fn desperate<M: Mapping>(&self, pages: &Pages<M>) -> bool {
        self.barren > 2 * pages.table.pages()
    }

    /// Three times round without a page: there is nothing to evict.
    pub fn exhausted<M: Mapping>(&self, pages: &Pages<M>) -> bool {
        self.barren > 3 * pages.table.pages()
    }
}
