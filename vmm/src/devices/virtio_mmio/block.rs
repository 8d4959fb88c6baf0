//! The block device behind the transport.

use block::{Block, Disk, QUEUE_SIZE_MAX};
use chains::BrokenRing;
use virtio_queue::Queue;
use vm_memory::GuestMemory;

use super::device::{Progress, VirtioDevice};
use super::refusals::Refusals;

/// The block device as a virtio device. Its requests wait for the disk, so it has a thread of its own.
pub struct BlockDevice<D> {
    block: Block<D>,
    refusals: Refusals,
}

impl<D: Disk> BlockDevice<D> {
    /// A device around `block`.
    pub fn new(block: Block<D>) -> Self {
        BlockDevice { block, refusals: Refusals::of("block") }
    }

    /// The block device itself.
    pub fn block(&self) -> &Block<D> {
        &self.block
    }
}

impl<D: Disk> VirtioDevice for BlockDevice<D> {
    fn device_id(&self) -> u32 {
        wire::block::DEVICE_ID
    }

    fn features(&self) -> u64 {
        self.block.features()
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE_MAX]
    }

    fn features_agreed(&self, features: u64) {
        self.block.set_features(features);
    }

    fn driver_ok(&self, _queues: &[usize]) {}

    fn reset(&self) {
        self.block.reset();
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.block.read_config(offset, data);
    }

    fn write_config(&self, offset: u64, data: &[u8]) {
        self.block.write_config(offset, data);
    }

    fn process<M: GuestMemory>(&self, _index: usize, queue: &mut Queue, memory: &M) -> Result<Progress, BrokenRing> {
        let progress = self.block.process(queue, memory)?;
        if let Some(error) = &progress.refused {
            let counts = self.block.counts();
            self.refusals.log(counts.rejected + counts.failed, error);
        }
        Ok(Progress { used: progress.used, more: progress.more, config_changed: false })
    }
}
