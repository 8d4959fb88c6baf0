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
        let chain = Chain::gather(chain, queue_size)?;
        for (buffers, access) in [(&chain.readable, Permissions::Read), (&chain.writable, Permissions::Write)] {
            let is_outside = |part: &Part| !memory.check_range(part.address, part.bytes as usize, access);
            if let Some(Part { address, bytes }) = buffers.parts().find(is_outside) {
                return Err(Error::Outside { address, bytes });
            }
        }
        Ok(chain)
    }

    /// The same for buffers that may lie anywhere: for a device that does not use what is in them, or uses as
    /// much as can be read.
    ///
    /// # Errors
    /// Whatever is wrong first; the request is to be refused then.
    pub fn gather<M: GuestMemory>(chain: DescriptorChain<&M>, queue_size: u16) -> Result<Chain, Error> {
        let mut gathered = Chain::default();
        let (mut descriptors, mut writes, mut complete) = (0, false, false);
        for descriptor in chain {
            let (address, bytes) = (descriptor.addr(), descriptor.len());
            if descriptors == usize::from(queue_size) {
                return Err(Error::Long { queue_size });
            }
            let buffers = if descriptor.is_write_only() {
                writes = true;
                &mut gathered.writable
            } else if writes {
                return Err(Error::Order { address });
            } else {
                &mut gathered.readable
            };
            if address.checked_add(bytes.into()).is_none() {
                return Err(Error::Outside { address, bytes });
            }
            buffers.push(Part { address, bytes });
            descriptors += 1;
            complete = !descriptor.has_next();
        }
        if complete { Ok(gathered) } else { Err(Error::Broken { descriptors }) }
    }
}
