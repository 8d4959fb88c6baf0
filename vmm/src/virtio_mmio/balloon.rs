//! The balloon behind the transport.

use std::sync::atomic::{AtomicU64, Ordering};

use balloon::{Balloon, Error, FEATURES, PageSink, QUEUE_COUNT, QUEUE_SIZE_MAX};
use virtio_queue::Queue;
use vm_memory::GuestMemory;

use super::device::{Progress, VirtioDevice};

/// The balloon as a virtio device.
pub struct BalloonDevice<S> {
    balloon: Balloon<S>,
    /// Refused requests after which one is logged again: it doubles, so a guest can cause 64 lines in its life.
    log_refusal_at: AtomicU64,
}

impl<S: PageSink> BalloonDevice<S> {
    /// Number of the statistics queue: to be processed after [`Balloon::request_statistics`].
    pub const STATISTICS_INDEX: usize = 2;

    /// A device around `balloon`.
    pub fn new(balloon: Balloon<S>) -> Self {
        BalloonDevice { balloon, log_refusal_at: AtomicU64::new(1) }
    }

    /// The balloon itself.
    pub fn balloon(&self) -> &Balloon<S> {
        &self.balloon
    }

    fn log_refusal(&self, error: &Error) {
        let refused = self.balloon.status().counts.rejected;
        // Relaxed: only the device thread comes here.
        if refused >= self.log_refusal_at.load(Ordering::Relaxed) {
            self.log_refusal_at.store(refused.saturating_mul(2), Ordering::Relaxed);
            tracing::warn!(refused, error = error as &dyn std::error::Error, "balloon request refused");
        }
    }
}

impl<S: PageSink> VirtioDevice for BalloonDevice<S> {
    type Error = Error;

    fn device_id(&self) -> u32 {
        wire::balloon::DEVICE_ID
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE_MAX; QUEUE_COUNT]
    }

    fn features_agreed(&self, features: u64) {
        self.balloon.set_features(features);
    }

    fn driver_ok(&self, queues: &[usize]) {
        self.balloon.set_driver_ok(queues);
    }

    fn reset(&self) {
        self.balloon.reset();
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.balloon.read_config(offset, data);
    }

    fn write_config(&self, offset: u64, data: &[u8]) {
        self.balloon.write_config(offset, data);
    }

    fn process<M: GuestMemory>(&self, index: usize, queue: &mut Queue, memory: &M) -> Result<Progress, Error> {
        let Some(which) = self.balloon.queue_at(index) else { return Ok(Progress::default()) };
        let progress = self.balloon.process(which, queue, memory)?;
        if let Some(error) = &progress.refused {
            self.log_refusal(error);
        }
        Ok(Progress { used: progress.used, more: progress.more, config_changed: progress.config_changed })
    }
}
