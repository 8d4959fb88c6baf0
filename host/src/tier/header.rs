//! The first page of a device of ours: that of a swap area, with its owner for a UUID.

use wire::PageBytes;
use wire::swap_area::{LABEL, MAGIC, MAGIC_AT, UUID, first_page};

use super::owner::Owner;

const OURS: &[u8; 16] = b"ballast\0\0\0\0\0\0\0\0\0";

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
pub(super) fn compose(bytes: u64, owner: Owner) -> PageBytes {
    let mut page = first_page(bytes);
    page[UUID].copy_from_slice(&owner.to_bytes());
    page[LABEL].copy_from_slice(OURS);
    page
}

/// What this first page says to this owner.
pub(super) fn read(page: &PageBytes, owner: Owner) -> Header {
    let is_ours = page[MAGIC_AT..] == *MAGIC && page[LABEL] == *OURS && page[UUID] == owner.to_bytes();
    match is_ours {
        true => Header::Ours,
        false if page.iter().all(|&byte| byte == 0) => Header::Empty,
        false => Header::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use wire::PAGE_BYTES;

    use super::*;

    #[test]
    fn an_area_is_known_to_its_owner_and_to_nobody_else() {
        let (owner, other): (Owner, Owner) = ("7-11".parse().unwrap(), "7-12".parse().unwrap());
        let page = compose(1 << 20, owner);
        assert_eq!((read(&page, owner), read(&page, other)), (Header::Ours, Header::Foreign));
        assert_eq!(read(&[0; PAGE_BYTES], owner), Header::Empty);
        let mut mkswap = page;
        mkswap[LABEL].fill(0);
        assert_eq!(read(&mkswap, owner), Header::Foreign);
    }
}
