//! Guest RAM as the vCPUs need it: where the host has it, and how much there is.

use std::ptr::NonNull;

use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::Error;

/// The host's mapping of guest-physical addresses from 0. Does not own it: whoever mapped it knows more of it
/// than this.
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

    /// Host address of guest-physical address 0.
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

/// RAM as the devices see it. They block in page faults like anybody else.
pub fn guest_memory(address: NonNull<u8>, bytes: u64) -> Result<GuestMemoryMmap<()>, Error> {
    let region = |error: &dyn std::fmt::Display| Error::Region(error.to_string());
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
    // SAFETY: the mapping is the pager's, which outlives the devices; `build_raw` never unmaps it.
    let mapping = unsafe { MmapRegion::<()>::build_raw(address.as_ptr(), bytes as usize, protection, flags) };
    let mapping = mapping.map_err(|error| region(&error))?;
    let ram = GuestRegionMmap::new(mapping, GuestAddress(0)).ok_or_else(|| region(&"it wraps around"))?;
    GuestMemoryMmap::from_regions(vec![ram]).map_err(|error| region(&error))
}
