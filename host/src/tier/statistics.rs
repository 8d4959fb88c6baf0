//! What a zram device says of itself: `mm_stat` (Documentation/admin-guide/blockdev/zram.rst).

use control::{KERNEL_PAGE_PRICE_UNMEASURED, WHOLE_PAGE_PRICE};

/// The least a page away is charged, in 256ths: 64 bytes, what its slot and its place in the table cost at
/// least.
const PRICE_MIN: u64 = 4;
/// The most: an allocator that is nearly empty may keep several pages for each that is left.
const PRICE_MAX: u64 = 4 * WHOLE_PAGE_PRICE as u64;
/// Below so much in it a device says nothing of what more would cost: its allocator has a page for each size.
const MEASURED_FROM_BYTES: u64 = 4 << 20;

/// The first columns of `mm_stat`, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Statistics {
    /// Pages in it, before compression.
    pub(super) stored_bytes: u64,
    /// Memory that it takes, with what its allocator wastes.
    pub(super) used_bytes: u64,
}

impl Statistics {
    /// From the text of `mm_stat`.
    pub(super) fn parse(text: &str) -> Option<Statistics> {
        let mut columns = text.split_whitespace().map(|column| column.parse().ok());
        let (stored_bytes, _compressed_bytes, used_bytes) = (columns.next()??, columns.next()??, columns.next()??);
        Some(Statistics { stored_bytes, used_bytes })
    }

    /// What so many bytes of pages in it take of that.
    pub(super) fn share_bytes(self, swapped_bytes: u64) -> u64 {
        // More than is stored is on other swap, or was stored since.
        let part = u128::from(swapped_bytes.min(self.stored_bytes)) * u128::from(self.used_bytes);
        (part / u128::from(self.stored_bytes.max(1))) as u64
    }

    /// What a page away is charged; see [`control::ToVmm::Allocate`].
    pub(super) fn page_price(self) -> u16 {
        if self.stored_bytes < MEASURED_FROM_BYTES {
            return KERNEL_PAGE_PRICE_UNMEASURED;
        }
        let price = u128::from(self.used_bytes) * u128::from(WHOLE_PAGE_PRICE) / u128::from(self.stored_bytes);
        price.clamp(PRICE_MIN.into(), PRICE_MAX.into()) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_are_read_and_anything_else_is_refused() {
        let text = "67108864 25165824 26214400        0 26214400       17        0        3        3\n";
        assert_eq!(Statistics::parse(text), Some(Statistics { stored_bytes: 64 << 20, used_bytes: 25 << 20 }));
        for text in ["", "1 2", "1 2 x", "-1 2 3"] {
            assert_eq!(Statistics::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn who_has_half_of_the_pages_is_charged_half_of_the_memory() {
        let statistics = Statistics { stored_bytes: 64 << 20, used_bytes: 16 << 20 };
        assert_eq!(
            [0, 32 << 20, 64 << 20, u64::MAX].map(|swapped| statistics.share_bytes(swapped) >> 20),
            [0, 8, 16, 16]
        );
        assert_eq!(Statistics::default().share_bytes(1 << 20), 0);
    }

    #[test]
    fn a_page_costs_its_share_once_that_can_be_known() {
        let price = |stored_bytes, used_bytes| Statistics { stored_bytes, used_bytes }.page_price();
        assert_eq!(price(64 << 20, 16 << 20), 64);
        assert_eq!((price(0, 0), price(1 << 20, 1 << 20)), (128, 128));
        assert_eq!((price(64 << 20, 0), price(64 << 20, 1 << 40), price(u64::MAX, u64::MAX)), (4, 1024, 256));
    }
}
