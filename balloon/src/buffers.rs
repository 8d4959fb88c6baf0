//! What the buffers of a request say.

use chains::{Buffers, Chain};
use virtio_queue::DescriptorChain;
use vm_memory::GuestMemory;

use crate::Error;

/// A chain's buffers, all of them for the device to read.
pub(crate) fn readable<M: GuestMemory>(chain: DescriptorChain<&M>, queue_size: u16) -> Result<Buffers, Error> {
    let Chain { readable, writable } = Chain::gather(chain, queue_size)?;
    none(&writable).map(|()| readable)
}

/// A chain's buffers, all of them for the device to write.
pub(crate) fn writable<M: GuestMemory>(chain: DescriptorChain<&M>, queue_size: u16) -> Result<Buffers, Error> {
    let Chain { readable, writable } = Chain::gather(chain, queue_size)?;
    none(&readable).map(|()| writable)
}

fn none(buffers: &Buffers) -> Result<(), Error> {
    buffers.parts().next().map_or(Ok(()), |part| Err(Error::Direction { address: part.address }))
}

/// The command id in the buffers. "The driver MUST use an output buffer size of 4 bytes for all output
/// buffers submitted to the free_page_vq" (5.5.6.5.1).
pub(crate) fn read_command<M: GuestMemory>(memory: &M, mut buffers: Buffers) -> Result<u32, Error> {
    let mut id = [0; size_of::<u32>()];
    if buffers.bytes() != id.len() as u64 {
        return Err(Error::CommandLength { bytes: buffers.bytes() });
    }
    buffers.read(memory, &mut id)?;
    Ok(u32::from_le_bytes(id))
}

/// How many entries of `entry_bytes` the buffers hold together.
///
/// Where one buffer ends and the next begins means nothing (2.7.4), so an entry may be cut in two.
pub(crate) fn entries(buffers: &Buffers, entry_bytes: usize, entries_max: usize) -> Result<usize, Error> {
    let bytes = buffers.bytes();
    let entries = bytes / entry_bytes as u64;
    if !bytes.is_multiple_of(entry_bytes as u64) {
        return Err(Error::OddLength { bytes, entry_bytes });
    }
    match usize::try_from(entries) {
        Ok(count) if count <= entries_max => Ok(count),
        _ => Err(Error::TooManyEntries { entries, entries_max }),
    }
}

/// Copies the buffers out of guest memory and hands on what they say, `batch_bytes` at a time; the last batch
/// is shorter.
pub(crate) fn read_batches<M: GuestMemory>(
    memory: &M,
    mut buffers: Buffers,
    batch_bytes: usize,
    mut batch: impl FnMut(&[u8]),
) -> Result<(), Error> {
    let mut copy = Vec::new();
    while buffers.bytes() > 0 {
        copy.resize(buffers.bytes().min(batch_bytes as u64) as usize, 0);
        buffers.read(memory, &mut copy)?;
        batch(&copy);
    }
    Ok(())
}
