//! Content into the pool, and out of it.

use wire::{Gfn, PageBytes};

use crate::{
    mapping::Mapping,
    pages::{
        Error, Pages,
        locked::Locked,
        table::{Entry, Page},
    },
    sync::lock,
    tiers::{
        pool::{Codec, SLAB_PAGES},
        squeeze::{QUICK_BYTES, Squeeze, is_noise, quickly},
    },
};

impl<M: Mapping> Pages<M> {
    /// Puts a page's content into the cheapest tier that takes it and is no file.
    pub(in crate::pages) fn store(&self, gfn: Gfn, content: &PageBytes) -> Option<Entry> {
        self.store_filled(content).or_else(|| {
            let mut buffer = [0; QUICK_BYTES];
            let slot = self.put(gfn, Codec::Lz4, quickly(content, &mut buffer)?)?;
            Some(Entry::pooled(slot, self.now()))
        })
    }

    /// The same for content that needs no pool.
    pub(super) fn store_filled(&self, content: &PageBytes) -> Option<Entry> {
        let pattern = filled_with(content)?;
        Some(if pattern == 0 { self.found_zero() } else { Entry::filled(pattern, self.now()) })
    }

    /// The same for content that [`Pages::store`] does not take.
    pub(super) fn store_densely(&self, gfn: Gfn, content: &PageBytes, squeeze: &mut Squeeze) -> Option<Entry> {
        if is_noise(content) {
            return None;
        }
        let slot = self.put(gfn, Codec::Zstd, squeeze.densely(content)?)?;
        Some(Entry::pooled(slot, self.now()))
    }

    /// Puts a compressed page into the pool, which pays for a slab if it takes one.
    fn put(&self, gfn: Gfn, codec: Codec, bytes: &[u8]) -> Option<u64> {
        let mut pool = lock(&self.pool);
        if pool.needs_slab(codec.length(bytes.len())) {
            self.credits.force(SLAB_PAGES);
        }
        let before = pool.bytes();
        let slot = pool.store(gfn, codec, bytes).ok();
        if slot.is_none() && pool.bytes() == before {
            self.credits.give(SLAB_PAGES);
        }
        slot
    }

    /// Puts other bytes in the place of those of a page of the pool, whose slot this is, if the pool has room
    /// for them. Whether it had.
    pub(super) fn replace(&self, page: &mut Locked<'_, M>, old: u64, codec: Codec, bytes: &[u8]) -> bool {
        let Some(slot) = self.put(page.gfn(), codec, bytes) else { return false };
        page.set_slot(slot);
        self.free_slot(old);
        true
    }

    /// The content of a compressed page.
    pub(in crate::pages) fn content(&self, gfn: Gfn, entry: Entry, into: &mut PageBytes) -> Result<(), Error> {
        match entry.decode() {
            Page::Filled { pattern } => {
                into.chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&pattern.to_ne_bytes()));
                Ok(())
            }
            Page::Pooled { slot, .. } => {
                let read_frame = |frame, into: &mut PageBytes| self.mapping.read_frame(frame, into);
                let decompressed = lock(&self.pool).decompress(slot, into, read_frame);
                if decompressed { Ok(()) } else { Err(Error::Damaged { gfn, slot }) }
            }
            page => unreachable!("{page:?} is not compressed"),
        }
    }

    /// Nobody needs any more what a page's entry speaks of.
    pub(in crate::pages) fn free_backing(&self, entry: Entry) {
        match entry.decode() {
            Page::Shared { frame, .. } => self.references.remove(frame),
            Page::Pooled { slot, .. } => self.free_slot(slot),
            Page::Swapped { slot } => self.swap.iter().for_each(|swap| swap.free(slot)),
            Page::Zero { .. } | Page::Private { .. } | Page::Ballooned | Page::Filled { .. } | Page::Clean => {}
        }
    }

    /// Nobody needs what is in a slot of the pool any more.
    pub(super) fn free_slot(&self, slot: u64) {
        let (frame, emptied) = {
            let mut pool = lock(&self.pool);
            (pool.frame(slot), pool.free(slot))
        };
        self.credits.give(emptied * SLAB_PAGES);
        frame.into_iter().for_each(|frame| self.references.remove_patch(frame));
    }
}

/// The 32-bit pattern that fills the page, if one does.
pub(super) fn filled_with(page: &PageBytes) -> Option<u32> {
    let first = &page[..4];
    let pattern = u32::from_ne_bytes([first[0], first[1], first[2], first[3]]);
    page.chunks_exact(4).all(|word| word == first).then_some(pattern)
}
