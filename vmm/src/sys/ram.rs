//! Guest RAM as the vCPUs need it: where the host has it, and how much there is.

use std::{ops::Range, ptr::NonNull};

use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::{Error, memory::Layout};

/// The host's mapping of all RAM, page after page. Does not own it: whoever mapped it knows more of it than
/// this.
#[derive(Clone, Copy, Debug)]
pub struct Ram {
    address: NonNull<u8>,
    bytes: u64,
}

impl Ram {
    /// RAM that lies at `address`.
    ///
    /// # Safety
    /// `bytes` from `address` must be mapped readable and writable, and must stay so, untouched by Rust
    /// references, until every vCPU that was given this value or a copy has been joined.
    pub unsafe fn new(address: NonNull<u8>, bytes: u64) -> Self {
        Self { address, bytes }
    }

    /// Host address of the first page.
    pub fn address(self) -> *mut u8 {
        self.address.as_ptr()
    }

    /// How much there is.
    pub fn bytes(self) -> u64 {
        self.bytes
    }
}

// SAFETY: the pointer is only ever handed on as a raw pointer; the mapping outlives all threads that have it
// (`new`).
unsafe impl Send for Ram {}
// SAFETY: as above; there is nothing in here to change.
unsafe impl Sync for Ram {}

/// RAM as the devices see it, where `layout` says. They block in page faults like anybody else.
///
/// # Safety
/// All RAM of the layout must be mapped from `address` on, and stay so while the result is in use.
pub unsafe fn guest_memory(address: NonNull<u8>, layout: &Layout) -> Result<GuestMemoryMmap<()>, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Region(error.to_string());
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
    let region = |(range, offset): (Range<u64>, u64)| {
        // SAFETY: within the mapping, as the caller says.
        let start = unsafe { address.as_ptr().add(offset as usize) };
        // SAFETY: the mapping outlives the result, as the caller says; `build_raw` never unmaps it.
        let part = unsafe { MmapRegion::<()>::build_raw(start, (range.end - range.start) as usize, protection, flags) };
        let part = part.map_err(|error| failed(&error))?;
        GuestRegionMmap::new(part, GuestAddress(range.start)).ok_or_else(|| failed(&"it wraps around"))
    };
    let regions = layout.parts().map(region).collect::<Result<Vec<_>, _>>()?;
    GuestMemoryMmap::from_regions(regions).map_err(|error| failed(&error))
}
