//! What guest and VMM agree on to the bit, and the words that all crates share.
//!
//! `no_std`, no code that does anything: constants, numbers with types and plain layouts. Virtio's numbers
//! and the bare machine's memory map are used by the device side (`balloon`, `block`, `net`, `rng`, `vmm`)
//! and the driver side (`guest-driver`) alike, so that neither can drift from the other; a page is a [`Gfn`]
//! and a frame a [`Frame`] from the pager to the host.

#![no_std]
#![forbid(unsafe_code)]

pub mod balloon;
pub mod block;
pub mod entropy;
pub mod machine;
pub mod mmio;
pub mod net;
mod page;
pub mod pc;
pub mod swap_area;
pub mod virtio;

pub use page::{Frame, Gfn, PAGE_BYTES, PageBytes, Run, Sharing, runs};
