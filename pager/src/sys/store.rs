//! The frame store as a VMM sees it: read-only.

use std::{
    ffi::c_void,
    io,
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::sys::{
    mman::{MapFlags, ProtFlags, mmap, munmap},
    stat::fstat,
};
use wire::{Frame, PAGE_BYTES, PageBytes};

/// A shared, read-only mapping.
struct ReadOnlyMap {
    base: NonNull<c_void>,
    bytes: NonZeroUsize,
}

// SAFETY: read-only memory that lives as long as the value.
unsafe impl Send for ReadOnlyMap {}
// SAFETY: as above; whoever reads it takes care of the host's writes (see `StoreView`).
unsafe impl Sync for ReadOnlyMap {}

impl ReadOnlyMap {
    fn new(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<ReadOnlyMap> {
        let length = fstat(fd).map_err(super::io_error)?.st_size;
        let too_short = || io::Error::other(format!("frame store of {length} bytes; {bytes} are needed"));
        let bytes = NonZeroUsize::new(bytes).filter(|bytes| bytes.get() as i64 <= length).ok_or_else(too_short)?;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing; the file is long
        // enough, and sealed against shrinking.
        let base = unsafe { mmap(None, bytes, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, fd, 0) };
        Ok(ReadOnlyMap { base: base.map_err(super::io_error)?, bytes })
    }
}

impl Drop for ReadOnlyMap {
    fn drop(&mut self) {
        // SAFETY: nobody borrows from a value that is being dropped.
        let _ = unsafe { munmap(self.base, self.bytes.get()) };
    }
}

/// The store's frames and its published bitmap.
///
/// A frame is read only while its published bit is set or this guest holds it: before that the host may be
/// writing it, after that the hole may be punched, and reading a hole through a shared mapping would
/// *allocate* the page.
pub struct StoreView {
    fd: OwnedFd,
    frames: ReadOnlyMap,
    published: ReadOnlyMap,
    count: u32,
}

impl StoreView {
    /// Maps a store of `count` frames and its bitmap.
    pub fn new(fd: OwnedFd, published: &OwnedFd, count: u32) -> io::Result<StoreView> {
        let frames = ReadOnlyMap::new(fd.as_fd(), count as usize * PAGE_BYTES)?;
        let published = ReadOnlyMap::new(published.as_fd(), (count as usize).div_ceil(64) * 8)?;
        Ok(StoreView { fd, frames, published, count })
    }

    /// Frames there are room for.
    pub fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether the host has announced the frame.
    pub fn published(&self, frame: Frame) -> bool {
        if frame.0 >= self.count {
            return false;
        }
        // SAFETY: in bounds of the bitmap by the check above.
        let word = unsafe { self.published.base.cast::<AtomicU64>().add(frame.index() / 64) };
        // SAFETY: mapped, aligned, and written by the host with atomics only.
        let word = unsafe { word.as_ref() };
        // SeqCst: the adopter's half of the handshake in `frames`; acquire for the frame's bytes.
        word.load(Ordering::SeqCst) >> (frame.0 % 64) & 1 == 1
    }

    /// Gives the page tables of the frames' mapping back, eight bytes a frame that was read: the next reads
    /// fault them in again.
    pub(super) fn drop_page_tables(&self) {
        // SAFETY: a shared mapping of a file: what is dropped comes back as it was. Kernels before 6.14 keep
        // the empty tables. With a kernel tier it is locked.
        unsafe { libc::madvise(self.frames.base.as_ptr(), self.frames.bytes.get(), libc::MADV_DONTNEED_LOCKED) };
    }

    /// The address of a frame's bytes; see the type for when they may be read.
    pub(super) fn frame(&self, frame: Frame) -> *const PageBytes {
        assert!(frame.0 < self.count, "frame beyond the store");
        // SAFETY: in bounds of the mapping by the assertion.
        unsafe { self.frames.base.cast::<PageBytes>().add(frame.index()) }.as_ptr()
    }
}
