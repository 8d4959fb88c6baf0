//! One request: a descriptor chain, checked.

use virtio_queue::DescriptorChain;
use vm_memory::{Address, GuestMemory, Permissions};

use crate::buffers::Part;
use crate::{Buffers, Error};

/// A request's buffers, by direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// What the device reads.
    pub readable: Buffers,
    /// What the device writes.
    pub writable: Buffers,
}

impl Chain {
    /// The buffers of `chain`, at most `queue_size` of them (2.7.5.3.1), all in `memory`.
    ///
    /// # Errors
    /// Whatever is wrong first; the request is to be refused then.
    pub fn check<M: GuestMemory>(chain: DescriptorChain<&M>, memory: &M, queue_size: u16) -> Result<Chain, Error> {
        let mut checked = Chain::default();
        let (mut descriptors, mut writes, mut complete) = (0, false, false);
        for descriptor in chain {
            let (address, bytes) = (descriptor.addr(), descriptor.len());
            if descriptors == usize::from(queue_size) {
                return Err(Error::Long { queue_size });
            }
            let (buffers, access) = if descriptor.is_write_only() {
                writes = true;
                (&mut checked.writable, Permissions::Write)
            } else if writes {
                return Err(Error::Order { address });
            } else {
                (&mut checked.readable, Permissions::Read)
            };
            let wraps = address.checked_add(bytes.into()).is_none();
            if wraps || bytes > 0 && !memory.check_range(address, bytes as usize, access) {
                return Err(Error::Outside { address, bytes });
            }
            buffers.push(Part { address, bytes });
            descriptors += 1;
            complete = !descriptor.has_next();
        }
        if complete { Ok(checked) } else { Err(Error::Broken { descriptors }) }
    }
}
