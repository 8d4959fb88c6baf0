//! The first page of a swap area, as the kernel reads it (`mkswap(8)`; `union swap_header` of
//! `include/linux/swap.h`).
//!
//! ```text
//!   0      boot blocks
//!   1024   version: u32 = 1 | last page: u32 | bad pages: u32 = 0 | uuid: 16 bytes | label: 16 bytes
//!   4086   "SWAPSPACE2"
//! ```

use core::ops::Range;

use crate::{PAGE_BYTES, PageBytes};

/// Says that it is one.
pub const MAGIC: &[u8; 10] = b"SWAPSPACE2";
/// Where that is.
pub const MAGIC_AT: usize = PAGE_BYTES - MAGIC.len();
/// Where its UUID is.
pub const UUID: Range<usize> = 1036..1052;
/// Where its label is.
pub const LABEL: Range<usize> = 1052..1068;

const VERSION_AT: usize = 1024;
const LAST_PAGE_AT: usize = 1028;

/// The first page of an area of so many bytes, itself included, without UUID and label.
pub fn first_page(bytes: u64) -> PageBytes {
    let mut page = [0; PAGE_BYTES];
    // The kernel takes as many pages of a larger area.
    let last_page = u32::try_from(bytes / PAGE_BYTES as u64 - 1).unwrap_or(u32::MAX);
    page[VERSION_AT..][..4].copy_from_slice(&1u32.to_ne_bytes());
    page[LAST_PAGE_AT..][..4].copy_from_slice(&last_page.to_ne_bytes());
    page[MAGIC_AT..].copy_from_slice(MAGIC);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_says_how_many_pages_it_has() {
        let page = first_page(1 << 20);
        assert_eq!(page[LAST_PAGE_AT..][..4], 255u32.to_ne_bytes());
        assert_eq!(first_page(1 << 60)[LAST_PAGE_AT..][..4], u32::MAX.to_ne_bytes());
    }
}
