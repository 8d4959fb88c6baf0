//! What a guest and its VMM must agree on, to the bit: virtio numbers and the bare machine's memory map.
//!
//! `no_std`, no dependence, no code that does anything: constants and plain layouts, used by the device side
//! (`balloon`, `vmm`) and the driver side (`guest-driver`) alike, so that neither can drift from the other.

#![no_std]
#![forbid(unsafe_code)]

pub mod balloon;
pub mod machine;
pub mod mmio;
pub mod virtio;

/// Bytes of a guest page: the unit of every gfn, balloon page number and frame.
pub const PAGE_BYTES: usize = 4096;
