//! Patches: a page of the pool that resembles a frame is kept as its difference to it.
//!
//! ```text
//!   read_frames   silence { published? read }, sketch            into the library; a batch a time
//!   patch         similar frame? silence { published? count }    compress with the frame as prefix
//!                   smaller, and gives the page back?  store     the pool's piece has the reference
//!                   else                               uncount
//!   free_slot     free the piece, uncount                        whatever became of the page, and whoever asks
//! ```
//!
//! The frame is any that the guest's domain has published, not only one that this guest shares: what resembles it most is what another guest has and
//! this one almost has, a kernel at another address. From then on it is held as for a page that shares it: the host's question is
//! answered "held", and its bytes do not change.
//!
//! **Invariant:** a patch in the pool has a reference to its frame, from before its frame is read until after it was freed.

use super::{Pages, squeeze::Squeeze};
use crate::{
    entry::Entry,
    library::Library,
    mapping::Mapping,
    pool::{Codec, is_smaller, room_bytes},
    sync::{Ordering, lock},
    units::{Frame, Gfn, PAGE_BYTES, PageBytes},
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

    /// Counts a reference to a frame, if it is published.
    fn adopt(&self, frame: Frame) -> bool {
        let _silence = self.references.silence();
        let published = self.mapping.published(frame);
        if published {
            self.references.add(frame);
        }
        published
    }

    /// Makes `page`, which is locked and in the pool, a patch, if that takes less room. Its entry from now on.
    pub(super) fn patch(
        &self,
        gfn: Gfn,
        entry: Entry,
        page: &PageBytes,
        squeeze: &mut Squeeze,
        library: &mut Library,
    ) -> Entry {
        let Some(frame) = library.similar(page).filter(|&frame| self.adopt(frame)) else { return entry };
        let mut reference = [0; PAGE_BYTES];
        self.mapping.read_frame(frame, &mut reference);
        let (codec, old) = (Codec::Patch(frame), lock(&self.pool).length(entry.slot()));
        let patch = squeeze.against(page, &reference).filter(|patch| is_smaller(codec.length(patch.len()), old));
        // Tried out once: what is stored does give the page.
        let patch = patch.filter(|patch| lock(&self.pool).gives(patch, &reference, page));
        let stored = patch.and_then(|patch| Some((self.replace(gfn, entry, codec, patch)?, patch.len())));
        let Some((new, length)) = stored else {
            self.references.remove(frame);
            return entry;
        };
        library.gained(room_bytes(old) - room_bytes(codec.length(length)));
        self.counters.pool_patched.fetch_add(1, Ordering::Relaxed);
        new
    }
}
