//! The inflate and deflate queues: arrays of `le32` page numbers (5.5.6).

use std::ops::Range;

use chains::Buffers;
use vm_memory::GuestMemory;

use crate::buffers::{entries, read_batches};
use crate::ranges::Ranges;
use crate::{Error, RamLayout};

/// Bytes of one page number.
const NUMBER_BYTES: usize = size_of::<u32>();

/// Page numbers that are sorted together: 16 pages of buffer, sixteen of Linux's requests (256 numbers each).
pub const NUMBERS_PER_BATCH: usize = 4096;

/// Page numbers in one request: 256 MiB of guest memory, 256 times what Linux asks for at once.
pub const NUMBERS_PER_CHAIN_MAX: usize = 1 << 16;

/// How many page numbers there are in `buffers`.
pub(crate) fn count(buffers: &Buffers) -> Result<usize, Error> {
    entries(buffers, NUMBER_BYTES, NUMBERS_PER_CHAIN_MAX)
}

/// Hands on the page numbers in `buffers` as ranges inside RAM; those that precede an error have been handed
/// on.
///
/// The page number is the address divided by 4096 whatever the guest's page size (5.5.6), so it is a frame
/// number.
pub(crate) fn read<M: GuestMemory>(
    memory: &M,
    buffers: Buffers,
    ram: &RamLayout,
    mut hand_on: impl FnMut(Range<u32>),
) -> Result<(), Error> {
    let mut outside = None;
    let mut ranges = Ranges::default();
    read_batches(memory, buffers, NUMBERS_PER_BATCH * NUMBER_BYTES, |bytes| {
        for &number in bytes.as_chunks::<NUMBER_BYTES>().0 {
            match u32::from_le_bytes(number) {
                frame if ram.contains(frame) => ranges.insert(frame..frame + 1),
                number => outside = outside.or(Some(number)),
            }
        }
        ranges.drain(&mut hand_on);
    })?;
    match outside {
        None => Ok(()),
        Some(number) => Err(Error::OutsideRam { number: number.into(), ram_end: ram.end() }),
    }
}
