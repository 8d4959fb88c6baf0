//! Which pages go, and who does the work: the clock hand and the evictor thread.
//!
//! There are no accessed bits to read, so a page's only sign of life is the fault that brought it in (*hot*). The hand goes round
//! RAM; a hot page it passes is cooled and spared, a cool private page is evicted. Whatever the guest needs soon it faults
//! back in, hot again: reclaim is the probe.

use crate::{
    entry::State,
    mapping::Mapping,
    sync::Ordering,
    transition::{Error, Evicted, Pages},
    units::Gfn,
};

/// Pages evicted between two looks at whether that was enough; bounds what the pool may overdraw, see
/// [`crate::credit::EVICTOR_RESERVE`].
pub const BATCH: usize = 32;
/// Pages the hand passes in one step: a quarter of a small guest, so that a fault waits for no long search.
const STRIDE: u32 = 16_384;

/// Where the clock hand stands.
#[derive(Default)]
pub struct Clock {
    hand: u32,
    /// Pages passed since an eviction succeeded.
    barren: u32,
}

impl Clock {
    /// Evicts up to [`BATCH`] pages, the next cool ones. Fewer when the hand meets few in [`STRIDE`] steps.
    pub fn evict<M: Mapping>(&mut self, pages: &Pages<M>) -> Result<Evicted, Error> {
        let mut victims = Vec::with_capacity(BATCH);
        for _ in 0..STRIDE.min(pages.table.pages()) {
            let gfn = Gfn(self.hand);
            self.hand = (self.hand + 1) % pages.table.pages();
            self.barren = self.barren.saturating_add(1);
            let entry = pages.table.peek(gfn);
            if entry.state() != State::Private {
                continue;
            }
            if entry.hot() || entry.incompressible() {
                pages.cool(gfn, self.desperate(pages));
                continue;
            }
            victims.push(gfn);
            if victims.len() == BATCH {
                break;
            }
        }
        victims.sort_unstable();
        let outcome = pages.evict(&victims)?;
        if outcome.evicted > 0 {
            self.barren = 0;
        }
        pages.counters.evictions.fetch_add(u64::from(outcome.evicted), Ordering::Relaxed);
        pages.counters.incompressible.fetch_add(u64::from(outcome.incompressible), Ordering::Relaxed);
        Ok(outcome)
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
