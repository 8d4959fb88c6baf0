//! From a descriptor chain to buffers whose direction and length are checked, and from those to bytes.
//!
//! `virtio-queue` ends a chain silently where it cannot go on (an index out of range, a loop, a table outside
//! memory). Here that is an error: the last descriptor seen must be one that says it is the last.

use virtio_queue::DescriptorChain;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory};

use crate::Error;

/// Which way a buffer is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The device reads it.
    Readable,
    /// The device may write it.
    Writable,
}

/// One buffer of a chain: it does not wrap around, but may lie anywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffer {
    pub(crate) address: GuestAddress,
    pub(crate) bytes: u32,
}

/// A chain's buffers by direction: those the device reads come first (2.7.4.2).
pub(crate) fn collect_both<M: GuestMemory>(
    chain: DescriptorChain<&M>,
    queue_size: u16,
) -> Result<(Vec<Buffer>, Vec<Buffer>), Error> {
    let (mut readable, mut writable) = (Vec::new(), Vec::new());
    walk(chain, queue_size, |buffer, direction| match direction {
        Direction::Readable if !writable.is_empty() => Err(Error::Direction { address: buffer.address }),
        Direction::Readable => {
            readable.push(buffer);
            Ok(())
        }
        Direction::Writable => {
            writable.push(buffer);
            Ok(())
        }
    })?;
    Ok((readable, writable))
}

/// All buffers of a chain, at most `queue_size` of them (2.7.5.3.1: no chain is longer than its queue).
pub(crate) fn collect<M: GuestMemory>(
    chain: DescriptorChain<&M>,
    queue_size: u16,
    direction: Direction,
) -> Result<Vec<Buffer>, Error> {
    let mut buffers = Vec::new();
    walk(chain, queue_size, |buffer, found| {
        if found != direction {
            return Err(Error::Direction { address: buffer.address });
        }
        buffers.push(buffer);
        Ok(())
    })?;
    Ok(buffers)
}

fn walk<M: GuestMemory>(
    chain: DescriptorChain<&M>,
    queue_size: u16,
    mut found: impl FnMut(Buffer, Direction) -> Result<(), Error>,
) -> Result<(), Error> {
    let (mut descriptors, mut complete) = (0, false);
    for descriptor in chain {
        let (address, bytes) = (descriptor.addr(), descriptor.len());
        if descriptors == usize::from(queue_size) {
            return Err(Error::LongChain { queue_size });
        }
        if address.checked_add(bytes.into()).is_none() {
            return Err(Error::Wraps { address, bytes });
        }
        let direction = if descriptor.is_write_only() { Direction::Writable } else { Direction::Readable };
        found(Buffer { address, bytes }, direction)?;
        descriptors += 1;
        complete = !descriptor.has_next();
    }
    if complete { Ok(()) } else { Err(Error::BrokenChain { descriptors }) }
}

/// The command id in the buffers. "The driver MUST use an output buffer size of 4 bytes for all output
/// buffers submitted to the free_page_vq" (5.5.6.5.1).
pub(crate) fn read_command<M: GuestMemory>(memory: &M, buffers: &[Buffer]) -> Result<u32, Error> {
    let bytes: u64 = buffers.iter().map(|buffer| u64::from(buffer.bytes)).sum();
    if bytes != size_of::<u32>() as u64 {
        return Err(Error::CommandLength { bytes });
    }
    let mut id = [0; size_of::<u32>()];
    read_batches(memory, buffers, size_of::<u32>(), |bytes| id.copy_from_slice(bytes))?;
    Ok(u32::from_le_bytes(id))
}

/// How many entries of `entry_bytes` the buffers hold together.
///
/// Where one buffer ends and the next begins means nothing (2.7.4), so an entry may be cut in two.
pub(crate) fn entries(buffers: &[Buffer], entry_bytes: usize, entries_max: usize) -> Result<usize, Error> {
    let bytes: u64 = buffers.iter().map(|buffer| u64::from(buffer.bytes)).sum();
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
    buffers: &[Buffer],
    batch_bytes: usize,
    mut batch: impl FnMut(&[u8]),
) -> Result<(), Error> {
    let mut copy = Vec::new();
    for buffer in buffers {
        let mut address = buffer.address;
        let mut left_bytes = buffer.bytes as usize;
        while left_bytes > 0 {
            let filled = copy.len();
            let step = left_bytes.min(batch_bytes - filled);
            copy.resize(filled + step, 0);
            memory.read_slice(&mut copy[filled..], address).map_err(|source| Error::Unreadable { address, source })?;
            if copy.len() == batch_bytes {
                batch(&copy);
                copy.clear();
            }
            // `collect` saw that the buffer does not wrap around.
            address = address.unchecked_add(step as u64);
            left_bytes -= step;
        }
    }
    if !copy.is_empty() {
        batch(&copy);
    }
    Ok(())
}
