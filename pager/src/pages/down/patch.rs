//! Patches: a page of the pool that resembles a frame is kept as its difference to it.
//!
//! ```text
//!   read_frames   silence { published? read }, sketch            into the library; a batch a time
//!   patch         similar frame? silence { published? count }    compress with the frame as prefix
//!                   smaller, and gives the page back?  store     the pool's piece has the reference
//!                   else                               uncount
//!   free_slot     free the piece, uncount                        whatever became of the page
//!   undo_lonely   of patches whose frame nobody else needs       compress without
//! ```
//!
//! The frame is any that the guest's domain has published, not only one that this guest shares: what
//! resembles it most is what another guest has and this one almost has, a kernel at another address. From
//! then on it is held as for a page that shares it: the host's question is answered "held", and its bytes do
//! not change.
//!
//! **Invariant:** a patch in the pool has a reference to its frame, from before its frame is read until after
//! it was freed.

use wire::{Frame, PAGE_BYTES, PageBytes};

use super::staging::Staging;
use crate::{
    accounts::references::References,
    mapping::Mapping,
    pages::{
        Error, Pages,
        locked::Locked,
        table::{Entry, Page},
    },
    sync::{Ordering, lock},
    tiers::{
        library::Library,
        pool::{Codec, SLAB_PAGES, is_smaller, room_bytes},
        squeeze::Squeeze,
    },
};

/// Frames read at a time: some 0.5 ms, as long as a batch of pages takes to pack.
const READ_MAX: usize = 256;
/// Frames looked at for one that is published, at a time.
const LOOK_MAX: u32 = 65_536;

impl<M: Mapping> Pages<M> {
    /// Takes some of the published frames from `first` on into the library.
    pub fn read_frames(&self, first: Frame, library: &mut Library) {
        let mut page = [0; PAGE_BYTES];
        let (mut next, mut read) = (first.0, 0);
        let end = self.references.count().min(first.0.saturating_add(LOOK_MAX));
        while next < end && read < READ_MAX {
            let frame = Frame(next);
            next += 1;
            // Without a silence first: most are not published.
            if self.mapping.published(frame) && self.read_published(frame, &mut page) {
                library.add(frame, &page);
                read += 1;
            }
        }
        let more = next < self.references.count();
        library.read_up_to(more.then_some(Frame(next)), self.counters.now_ms());
        if !more {
            self.mapping.forget_frames();
        }
    }

    fn read_published(&self, frame: Frame, into: &mut PageBytes) -> bool {
        let _silence = self.references.silence();
        let published = self.mapping.published(frame);
        if published {
            self.mapping.read_frame(frame, into);
        }
        published
    }

    /// Counts a reference to a frame, of the kind that `count` counts, if it is published.
    pub(in crate::pages) fn adopt(&self, frame: Frame, count: fn(&References, Frame)) -> bool {
        let _silence = self.references.silence();
        let published = self.mapping.published(frame);
        if published {
            count(&self.references, frame);
        }
        published
    }

    /// Counts a sharer's reference to a frame, if that is published and its content is `wanted`.
    pub(in crate::pages) fn adopt_if<E>(
        &self,
        frame: Frame,
        wanted: impl FnOnce(&PageBytes) -> Result<bool, E>,
    ) -> Result<bool, E> {
        if !self.adopt(frame, References::add) {
            return Ok(false);
        }
        let mut published = [0; PAGE_BYTES];
        self.mapping.read_frame(frame, &mut published);
        let wanted = wanted(&published);
        if !matches!(wanted, Ok(true)) {
            self.references.remove(frame);
        }
        wanted
    }

    /// Compresses pages anew and without a frame that are the only patches of it, when nobody shares it any
    /// more: some of them. How many.
    pub fn undo_lonely(&self, staging: &mut Staging) -> Result<u32, Error> {
        let frames = self.references.take_lonely();
        let mut undone = 0;
        let slabs = if frames.is_empty() { 0 } else { lock(&self.pool).slabs() };
        for slab in 0..slabs {
            // One slab at a time: faults wait for the pool.
            let patches = lock(&self.pool).patches_in(slab);
            for (gfn, frame) in patches.into_iter().filter(|(_, frame)| frames.contains(frame)) {
                if !self.credits.covers(SLAB_PAGES) {
                    return Ok(undone);
                }
                let Some(mut page) = self.lock_if(gfn, Entry::is_pooled) else { continue };
                let Page::Pooled { slot, .. } = page.decode() else { continue };
                if lock(&self.pool).frame(slot) != Some(frame) {
                    continue;
                }
                self.content(gfn, page.entry(), staging.page())?;
                let (content, squeeze) = staging.page_and_squeeze();
                // What came in by lz4 may, hardly ever, not fit by zstd; then it stays as it is.
                let bytes = squeeze.densely(content);
                undone += u32::from(bytes.is_some_and(|bytes| self.replace(&mut page, slot, Codec::Zstd, bytes)));
            }
        }
        Ok(undone)
    }

    /// Makes a page of the pool a patch, if that takes less room. Whether it did.
    pub(super) fn patch(
        &self,
        page: &mut Locked<'_, M>,
        content: &PageBytes,
        squeeze: &mut Squeeze,
        library: &mut Library,
    ) -> bool {
        let Page::Pooled { slot, .. } = page.decode() else { return false };
        let Some(frame) = library.similar(content).filter(|&frame| self.adopt(frame, References::add_patch)) else {
            return false;
        };
        let mut reference = [0; PAGE_BYTES];
        self.mapping.read_frame(frame, &mut reference);
        let (codec, old) = (Codec::Patch(frame), lock(&self.pool).length(slot));
        let patch = squeeze.against(content, &reference).filter(|patch| is_smaller(codec.length(patch.len()), old));
        // Tried out once: what is stored does give the page.
        let patch = patch.filter(|patch| lock(&self.pool).gives(patch, &reference, content));
        let stored = patch.filter(|patch| self.replace(page, slot, codec, patch));
        let Some(patch) = stored else {
            self.references.remove_patch(frame);
            return false;
        };
        library.gained(room_bytes(old) - room_bytes(codec.length(patch.len())));
        self.counters.pool_patched_total.fetch_add(1, Ordering::Relaxed);
        true
    }
}
