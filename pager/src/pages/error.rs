//! Why a page could not be moved.

use std::io;

use wire::{Gfn, PAGE_BYTES};

use crate::tiers::{image::ImageError, swap::ReadError};

/// Why a page could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// the kernel refused
    #[error("{action} page {:#x} of the guest: {source}", gfn.0)]
    Kernel {
        /// What we were doing.
        action: &'static str,
        /// To which page.
        gfn: Gfn,
        /// The kernel's word.
        source: io::Error,
    },
    /// a page that nothing but its own copy backs is gone
    #[error("private page {:#x} of the guest is gone: somebody else changed its mapping", gfn.0)]
    Lost {
        /// Which page.
        gfn: Gfn,
    },
    /// a compressed page does not decompress
    #[error("compressed copy of page {:#x} in slot {slot:#x} is damaged", gfn.0)]
    Damaged {
        /// Which page.
        gfn: Gfn,
        /// Where its copy is.
        slot: u64,
    },
    /// a swapped page cannot be read back
    #[error(
        "page {:#x} of the guest (address {:#x}) cannot be read back from slot {slot} of its swap file: {source}",
        gfn.0, u64::from(gfn.0) * PAGE_BYTES as u64
    )]
    Unreadable {
        /// Which page.
        gfn: Gfn,
        /// Where its copy is.
        slot: u64,
        /// What is wrong with it.
        source: ReadError,
    },
    /// a clean page cannot be had from the image
    #[error(
        "page {:#x} of the guest (address {:#x}) cannot be read back from its image {name}: {source}",
        gfn.0, u64::from(gfn.0) * PAGE_BYTES as u64
    )]
    Image {
        /// Which page.
        gfn: Gfn,
        /// The image's file.
        name: String,
        /// What is wrong with it.
        source: ImageError,
    },
    /// a clean page without an image
    #[error("page {:#x} of the guest is in an image that does not exist", gfn.0)]
    NoImage {
        /// Which page.
        gfn: Gfn,
    },
    /// a swapped page without a swap file
    #[error("page {:#x} of the guest is in slot {slot} of a swap file that does not exist", gfn.0)]
    NoSwap {
        /// Which page.
        gfn: Gfn,
        /// Where its copy should be.
        slot: u64,
    },
}
