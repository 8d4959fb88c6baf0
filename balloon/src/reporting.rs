//! Free page reporting (5.5.6.7): the buffers themselves are the free memory.
//!
//! A page counts only if it is free as a whole, so ranges shrink to page borders. "The device MAY modify the
//! contents of any page supplied in a report request before acknowledging that request": it does so by
//! dropping them, never by writing, and not after. With page poison negotiated, what is dropped comes back
//! filled with the poison value.

use std::ops::Range;

use chains::Part;
use wire::balloon::PFN_SHIFT;

use crate::ranges::Ranges;
use crate::{Error, RamLayout};

/// Hands on the whole pages in `buffers` as ranges inside RAM. A buffer outside RAM is an error; the others
/// are served.
pub(crate) fn read(
    buffers: impl Iterator<Item = Part>,
    ram: &RamLayout,
    hand_on: impl FnMut(Range<u32>),
) -> Result<(), Error> {
    let mut outside = None;
    let mut ranges = Ranges::default();
    for Part { address, bytes } in buffers {
        // No overflow: a `Part` does not wrap around.
        let (start, end) = (address.0, address.0 + u64::from(bytes));
        let (first, behind) = (start.div_ceil(1 << PFN_SHIFT), end >> PFN_SHIFT);
        match (u32::try_from(first), u32::try_from(behind)) {
            // No page is free as a whole; where the buffer lies does not matter then.
            (Ok(first), Ok(behind)) if first >= behind && behind <= ram.end() => {}
            (Ok(first), Ok(behind)) if ram.contains_all(first..behind) => ranges.insert(first..behind),
            _ => outside = outside.or(Some(first)),
        }
    }
    ranges.drain(hand_on);
    match outside {
        None => Ok(()),
        Some(number) => Err(Error::OutsideRam { number, ram_end: ram.end() }),
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestAddress;

    use super::*;

    fn reported(buffers: &[(u64, u32)]) -> (Vec<(u32, u32)>, bool) {
        let buffers = buffers.iter().map(|&(address, bytes)| Part { address: GuestAddress(address), bytes });
        let mut ranges = Vec::new();
        let result = read(buffers, &16.into(), |range| ranges.push((range.start, range.end)));
        (ranges, result.is_ok())
    }

    #[test]
    fn reports_shrink_to_whole_pages() {
        assert_eq!(reported(&[(0x1001, 0x1fff)]), (vec![(2, 3)], true));
        assert_eq!(reported(&[(0x1001, 0xfff)]), (vec![], true));
        assert_eq!(reported(&[(0x1000, 0), (0x2000, 0x1fff)]), (vec![(2, 3)], true));
    }

    #[test]
    fn a_report_outside_ram_is_refused_and_the_others_are_served() {
        assert_eq!(reported(&[(0xf000, 0x2000), (0x3000, 0x1000)]), (vec![(3, 4)], false));
        assert_eq!(reported(&[(u64::MAX - 0xffff, 0xffff)]), (vec![], false));
        assert_eq!(reported(&[(0x10000, 0x1000)]), (vec![], false));
    }

    #[test]
    fn neighbouring_reports_become_one_range() {
        assert_eq!(reported(&[(0x5000, 0x3000), (0x1000, 0x2000), (0x3000, 0x2000)]), (vec![(1, 8)], true));
    }
}
