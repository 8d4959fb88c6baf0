//! The entropy device behind the transport.

use chains::BrokenRing;
use rng::{FEATURES, QUEUE_SIZE_MAX, Rng, Source};
use virtio_queue::Queue;
use vm_memory::GuestMemory;

use super::device::{Progress, VirtioDevice};
use super::refusals::Refusals;

/// The entropy device as a virtio device.
pub struct RngDevice<S> {
    rng: Rng<S>,
    refusals: Refusals,
}

impl<S: Source> RngDevice<S> {
    /// A device around `rng`.
    pub fn new(rng: Rng<S>) -> Self {
        RngDevice { rng, refusals: Refusals::of("rng") }
    }

    /// The entropy device itself.
    pub fn rng(&self) -> &Rng<S> {
        &self.rng
    }
}

impl<S: Source> VirtioDevice for RngDevice<S> {
    fn device_id(&self) -> u32 {
        wire::entropy::DEVICE_ID
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE_MAX]
    }

    fn features_agreed(&self, _features: u64) {}

    fn driver_ok(&self, _queues: &[usize]) {}

    fn reset(&self) {}

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write_config(&self, _offset: u64, _data: &[u8]) {}

    fn process<M: GuestMemory>(&self, _index: usize, queue: &mut Queue, memory: &M) -> Result<Progress, BrokenRing> {
        let progress = self.rng.process(queue, memory)?;
        if let Some(error) = &progress.refused {
            let counts = self.rng.counts();
            self.refusals.log(counts.rejected + counts.failed, error);
        }
        Ok(Progress { used: progress.used, more: progress.more, config_changed: false })
    }
}
