//! Upkeep of the pool: pages that stay in it are packed denser, and slabs with few pages left are emptied.
//!
//! ```text
//!   Compressed, lz4 --- lock, decompress, zstd ---> Compressed, zstd: another slot, if it is smaller
//!   Compressed      --- lock, move ---------------> Compressed: a slot in a fuller slab
//! ```
//!
//! The page itself is absent all the time: what is locked out is only the fault that would bring it back.

use super::{Error, Pages, Staging, demote::in_pool};
use crate::{
    mapping::Mapping,
    pool::{Codec, SLAB_PAGES, is_smaller},
    sync::lock,
    units::Gfn,
};

impl<M: Mapping> Pages<M> {
    /// Compresses pages anew, all of `gfns` that are in the pool, not in motion, and not dense yet. How many take less room now.
    pub fn recompress(&self, gfns: &[Gfn], staging: &mut Staging) -> Result<u32, Error> {
        let mut smaller = 0;
        for &gfn in gfns {
            let Some(entry) = self.lock_if(gfn, |entry| in_pool(entry) && !entry.dense()) else { continue };
            if let Err(error) = self.content(gfn, entry, staging.next()) {
                self.unlock(gfn, entry, entry);
                return Err(error);
            }
            let old = lock(&self.pool).length(entry.slot());
            let (page, squeeze) = staging.next_and_squeeze();
            let bytes = squeeze.densely(page).filter(|bytes| is_smaller(bytes.len(), old));
            let slot = bytes.and_then(|bytes| self.put(gfn, Codec::Zstd, bytes));
            let new = match slot {
                Some(slot) => {
                    smaller += 1;
                    self.free_slot(entry);
                    entry.with_slot(slot)
                }
                None => entry,
            };
            self.unlock(gfn, entry, new.into_dense());
        }
        Ok(smaller)
    }

    /// Empties one slab of the pool whose pieces fit elsewhere, as far as its pages are not in motion. How many pages moved.
    pub fn compact(&self) -> u32 {
        let Some((slab, owners)) = lock(&self.pool).sparse_slab() else { return 0 };
        let mut moved = 0;
        for gfn in owners {
            let Some(entry) = self.lock_if(gfn, in_pool) else { continue };
            let relocated = lock(&self.pool).relocate(entry.slot(), slab);
            let new = match relocated {
                Some((slot, emptied)) => {
                    moved += 1;
                    self.credits.give(emptied * SLAB_PAGES);
                    entry.with_slot(slot)
                }
                None => entry,
            };
            self.unlock(gfn, entry, new);
        }
        moved
    }
}
