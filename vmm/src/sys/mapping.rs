//! Anonymous memory that a guest shares with its VMM.
//!
//! Bytes go in by copy, through `&mut`, before the guest runs; afterwards both sides see only atomics,
//! through [`Mapping::shared`]. There is no `&` to anything in here that is not made of atomics.

use std::{
    io,
    ptr::{self, NonNull},
};

use wire::machine::{Control, VcpuReport};

/// Types that may be referred to while a guest writes them.
///
/// # Safety
/// All bytes that anybody reads must be atomics, and any pattern of bits must be a value.
pub unsafe trait Shared {}

// SAFETY: nothing but atomic integers.
unsafe impl Shared for Control {}
// SAFETY: nothing but atomic integers, and padding that nobody reads.
unsafe impl Shared for VcpuReport {}

/// Private, anonymous, zero-filled memory; only what is touched costs anything.
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    /// Maps `bytes`, a multiple of the page size.
    pub fn anonymous(bytes: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice changes no memory in use.
        let address = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { address, bytes })
    }

    /// Where it is.
    pub fn address(&self) -> NonNull<u8> {
        self.address
    }

    /// How long it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Panics
    /// When they do not fit: offsets are the VMM's own, or were checked.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        // SAFETY: `check` says that offset lies within the mapping.
        let to = unsafe { self.address.as_ptr().add(offset) };
        // SAFETY: `to` is good for this length (`check`), and `&mut self` rules out that `bytes` is part of
        // it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// The `T` at `offset`.
    ///
    /// # Panics
    /// When it would reach beyond the end, or is not aligned.
    pub fn shared<T: Shared>(&self, offset: usize) -> &T {
        self.check(offset, size_of::<T>());
        assert!(offset.is_multiple_of(align_of::<T>()), "offset {offset:#x} is not aligned");
        // SAFETY: `check` says that offset lies within the mapping.
        let address = unsafe { self.address.as_ptr().add(offset) };
        // SAFETY: mapped for as long as `self` lives, long enough, aligned, and `Shared` allows others to
        // write it.
        unsafe { &*address.cast::<T>() }
    }

    fn check(&self, offset: usize, bytes: usize) {
        let fits = offset <= self.bytes && bytes <= self.bytes - offset;
        assert!(fits, "{bytes:#x} bytes at {offset:#x} do not fit into {:#x}", self.bytes);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping `anonymous` made; all references into it borrow `self`.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.bytes) };
    }
}

// SAFETY: memory belongs to no thread; writes need `&mut`, and what `&` gives out is made of atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}
