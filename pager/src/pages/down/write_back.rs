//! From the pool to the swap file: what nobody has asked for in a long time makes room in memory.

use wire::Gfn;

use super::staging::{Fate, Staged, Staging};
use crate::{
    mapping::Mapping,
    pages::{Error, Pages, table::Entry},
};

impl<M: Mapping> Pages<M> {
    /// Moves pages from the pool to the swap file, all of `gfns` that are in the pool and not in motion. How
    /// many went.
    pub fn write_back(&self, gfns: &[Gfn], staging: &mut Staging) -> Result<u32, Error> {
        let Some(swap) = self.swap.as_ref().filter(|_| self.swap_usable()) else { return Ok(0) };
        let mut gone = 0;
        for gfns in gfns.chunks(staging.buffer.pages()) {
            let mut staged = Staged::new(staging);
            for &gfn in gfns {
                let Some(page) = self.lock_if(gfn, Entry::is_pooled) else { continue };
                self.content(gfn, page.entry(), staged.next())?;
                staged.push(page);
            }
            for (page, fate) in staged.write(swap, self.counters.now_ms()) {
                let Fate::Written(slot) = fate else { continue };
                let entry = page.entry();
                self.free_backing(entry);
                page.turn_into(Entry::swapped(slot, entry.left()));
                gone += 1;
            }
        }
        Ok(gone)
    }
}
