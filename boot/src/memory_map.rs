//! What the guest is told of its addresses (E820), and where its RAM is.

use std::ops::Range;

use wire::PAGE_BYTES;
use wire::pc::{ACPI_BASE, HIGH_RAM_BASE, HOLE, LOW_RAM_END};

use crate::Error;

/// What a region is, by its number in E820 and in PVH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// The guest's.
    Ram = 1,
    /// Nobody's.
    Reserved = 2,
    /// The guest's, once it has read the tables in it.
    Acpi = 3,
}

/// A region of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest-physical addresses.
    pub range: Range<u64>,
    /// What they are.
    pub kind: Kind,
}

/// Smallest RAM: kernels unpack themselves to 16 MiB.
const RAM_BYTES_MIN: u64 = 16 << 20;
/// Largest RAM: what every processor with 64 bits can address.
const RAM_BYTES_MAX: u64 = 1 << 40;

/// Where RAM is: below the hole, and the rest of it above. What is between [`LOW_RAM_END`] and 1 MiB is
/// there, too, though the guest is told that it is not: the tables lie in it.
pub fn ram_ranges(ram_bytes: u64) -> impl Iterator<Item = Range<u64>> {
    let low = ram_bytes.min(HOLE.start);
    [0..low, HOLE.end..HOLE.end + (ram_bytes - low)].into_iter().filter(|range| !range.is_empty())
}

/// The map of a machine with this much RAM, sorted.
pub fn memory_map(ram_bytes: u64) -> Vec<Region> {
    let region = |range, kind| Region { range, kind };
    let mut regions = vec![
        region(0..LOW_RAM_END, Kind::Ram),
        region(LOW_RAM_END..0xa_0000, Kind::Reserved),
        region(ACPI_BASE..HIGH_RAM_BASE, Kind::Acpi),
    ];
    let above = |range: Range<u64>| range.start.max(HIGH_RAM_BASE)..range.end;
    regions.extend(ram_ranges(ram_bytes).map(|range| region(above(range), Kind::Ram)));
    regions
}

/// End of the RAM below the hole.
pub(crate) fn low_ram_end(ram_bytes: u64) -> Result<u64, Error> {
    let fits = (RAM_BYTES_MIN..=RAM_BYTES_MAX).contains(&ram_bytes) && ram_bytes.is_multiple_of(PAGE_BYTES as u64);
    if fits { Ok(ram_bytes.min(HOLE.start)) } else { Err(Error::Ram { bytes: ram_bytes }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn ram_above_three_gib_is_above_the_hole() {
        let ranges = |ram_bytes| ram_ranges(ram_bytes).map(|range| (range.start, range.end)).collect::<Vec<_>>();
        assert_eq!(ranges(2 * GIB), [(0, 2 * GIB)]);
        assert_eq!(ranges(3 * GIB), [(0, 3 * GIB)]);
        assert_eq!(ranges(5 * GIB), [(0, 3 * GIB), (4 * GIB, 6 * GIB)]);
    }

    #[test]
    fn the_map_has_all_ram_but_the_gap_and_no_byte_twice() {
        for ram_bytes in [RAM_BYTES_MIN, GIB, 3 * GIB, 3 * GIB + 4096, 64 * GIB] {
            let map = memory_map(ram_bytes);
            assert!(map.windows(2).all(|pair| pair[0].range.end <= pair[1].range.start), "{map:x?}");
            let ram: u64 =
                map.iter().filter(|region| region.kind == Kind::Ram).map(|r| r.range.end - r.range.start).sum();
            assert_eq!(ram, ram_bytes - (HIGH_RAM_BASE - LOW_RAM_END));
        }
    }

    #[test]
    fn sizes_that_ram_cannot_have_are_refused() {
        for bytes in [0, 4096, RAM_BYTES_MIN - 4096, RAM_BYTES_MIN + 1, RAM_BYTES_MAX + 4096, u64::MAX] {
            assert_eq!(low_ram_end(bytes), Err(Error::Ram { bytes }));
        }
    }
}
