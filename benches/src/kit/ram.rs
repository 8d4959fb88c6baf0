//! Guest memory as a vCPU uses it: plain loads and stores at its address, whoever manages what is behind it.

use std::{num::NonZeroUsize, ptr::NonNull};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use pager::PAGE_BYTES;

use crate::kit::error::Error;

/// Where one guest's RAM is mapped. Whoever made it keeps it mapped while it is in use: see `Sharer::rams`.
#[derive(Clone, Copy, Debug)]
pub struct GuestRam {
    base: NonNull<u8>,
    pages: u32,
}

// SAFETY: an address; what is there is reached by volatile accesses only, as a vCPU would.
unsafe impl Send for GuestRam {}
// SAFETY: as above.
unsafe impl Sync for GuestRam {}

impl GuestRam {
    /// `pages` mapped pages from `base`.
    pub fn new(base: NonNull<u8>, pages: u32) -> GuestRam {
        GuestRam { base, pages }
    }

    /// Pages of the guest.
    pub fn pages(self) -> u32 {
        self.pages
    }

    /// The content number of a made-up page, see `contents::page`.
    pub fn number(self, page: u32) -> u64 {
        // SAFETY: `last_word` is mapped and aligned; a guest has no types, so any bytes are a number.
        unsafe { self.last_word(page).read_volatile() }.wrapping_sub(1)
    }

    /// Gives a made-up page another content.
    pub fn set_number(self, page: u32, number: u64) {
        // SAFETY: as above; nobody holds a reference into guest memory.
        unsafe { self.last_word(page).write_volatile(number + 1) }
    }

    fn last_word(self, page: u32) -> *mut u64 {
        assert!(page < self.pages, "page {page} of a guest of {}", self.pages);
        let offset = (page as usize + 1) * PAGE_BYTES - size_of::<u64>();
        // SAFETY: inside the mapping by the assertion.
        unsafe { self.base.add(offset) }.cast().as_ptr()
    }
}

/// Has large tables come from the kernel, as zeros that cost nothing until they are written to: so it is in a
/// VMM's young process, and so it would not be here, once the allocator has seen the benchmark's own buffers
/// come and go.
pub fn keep_tables_out_of_heap() {
    // SAFETY: takes no pointer, and may be called at any time.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10) };
}

/// Gives free heap back to the kernel, so that what is left is in use.
pub fn trim_heap() {
    // SAFETY: takes no pointer, and may be called at any time.
    unsafe { libc::malloc_trim(0) };
}

/// Plain anonymous memory, in pages of 4 KiB.
#[derive(Debug)]
pub struct PlainMemory {
    base: NonNull<u8>,
    pages: u32,
}

// SAFETY: the mapping belongs to this value alone and has no tie to the thread that made it.
unsafe impl Send for PlainMemory {}
// SAFETY: a shared reference gives out addresses only.
unsafe impl Sync for PlainMemory {}

impl PlainMemory {
    /// `pages` pages that nobody has touched.
    pub fn new(pages: u32) -> Result<PlainMemory, Error> {
        let bytes = NonZeroUsize::new(pages as usize * PAGE_BYTES).unwrap_or(NonZeroUsize::MIN);
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe { mmap_anonymous(None, bytes, protection, flags) };
        let base = base.map_err(Error::system("mapping memory"))?;
        // SAFETY: the range is the mapping just made; the advice changes no byte.
        let small = unsafe { madvise(base, bytes.get(), MmapAdvise::MADV_NOHUGEPAGE) };
        let memory = PlainMemory { base: base.cast(), pages };
        small.map_err(Error::system("asking for small pages"))?;
        Ok(memory)
    }

    /// Lets ksmd merge it.
    pub fn offer_to_ksm(&self) -> Result<(), Error> {
        // SAFETY: the range is this value's mapping; the advice changes no byte that a guest reads.
        let offered =
            unsafe { madvise(self.base.cast(), self.pages as usize * PAGE_BYTES, MmapAdvise::MADV_MERGEABLE) };
        offered.map_err(Error::system("offering memory to KSM"))
    }

    /// Where it is.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// As a guest uses it; not after this value is gone.
    pub fn ram(&self) -> GuestRam {
        GuestRam::new(self.base, self.pages)
    }
}

impl Drop for PlainMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and who was given its `ram` is done with it.
        let _ = unsafe { munmap(self.base.cast(), self.pages as usize * PAGE_BYTES) };
    }
}
