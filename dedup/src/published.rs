//! One bit a frame, in memory that every VMM of the domain has mapped: set means "these bytes are in place
//! and will not change".
//!
//! ```text
//!   host publishes:   write bytes;  set bit (release)      VMM compares:  load bit (acquire);  read bytes
//!   host retires:     clear bit;  fence;  ask every VMM    VMM adopts:    count reference;  fence;  load bit
//! ```
//!
//! The second line is Dekker's: with both fences sequentially consistent, either the VMM sees the bit clear
//! and takes its reference back, or its reference is there when it is asked.
//!
//! A VMM of ours reads the bits through the pager's view of the store (`pager::StoreView`); [`PublishedView`]
//! is the same for whoever has no pager: this crate's tests.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use wire::Frame;

use crate::Error;
use crate::domain::store::sealed_memfd;
use crate::sys::{Access, MappedWords};

const WORD_BITS: u32 = u64::BITS;

fn words_for(frames: u32) -> NonZeroUsize {
    NonZeroUsize::new(frames.div_ceil(WORD_BITS) as usize).unwrap_or(NonZeroUsize::MIN)
}

/// The word of a frame's bit, and the bit.
fn bit(frame: Frame) -> (usize, u64) {
    ((frame.0 / WORD_BITS) as usize, 1 << (frame.0 % WORD_BITS))
}

/// The host's side: sets and clears.
#[derive(Debug)]
pub(crate) struct Published {
    memfd: OwnedFd,
    words: MappedWords,
}

impl Published {
    /// A bitmap of clear bits.
    pub(crate) fn new(frames: u32) -> Result<Self, Error> {
        let words = words_for(frames);
        let memfd = sealed_memfd(c"ballast-published", (words.get() * size_of::<u64>()) as u64)?;
        let words = MappedWords::map(&memfd, words, Access::ReadWrite)
            .map_err(|source| Error::Store { what: "map the published bits of", source })?;
        Ok(Self { memfd, words })
    }

    /// The file behind it.
    pub(crate) fn memfd(&self) -> &OwnedFd {
        &self.memfd
    }

    /// Announces a frame whose bytes are in place.
    pub(crate) fn set(&self, frame: Frame) {
        // Release: pairs with the acquire fence in `is_published`, so that who sees the bit sees the bytes.
        let (word, bit) = bit(frame);
        self.words.words()[word].fetch_or(bit, Ordering::Release);
    }

    /// Takes frames back; afterwards no VMM adopts them that had not done so before. Ask only after this.
    pub(crate) fn clear(&self, frames: &[Frame]) {
        for &frame in frames {
            let (word, bit) = bit(frame);
            self.words.words()[word].fetch_and(!bit, Ordering::Relaxed);
        }
        // Pairs with the fence in `is_published`, see the module doc.
        fence(Ordering::SeqCst);
    }
}

/// A VMM's side: looks.
#[derive(Debug)]
pub struct PublishedView {
    words: MappedWords,
    frames: u32,
}

impl PublishedView {
    /// Maps the bitmap of a store of `frames` frames, read-only.
    pub fn map(fd: impl AsFd, frames: u32) -> Result<Self, Error> {
        let error = |source| Error::Store { what: "map the published bits of", source };
        let words = words_for(frames);
        // A bitmap that is too short would be a SIGBUS later. (It cannot get shorter: it is sealed.)
        if fstat(&fd).map_err(error)?.st_size.cast_unsigned() < (words.get() * size_of::<u64>()) as u64 {
            return Err(error(Errno::EINVAL));
        }
        let words = MappedWords::map(fd, words, Access::Read).map_err(error)?;
        Ok(Self { words, frames })
    }

    /// Frames of the store.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Whether a frame may be looked at, and whether an adoption that was counted *before* this call stands.
    /// False for frames that the store does not have.
    pub fn is_published(&self, frame: Frame) -> bool {
        if frame.0 >= self.frames {
            return false;
        }
        // Orders a reference counted before the call with the load, see the module doc.
        fence(Ordering::SeqCst);
        // Relaxed and a fence instead of an acquire load: only relaxed loads are defined on read-only memory.
        let (word, bit) = bit(frame);
        let word = self.words.words()[word].load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        word & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::store::reopen_read_only;

    #[test]
    fn a_view_sees_what_is_published_and_nothing_beyond_the_store() {
        let published = Published::new(100).unwrap();
        let view = PublishedView::map(reopen_read_only(published.memfd()).unwrap(), 100).unwrap();
        [0, 63, 64, 99].into_iter().for_each(|frame| published.set(Frame(frame)));
        published.clear(&[Frame(63)]);
        let seen: Vec<u32> = (0..1000).chain([u32::MAX]).filter(|&frame| view.is_published(Frame(frame))).collect();
        assert_eq!(seen, [0, 64, 99]);
    }

    #[test]
    fn a_bitmap_shorter_than_its_store_is_refused() {
        let published = Published::new(100).unwrap();
        assert!(PublishedView::map(published.memfd(), 1000).is_err());
    }
}
