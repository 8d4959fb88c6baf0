//! One turn of work on a queue of requests.

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// After how much a turn takes no further request.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Requests.
    pub chains: usize,
    /// Work, in a unit of the device's own. A turn exceeds it by one request at most.
    pub work: u64,
}

/// What a request came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Bytes written, counted from the first writable one, without a gap.
    pub written_bytes: u32,
    /// Work that it was.
    pub work: u64,
}

/// What a turn did.
#[derive(Debug)]
pub struct Progress<E> {
    /// Buffers went back to the driver, and it wants to be told.
    pub used: bool,
    /// There is more to do: call again, whether or not somebody notifies.
    pub more: bool,
    /// Why the last request went wrong that did.
    pub refused: Option<E>,
}

/// Serves requests until there are none, or enough was done. Each goes back to the driver, whatever it came
/// to.
///
/// # Errors
/// The ring itself is wrong: the device needs a reset.
pub fn turn<M: GuestMemory, E>(
    queue: &mut Queue,
    memory: &M,
    bounds: Bounds,
    mut serve: impl FnMut(DescriptorChain<&M>, u16) -> (Served, Option<E>),
) -> Result<Progress<E>, virtio_queue::Error> {
    let (mut more, mut any, mut work, mut refused) = (true, false, 0u64, None);
    queue.disable_notification(memory)?;
    for _ in 0..bounds.chains {
        if work >= bounds.work {
            break;
        }
        let Some(chain) = queue.iter(memory)?.next() else {
            more = queue.enable_notification(memory)?;
            if more {
                continue;
            }
            break;
        };
        let head = chain.head_index();
        let (served, error) = serve(chain, queue.size());
        refused = error.or(refused);
        work = work.saturating_add(served.work);
        queue.add_used(memory, head, served.written_bytes)?;
        any = true;
    }
    Ok(Progress { used: any && queue.needs_notification(memory)?, more, refused })
}

/// Gives chains, each with the bytes written to it, back in one step: the driver sees all of them or none.
/// (One by one, it could look between the first and the second buffer of a frame.)
///
/// What is told of them afterwards, `virtio-queue`'s `needs_notification` decides by the last one only.
///
/// # Errors
/// The ring itself is wrong: the device needs a reset.
pub fn add_used_together<M: GuestMemory>(
    queue: &mut Queue,
    memory: &M,
    used: &[(u16, u32)],
) -> Result<(), virtio_queue::Error> {
    let Some((&(last, last_bytes), others)) = used.split_last() else { return Ok(()) };
    let size = queue.size();
    if others.len() >= size.into() || others.iter().any(|&(head, _)| head >= size) {
        return Err(virtio_queue::Error::InvalidDescriptorIndex);
    }
    let mut next = queue.next_used();
    for &(head, bytes) in others {
        // Two `le16`, then the elements (2.7.8): a `le32` and another.
        let offset = 4 + 8 * u64::from(next % size);
        let address = queue.used_ring().checked_add(offset).ok_or(virtio_queue::Error::AddressOverflow)?;
        let mut element = [0; 8];
        element[..4].copy_from_slice(&u32::from(head).to_le_bytes());
        element[4..].copy_from_slice(&bytes.to_le_bytes());
        memory.write_slice(&element, GuestAddress(address)).map_err(virtio_queue::Error::GuestMemory)?;
        next = next.wrapping_add(1);
    }
    queue.set_next_used(next);
    queue.add_used(memory, last, last_bytes)
}
