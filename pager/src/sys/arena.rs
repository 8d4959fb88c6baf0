//! Anonymous memory that costs nothing until it is written, and nothing again after it is released.

use std::{ffi::c_void, io, num::NonZeroUsize, ptr::NonNull, slice};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// Memory to spread over. What was released reads as anything and cost nothing.
pub trait Arena: Send {
    /// Bytes, a multiple of what is released at a time.
    fn bytes(&self) -> usize;
    /// The `length` bytes from `start` on.
    fn slice(&self, start: usize, length: usize) -> &[u8];
    /// The same, to write to.
    fn slice_mut(&mut self, start: usize, length: usize) -> &mut [u8];
    /// Has the kernel back these bytes with memory, or say that there is none: memory that is promised but
    /// not there would be found out by a signal.
    fn commit(&mut self, start: usize, length: usize) -> io::Result<()>;
    /// Gives memory back to the kernel.
    fn release(&mut self, start: usize, length: usize);
}

/// An anonymous mapping.
pub struct MmapArena {
    base: NonNull<c_void>,
    bytes: NonZeroUsize,
}

// SAFETY: the mapping belongs to this value alone and has no tie to the thread that made it.
unsafe impl Send for MmapArena {}

impl MmapArena {
    /// Reserves `bytes` of address space.
    pub fn new(bytes: NonZeroUsize) -> nix::Result<MmapArena> {
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe { mmap_anonymous(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) }?;
        let arena = MmapArena { base, bytes };
        // SAFETY: the range is the mapping just made. A huge page would charge 2 MiB for the first slab.
        unsafe { madvise(base, bytes.get(), MmapAdvise::MADV_NOHUGEPAGE) }?;
        Ok(arena)
    }
}

impl Drop for MmapArena {
    fn drop(&mut self) {
        // SAFETY: nobody borrows from a value that is being dropped.
        let _ = unsafe { munmap(self.base, self.bytes.get()) };
    }
}

impl Arena for MmapArena {
    fn bytes(&self) -> usize {
        self.bytes.get()
    }

    fn slice(&self, start: usize, length: usize) -> &[u8] {
        assert!(start + length <= self.bytes.get(), "slot beyond the arena");
        // SAFETY: in bounds by the assertion, so inside the mapping.
        let first = unsafe { self.base.cast::<u8>().add(start) };
        // SAFETY: mapped readable for the life of `self`, any bytes are valid `u8`, and `&mut self` is needed
        // to write.
        unsafe { slice::from_raw_parts(first.as_ptr(), length) }
    }

    fn slice_mut(&mut self, start: usize, length: usize) -> &mut [u8] {
        assert!(start + length <= self.bytes.get(), "slot beyond the arena");
        // SAFETY: in bounds by the assertion, so inside the mapping.
        let first = unsafe { self.base.cast::<u8>().add(start) };
        // SAFETY: as in `slice`, and exclusive by `&mut self`.
        unsafe { slice::from_raw_parts_mut(first.as_ptr(), length) }
    }

    fn commit(&mut self, start: usize, length: usize) -> io::Result<()> {
        assert!(start + length <= self.bytes.get(), "slab beyond the arena");
        // SAFETY: in bounds by the assertion, so inside the mapping.
        let first = unsafe { self.base.byte_add(start) };
        // SAFETY: the range is ours; populating changes no byte. Linux 5.14.
        unsafe { madvise(first, length, MmapAdvise::MADV_POPULATE_WRITE) }.map_err(super::io_error)
    }

    fn release(&mut self, start: usize, length: usize) {
        assert!(start + length <= self.bytes.get(), "slab beyond the arena");
        // SAFETY: in bounds by the assertion, so inside the mapping.
        let first = unsafe { self.base.byte_add(start) };
        // SAFETY: the range is ours, and no slice of it is borrowed (`&mut self`). Failure costs memory, not
        // correctness. With a kernel tier it is locked.
        unsafe { libc::madvise(first.as_ptr(), length, libc::MADV_DONTNEED_LOCKED) };
    }
}
