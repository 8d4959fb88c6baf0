//! The one place with `unsafe`: words of a file mapped into memory.

#![allow(
    unsafe_code,
    reason = "mapping a file and looking at it as words takes raw pointers; this module is where they live"
)]

use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A shared mapping of a file's first words.
#[derive(Debug)]
pub(crate) struct MappedWords {
    start: NonNull<AtomicU64>,
    count: NonZeroUsize,
}

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Loads only.
    Read,
    /// Loads and stores.
    ReadWrite,
}

// SAFETY: the mapping belongs to the value, not to a thread, and is reached through atomics alone.
unsafe impl Send for MappedWords {}
// SAFETY: as above.
unsafe impl Sync for MappedWords {}

impl MappedWords {
    /// Maps `count` words. The file must not shrink below them while mapped (the store's files are sealed
    /// against it).
    pub(crate) fn map(fd: impl AsFd, count: NonZeroUsize, access: Access) -> nix::Result<Self> {
        let protection = match access {
            Access::Read => ProtFlags::PROT_READ,
            Access::ReadWrite => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        };
        let bytes = count.saturating_mul(NonZeroUsize::new(size_of::<AtomicU64>()).unwrap_or(NonZeroUsize::MIN));
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Self { start: start.cast(), count })
    }

    /// The words. Of a mapping made with [`Access::Read`], only relaxed loads are allowed.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: page-aligned, `count` words long, mapped until `drop`; other processes write it too, so
        // atomics they are.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count.get()) }
    }
}

impl Drop for MappedWords {
    fn drop(&mut self) {
        let bytes = self.count.get() * size_of::<AtomicU64>();
        // SAFETY: exactly what `map` mapped, and no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.start.cast(), bytes) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}
