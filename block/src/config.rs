//! The configuration space (5.2.4). All of it is the device's, but for one byte: `writeback`.

use wire::block::{
    CONFIG_BLK_SIZE, CONFIG_BYTES, CONFIG_CAPACITY, CONFIG_DISCARD_SECTOR_ALIGNMENT, CONFIG_MAX_DISCARD_SECTORS,
    CONFIG_MAX_DISCARD_SEG, CONFIG_MAX_WRITE_ZEROES_SECTORS, CONFIG_MAX_WRITE_ZEROES_SEG, CONFIG_SEG_MAX,
    CONFIG_SIZE_MAX, CONFIG_WRITE_ZEROES_MAY_UNMAP, CONFIG_WRITEBACK, SECTOR_BYTES,
};

use crate::disk::Geometry;
use crate::request::{DISCARD_SECTORS_MAX, SEG_MAX, SEGMENTS_MAX, SIZE_MAX, ZEROES_SECTORS_MAX};

/// Fills `data` from `offset` on; what lies behind the fields reads 0.
pub(crate) fn read(geometry: Geometry, writeback: bool, offset: u64, data: &mut [u8]) {
    let mut config = [0; CONFIG_BYTES as usize];
    let mut put = |at: u64, field: &[u8]| config[at as usize..][..field.len()].copy_from_slice(field);
    put(CONFIG_CAPACITY, &geometry.sectors.to_le_bytes());
    for (at, field) in [
        (CONFIG_SIZE_MAX, SIZE_MAX),
        (CONFIG_SEG_MAX, SEG_MAX),
        (CONFIG_BLK_SIZE, geometry.block_bytes),
        (CONFIG_MAX_DISCARD_SECTORS, DISCARD_SECTORS_MAX),
        (CONFIG_MAX_DISCARD_SEG, SEGMENTS_MAX),
        // Holes are made of whole pages of a file.
        (CONFIG_DISCARD_SECTOR_ALIGNMENT, 4096 / SECTOR_BYTES as u32),
        (CONFIG_MAX_WRITE_ZEROES_SECTORS, ZEROES_SECTORS_MAX),
        (CONFIG_MAX_WRITE_ZEROES_SEG, SEGMENTS_MAX),
    ] {
        put(at, &field.to_le_bytes());
    }
    put(CONFIG_WRITEBACK, &[writeback.into()]);
    put(CONFIG_WRITE_ZEROES_MAY_UNMAP, &[1]);
    let rest = usize::try_from(offset).ok().and_then(|start| config.get(start..)).unwrap_or_default();
    let present = rest.len().min(data.len());
    data.fill(0);
    data[..present].copy_from_slice(&rest[..present]);
}

/// What a write says of `writeback`; none if it is for anything else.
pub(crate) fn written(offset: u64, data: &[u8]) -> Option<bool> {
    match (offset, data) {
        (CONFIG_WRITEBACK, &[value @ (0 | 1)]) => Some(value == 1),
        _ => None,
    }
}
