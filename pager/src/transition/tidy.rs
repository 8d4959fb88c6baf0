//! Upkeep of the pool: pages that stay in it are packed denser, and slabs with few pages left are emptied.
//!
//! ```text
//!   Compressed, lz4 --- lock, decompress, zstd ---> Compressed, zstd, or a patch (see `patch`): another slot, if it is smaller
//!   Compressed      --- lock, move ---------------> Compressed: a slot in a fuller slab
//! ```
//!
//! The page itself is absent all the time: what is locked out is only the fault that would bring it back.

use super::{Error, Pages, Staging, demote::in_pool};
use crate::tiers::squeeze::Squeeze;
use wire::{Gfn, PageBytes};

use crate::{
    entry::Entry,
    mapping::Mapping,
    sync::lock,
    tiers::{
        library::Library,
        pool::{Codec, SLAB_PAGES, is_smaller},
    },
};

impl<M: Mapping> Pages<M> {
    /// Compresses pages anew, all of `gfns` that are in the pool, not in motion, and not packed yet, as far as credits reach. How many take less room now.
    pub fn recompress(&self, gfns: &[Gfn], staging: &mut Staging, library: &mut Library) -> Result<u32, Error> {
        let mut smaller = 0;
        for &gfn in gfns {
            // At most one slab for the page alone, and one for its patch; the room it leaves may come back much later.
            if !self.credits.covers(2 * SLAB_PAGES) {
                break;
            }
            let Some(entry) = self.lock_if(gfn, |entry| in_pool(entry) && !entry.packed()) else { continue };
            if let Err(error) = self.content(gfn, entry, staging.next()) {
                self.unlock(gfn, entry, entry);
                return Err(error);
            }
            let (page, squeeze) = staging.next_and_squeeze();
            let packed = self.pack(gfn, entry, page, squeeze);
            let packed = self.patch(gfn, packed, page, squeeze, library);
            smaller += u32::from(packed != entry);
            self.unlock(gfn, entry, packed.into_packed());
        }
        Ok(smaller)
    }

    /// Compresses `page`, which is locked and in the pool, by zstd, if it is there by lz4 and that takes less room. Its entry from now on.
    fn pack(&self, gfn: Gfn, entry: Entry, page: &PageBytes, squeeze: &mut Squeeze) -> Entry {
        let (quick, old) = {
            let pool = lock(&self.pool);
            (pool.is_quick(entry.slot()), pool.length(entry.slot()))
        };
        if !quick {
            return entry;
        }
        let bytes = squeeze.densely(page).filter(|bytes| is_smaller(bytes.len(), old));
        bytes.and_then(|bytes| self.replace(gfn, entry, Codec::Zstd, bytes)).unwrap_or(entry)
    }

    /// Puts other bytes in the place of a locked page's, if the pool has room for them. Its entry from now on.
    pub(super) fn replace(&self, gfn: Gfn, entry: Entry, codec: Codec, bytes: &[u8]) -> Option<Entry> {
        let slot = self.put(gfn, codec, bytes)?;
        self.free_slot(entry);
        Some(entry.with_slot(slot))
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
