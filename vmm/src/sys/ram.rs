//! Guest RAM as the vCPUs need it: where the host has it, and how much there is.

use std::ptr::NonNull;

/// The host's mapping of guest-physical addresses from 0. Does not own it: whoever mapped it knows more of it than this.
#[derive(Clone, Copy, Debug)]
pub struct Ram {
    address: NonNull<u8>,
    bytes: u64,
}

impl Ram {
    /// RAM that lies at `address`.
    ///
    /// # Safety
    /// `bytes` from `address` must be mapped readable and writable, and must stay so, untouched by Rust references,
    /// until every vCPU that was given this value or a copy has been joined.
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

// SAFETY: the pointer is only ever handed on as a raw pointer; the mapping outlives all threads that have it (`new`).
unsafe impl Send for Ram {}
// SAFETY: as above; there is nothing in here to change.
unsafe impl Sync for Ram {}
