//! Upkeep of the pool: pages that stay in it are packed denser, and slabs with few pages left are emptied.
//!
//! ```text
//!   Pooled, lz4 --- lock, decompress, zstd ---> Pooled, zstd, or a patch, if that is smaller
//!   Pooled      --- lock, move ---------------> Pooled, in a fuller slab
//! ```
//!
//! The page itself is absent all the time: what is locked out is only the fault that would bring it back.

use wire::{Gfn, PageBytes};

use super::staging::Staging;
use crate::{
    mapping::Mapping,
    pages::{
        Error, Pages,
        locked::Locked,
        table::{Entry, Page},
    },
    sync::lock,
    tiers::{
        library::Library,
        pool::{Codec, SLAB_PAGES, is_smaller},
        squeeze::Squeeze,
    },
};

impl<M: Mapping> Pages<M> {
    /// Compresses pages anew, all of `gfns` that are in the pool, not in motion, and not packed yet, as far
    /// as credits reach. How many take less room now.
    pub fn recompress(&self, gfns: &[Gfn], staging: &mut Staging, library: &mut Library) -> Result<u32, Error> {
        let mut smaller = 0;
        for &gfn in gfns {
            // At most one slab for the page alone, and one for its patch; the room it leaves may come back
            // much later.
            if !self.credits.covers(2 * SLAB_PAGES) {
                break;
            }
            let loose = |entry: Entry| matches!(entry.decode(), Page::Pooled { packed: false, .. });
            let Some(mut page) = self.lock_if(gfn, loose) else { continue };
            self.content(gfn, page.entry(), staging.page())?;
            let (content, squeeze) = staging.page_and_squeeze();
            let packed = self.pack(&mut page, content, squeeze);
            let patched = self.patch(&mut page, content, squeeze, library);
            smaller += u32::from(packed || patched);
            let entry = page.entry().into_packed();
            page.turn_into(entry);
        }
        Ok(smaller)
    }

    /// Compresses a page of the pool by zstd, if it is there by lz4 and that takes less room. Whether it was.
    fn pack(&self, page: &mut Locked<'_, M>, content: &PageBytes, squeeze: &mut Squeeze) -> bool {
        let Page::Pooled { slot, .. } = page.decode() else { return false };
        let (quick, old) = {
            let pool = lock(&self.pool);
            (pool.is_quick(slot), pool.length(slot))
        };
        let bytes = if quick { squeeze.densely(content) } else { None };
        let bytes = bytes.filter(|bytes| is_smaller(bytes.len(), old));
        bytes.is_some_and(|bytes| self.replace(page, slot, Codec::Zstd, bytes))
    }

    /// Empties one slab of the pool whose pieces fit elsewhere, as far as its pages are not in motion. How
    /// many pages moved.
    pub fn compact(&self) -> u32 {
        let Some((slab, owners)) = lock(&self.pool).sparse_slab() else { return 0 };
        let mut moved = 0;
        for page in owners.into_iter().filter_map(|gfn| self.lock_if(gfn, Entry::is_pooled)) {
            let Page::Pooled { slot, .. } = page.decode() else { continue };
            let relocated = lock(&self.pool).relocate(slot, slab);
            if let Some((slot, emptied)) = relocated {
                moved += 1;
                self.credits.give(emptied * SLAB_PAGES);
                let entry = page.entry().with_slot(slot);
                page.turn_into(entry);
            }
        }
        moved
    }
}
