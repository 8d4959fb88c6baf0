//! From what a driver alleges to what is to be done: a [`Request`] concerns sectors that the disk has.

use std::ops::Range;

use chains::Buffers;
use vm_memory::GuestMemory;
use wire::block::{
    HEADER_BYTES, ID_BYTES, SECTOR_BYTES, SEGMENT_BYTES, SEGMENT_F_UNMAP, T_DISCARD, T_FLUSH, T_GET_ID, T_IN, T_OUT,
    T_WRITE_ZEROES,
};

use crate::disk::{Access, Geometry};
use crate::{Error, QUEUE_SIZE_MAX};

/// `size_max`: longest piece of data. 16 of them are as much as Linux asks for at once.
pub(crate) const SIZE_MAX: u32 = 64 << 10;

/// `seg_max`: most pieces of data, as many as fit into a queue together with header and status.
pub(crate) const SEG_MAX: u32 = QUEUE_SIZE_MAX as u32 - 2;

/// Data of one request: just under 16 MiB, which every driver that keeps to `size_max` and `seg_max` stays
/// below.
pub const REQUEST_BYTES_MAX: u64 = SIZE_MAX as u64 * SEG_MAX as u64;

/// Segments of a discard or write-zeroes.
pub const SEGMENTS_MAX: u32 = 16;

/// Sectors of one segment of a discard: 64 MiB, so that one request punches 1 GiB of holes at most.
pub const DISCARD_SECTORS_MAX: u32 = (64 << 20) / SECTOR_BYTES as u32;

/// Sectors of one segment of a write-zeroes: 1 MiB, so that a request writes as much as one of data where
/// that is how it is done.
pub const ZEROES_SECTORS_MAX: u32 = (1 << 20) / SECTOR_BYTES as u32;

/// What is to be done. Ranges are bytes of the disk, inside of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Read(Range<u64>),
    Write(Range<u64>),
    Flush,
    Id,
    Discard(Vec<Range<u64>>),
    /// With whether deallocating is welcome.
    WriteZeroes(Vec<(Range<u64>, bool)>),
}

impl Request {
    /// The request at the front of `readable`, which keeps the data of a write; `writable_bytes` is room for
    /// an answer.
    pub(crate) fn parse<M: GuestMemory>(
        memory: &M,
        readable: &mut Buffers,
        writable_bytes: u64,
        geometry: Geometry,
        access: Access,
    ) -> Result<Request, Error> {
        let mut header = [0; HEADER_BYTES];
        let bytes = readable.read(memory, &mut header)?;
        if bytes < HEADER_BYTES {
            return Err(Error::ShortHeader { bytes });
        }
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let (number, sector) = (u32::from_le_bytes([t0, t1, t2, t3]), u64::from_le_bytes(sector));
        let writes = matches!(number, T_OUT | T_DISCARD | T_WRITE_ZEROES);
        // 5.2.6.2: "MUST set the status byte to VIRTIO_BLK_S_IOERR for a write request if the VIRTIO_BLK_F_RO
        // feature if offered".
        if writes && access == Access::ReadOnly {
            return Err(Error::ReadOnly);
        }
        Ok(match number {
            T_IN => Request::Read(data(sector, writable_bytes, geometry)?),
            T_OUT => Request::Write(data(sector, readable.bytes(), geometry)?),
            T_FLUSH => Request::Flush,
            T_GET_ID if writable_bytes < ID_BYTES as u64 => {
                return Err(Error::OddLength { bytes: writable_bytes, unit_bytes: ID_BYTES as u64 });
            }
            T_GET_ID => Request::Id,
            T_DISCARD => {
                let segments = segments(memory, readable)?;
                // "MUST set the status byte to VIRTIO_BLK_S_UNSUPP for discard commands if the unmap flag is
                // set."
                let range = |segment: &Segment| segment.range(0, DISCARD_SECTORS_MAX, geometry);
                Request::Discard(segments.iter().map(range).collect::<Result<_, _>>()?)
            }
            T_WRITE_ZEROES => {
                let segments = segments(memory, readable)?;
                let range = |segment: &Segment| {
                    let range = segment.range(SEGMENT_F_UNMAP, ZEROES_SECTORS_MAX, geometry)?;
                    Ok((range, segment.flags & SEGMENT_F_UNMAP != 0))
                };
                Request::WriteZeroes(segments.iter().map(range).collect::<Result<_, Error>>()?)
            }
            number => return Err(Error::UnknownType { number }),
        })
    }
}

/// The bytes of a disk that data of this length is for.
fn data(sector: u64, bytes: u64, geometry: Geometry) -> Result<Range<u64>, Error> {
    if !bytes.is_multiple_of(SECTOR_BYTES) {
        return Err(Error::OddLength { bytes, unit_bytes: SECTOR_BYTES });
    }
    if bytes > REQUEST_BYTES_MAX {
        return Err(Error::LongData { bytes, bytes_max: REQUEST_BYTES_MAX });
    }
    on_disk(sector, bytes / SECTOR_BYTES, geometry)
}

fn on_disk(sector: u64, sectors: u64, geometry: Geometry) -> Result<Range<u64>, Error> {
    let capacity = geometry.sectors;
    match sector.checked_add(sectors) {
        // No overflow: the disk's bytes are counted by an `u64`.
        Some(end) if end <= capacity => Ok(sector * SECTOR_BYTES..end * SECTOR_BYTES),
        _ => Err(Error::BeyondEnd { sector, sectors, capacity }),
    }
}

/// A segment of a discard or write-zeroes, as the driver gave it.
struct Segment {
    sector: u64,
    sectors: u32,
    flags: u32,
}

impl Segment {
    fn range(&self, flags_known: u32, sectors_max: u32, geometry: Geometry) -> Result<Range<u64>, Error> {
        if self.flags & !flags_known != 0 {
            return Err(Error::Flags { flags: self.flags });
        }
        if self.sectors > sectors_max {
            return Err(Error::LongSegment { sectors: self.sectors.into(), sectors_max: sectors_max.into() });
        }
        on_disk(self.sector, self.sectors.into(), geometry)
    }
}

fn segments<M: GuestMemory>(memory: &M, readable: &mut Buffers) -> Result<Vec<Segment>, Error> {
    let bytes = readable.bytes();
    let bytes_max = u64::from(SEGMENTS_MAX) * SEGMENT_BYTES as u64;
    if !bytes.is_multiple_of(SEGMENT_BYTES as u64) {
        return Err(Error::OddLength { bytes, unit_bytes: SEGMENT_BYTES as u64 });
    }
    if bytes > bytes_max {
        return Err(Error::LongData { bytes, bytes_max });
    }
    let mut copy = vec![0; bytes as usize];
    readable.read(memory, &mut copy)?;
    let segment = |&[s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, ref flags @ ..]: &[u8; SEGMENT_BYTES]| Segment {
        sector: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
        sectors: u32::from_le_bytes([n0, n1, n2, n3]),
        flags: u32::from_le_bytes(*flags),
    };
    Ok(copy.as_chunks::<SEGMENT_BYTES>().0.iter().map(segment).collect())
}
