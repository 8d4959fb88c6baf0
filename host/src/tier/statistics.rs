//! What a zram device says of itself: `mm_stat` (Documentation/admin-guide/blockdev/zram.rst).

use control::{KERNEL_PAGE_PRICE_UNMEASURED, WHOLE_PAGE_PRICE};

/// The least a page away is charged, in 256ths: 64 bytes, what its slot and its place in the table cost at
/// least.
const PRICE_MIN: u64 = 4;
/// The most: an allocator that is nearly empty may keep several pages for each that is left.
const PRICE_MAX: u64 = 4 * WHOLE_PAGE_PRICE as u64;
/// Below so much in it a device says nothing of what more would cost: its allocator has a page for each size.
const MEASURED_FROM_BYTES: u64 = 4 << 20;

/// A device whose allocator wastes so much, and one in so many of the bytes it takes, is compacted: pages do
/// not leave in the order in which they came, and those that stay keep the memory of those that left.
const WASTED_FROM_BYTES: u64 = 4 << 20;
const WASTED_DIVISOR: u64 = 8;

/// The first columns of `mm_stat`, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Statistics {
    /// Pages in it, before compression.
    pub(super) stored_bytes: u64,
    /// What they are compressed to.
    pub(super) compressed_bytes: u64,
    /// Memory that it takes, with what its allocator wastes.
    pub(super) used_bytes: u64,
    /// The most that may be, if an operator has said so (`mem_limit`).
    pub(super) limit_bytes: Option<u64>,
}

impl Statistics {
    /// From the text of `mm_stat`.
    pub(super) fn parse(text: &str) -> Option<Statistics> {
        let mut columns = text.split_whitespace().map(|column| column.parse().ok());
        let (stored_bytes, compressed_bytes, used_bytes) = (columns.next()??, columns.next()??, columns.next()??);
        let limit_bytes = columns.next()?.filter(|&limit| limit > 0);
        Some(Statistics { stored_bytes, compressed_bytes, used_bytes, limit_bytes })
    }

    /// Whether its allocator wastes so much that compacting it is worth the time.
    pub(super) fn is_wasteful(self) -> bool {
        let wasted_bytes = self.used_bytes.saturating_sub(self.compressed_bytes);
        wasted_bytes > WASTED_FROM_BYTES.max(self.used_bytes / WASTED_DIVISOR)
    }

    /// Pages that it has room for, of so many, bytes; where its memory is limited, pages that do not
    /// compress.
    pub(super) fn room_bytes(self, capacity_bytes: u64) -> u64 {
        let memory_bytes = self.limit_bytes.map_or(u64::MAX, |limit| limit.saturating_sub(self.used_bytes));
        capacity_bytes.saturating_sub(self.stored_bytes).min(memory_bytes)
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
        let statistics =
            Statistics { stored_bytes: 64 << 20, compressed_bytes: 24 << 20, used_bytes: 25 << 20, limit_bytes: None };
        assert_eq!(Statistics::parse(text), Some(statistics));
        assert_eq!(Statistics::parse("1 2 3 4 5").unwrap().limit_bytes, Some(4));
        for text in ["", "1 2", "1 2 x", "-1 2 3 0", "1 2 3"] {
            assert_eq!(Statistics::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn who_has_half_of_the_pages_is_charged_half_of_the_memory() {
        let statistics = Statistics { stored_bytes: 64 << 20, used_bytes: 16 << 20, ..Statistics::default() };
        assert_eq!(
            [0, 32 << 20, 64 << 20, u64::MAX].map(|swapped| statistics.share_bytes(swapped) >> 20),
            [0, 8, 16, 16]
        );
        assert_eq!(Statistics::default().share_bytes(1 << 20), 0);
    }

    #[test]
    fn a_device_is_wasteful_by_the_bytes_and_by_their_part() {
        let wasteful = |used: u64, compressed: u64| {
            let (used_bytes, compressed_bytes) = (used << 20, compressed << 20);
            Statistics { used_bytes, compressed_bytes, ..Statistics::default() }.is_wasteful()
        };
        assert_eq!(
            [(64, 50), (64, 60), (6, 3), (0, 0)].map(|(used, of)| wasteful(used, of)),
            [true, false, false, false]
        );
    }

    #[test]
    fn room_is_for_pages_and_for_their_memory() {
        let room = |limit_bytes| {
            Statistics { stored_bytes: 40, used_bytes: 10, limit_bytes, ..Statistics::default() }.room_bytes(100)
        };
        assert_eq!([None, Some(100), Some(12), Some(8)].map(room), [60, 60, 2, 0]);
    }

    #[test]
    fn a_page_costs_its_share_once_that_can_be_known() {
        let price =
            |stored_bytes, used_bytes| Statistics { stored_bytes, used_bytes, ..Statistics::default() }.page_price();
        assert_eq!(price(64 << 20, 16 << 20), 64);
        assert_eq!((price(0, 0), price(1 << 20, 1 << 20)), (128, 128));
        assert_eq!((price(64 << 20, 0), price(64 << 20, 1 << 40), price(u64::MAX, u64::MAX)), (4, 1024, 256));
    }
}
