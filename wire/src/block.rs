//! The block device (VIRTIO 1.3, 5.2).

/// Virtio device id of the block device (5.2.1).
pub const DEVICE_ID: u32 = 2;

/// Feature (5.2.3): the longest segment is in `size_max`.
pub const F_SIZE_MAX: u32 = 1;
/// Feature: the most segments of a request are in `seg_max`.
pub const F_SEG_MAX: u32 = 2;
/// Feature: the disk cannot be written.
pub const F_RO: u32 = 5;
/// Feature: the size of a block is in `blk_size`.
pub const F_BLK_SIZE: u32 = 6;
/// Feature: [`T_FLUSH`] is there.
pub const F_FLUSH: u32 = 9;
/// Feature: the driver may choose between a cache that is written back and one that is written through.
pub const F_CONFIG_WCE: u32 = 11;
/// Feature: [`T_DISCARD`] is there.
pub const F_DISCARD: u32 = 13;
/// Feature: [`T_WRITE_ZEROES`] is there.
pub const F_WRITE_ZEROES: u32 = 14;

/// Bytes of a sector: the unit of every number of sectors, whatever the block size (5.2.4).
pub const SECTOR_BYTES: u64 = 512;

/// Offset in the configuration space (5.2.4): sectors of the disk, `le64`.
pub const CONFIG_CAPACITY: u64 = 0;
/// Offset: longest segment, bytes, `le32`.
pub const CONFIG_SIZE_MAX: u64 = 8;
/// Offset: most segments of a request, `le32`.
pub const CONFIG_SEG_MAX: u64 = 12;
/// Offset: bytes of a block, `le32`.
pub const CONFIG_BLK_SIZE: u64 = 20;
/// Offset: 1 for a cache that is written back, 0 for one that is written through, written by the driver.
pub const CONFIG_WRITEBACK: u64 = 32;
/// Offset: most sectors that one segment of a discard names, `le32`.
pub const CONFIG_MAX_DISCARD_SECTORS: u64 = 36;
/// Offset: most segments of a discard, `le32`.
pub const CONFIG_MAX_DISCARD_SEG: u64 = 40;
/// Offset: what discards are best aligned to, sectors, `le32`.
pub const CONFIG_DISCARD_SECTOR_ALIGNMENT: u64 = 44;
/// Offset: most sectors that one segment of a write-zeroes names, `le32`.
pub const CONFIG_MAX_WRITE_ZEROES_SECTORS: u64 = 48;
/// Offset: most segments of a write-zeroes, `le32`.
pub const CONFIG_MAX_WRITE_ZEROES_SEG: u64 = 52;
/// Offset: 1 if a write-zeroes may deallocate.
pub const CONFIG_WRITE_ZEROES_MAY_UNMAP: u64 = 56;
/// Bytes of the configuration space as far as its fields are used here.
pub const CONFIG_BYTES: u64 = 60;

/// Bytes of a request's header (5.2.6): `le32` type, `le32` reserved, `le64` sector.
pub const HEADER_BYTES: usize = 16;
/// Request (5.2.6): read.
pub const T_IN: u32 = 0;
/// Request: write.
pub const T_OUT: u32 = 1;
/// Request: what was written becomes stable.
pub const T_FLUSH: u32 = 4;
/// Request: [`ID_BYTES`] of the disk's name, padded by zeroes.
pub const T_GET_ID: u32 = 8;
/// Request: these sectors are not needed.
pub const T_DISCARD: u32 = 11;
/// Request: these sectors are zero from now on.
pub const T_WRITE_ZEROES: u32 = 13;
/// Bytes of the answer to [`T_GET_ID`].
pub const ID_BYTES: usize = 20;

/// Bytes of a segment of a discard or write-zeroes (5.2.6): `le64` sector, `le32` number of sectors, `le32`
/// flags.
pub const SEGMENT_BYTES: usize = 16;
/// Flag of a segment of a write-zeroes: deallocating is welcome.
pub const SEGMENT_F_UNMAP: u32 = 1;

/// Status (5.2.6): done.
pub const S_OK: u8 = 0;
/// Status: the request failed.
pub const S_IOERR: u8 = 1;
/// Status: there is no such request.
pub const S_UNSUPP: u8 = 2;
