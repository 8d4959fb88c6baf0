//! The first page of a swap area (`mkswap(8)`; `union swap_header` of the kernel's `include/linux/swap.h`).
//!
//! ```text
//!   0      boot blocks
//!   1024   version: u32 = 1 | last page: u32 | bad pages: u32 = 0 | uuid: 16 bytes | label: 16 bytes
//!   4086   "SWAPSPACE2"
//! ```

use wire::PAGE_BYTES;

use super::owner::Owner;

const LABEL: &[u8; 16] = b"ballast\0\0\0\0\0\0\0\0\0";
const MAGIC: &[u8; 10] = b"SWAPSPACE2";
const VERSION_AT: usize = 1024;
const LAST_PAGE_AT: usize = 1028;
const UUID_AT: usize = 1036;
const LABEL_AT: usize = 1052;
const MAGIC_AT: usize = PAGE_BYTES - MAGIC.len();

/// What the first page of a device says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// Nothing: it is all zero.
    Empty,
    /// Swap of this owner's, made by us.
    Ours,
    /// Something else.
    Foreign,
}

/// The header of an area of so many bytes, for this owner.
pub(super) fn compose(bytes: u64, owner: Owner) -> [u8; PAGE_BYTES] {
    let mut page = [0; PAGE_BYTES];
    // The kernel takes as many pages of a larger device.
    let last_page = u32::try_from(bytes / PAGE_BYTES as u64 - 1).unwrap_or(u32::MAX);
    page[VERSION_AT..][..4].copy_from_slice(&1u32.to_ne_bytes());
    page[LAST_PAGE_AT..][..4].copy_from_slice(&last_page.to_ne_bytes());
    page[UUID_AT..][..16].copy_from_slice(&owner.to_bytes());
    page[LABEL_AT..][..16].copy_from_slice(LABEL);
    page[MAGIC_AT..].copy_from_slice(MAGIC);
    page
}

/// What this first page says to this owner.
pub(super) fn read(page: &[u8; PAGE_BYTES], owner: Owner) -> Header {
    let is_ours =
        page[MAGIC_AT..] == *MAGIC && page[LABEL_AT..][..16] == *LABEL && page[UUID_AT..][..16] == owner.to_bytes();
    match is_ours {
        true => Header::Ours,
        false if page.iter().all(|&byte| byte == 0) => Header::Empty,
        false => Header::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_is_known_to_its_owner_and_to_nobody_else() {
        let (owner, other): (Owner, Owner) = ("7-11".parse().unwrap(), "7-12".parse().unwrap());
        let page = compose(1 << 20, owner);
        assert_eq!((read(&page, owner), read(&page, other)), (Header::Ours, Header::Foreign));
        assert_eq!(read(&[0; PAGE_BYTES], owner), Header::Empty);
        let mut mkswap = page;
        mkswap[LABEL_AT..][..16].fill(0);
        assert_eq!(read(&mkswap, owner), Header::Foreign);
        assert_eq!(page[LAST_PAGE_AT..][..4], 255u32.to_ne_bytes());
    }
}
