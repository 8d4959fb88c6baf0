//! The balloon behind the transport.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use balloon::{Balloon, BalloonQueue, FEATURES, PageSink, QUEUE_COUNT, QUEUE_SIZE_MAX};
use chains::BrokenRing;
use nix::time::{ClockId, clock_gettime};
use virtio_queue::Queue;
use vm_memory::GuestMemory;

use super::device::{Progress, VirtioDevice};
use super::refusals::Refusals;

/// The balloon as a virtio device.
pub struct BalloonDevice<S> {
    balloon: Balloon<S>,
    refusals: Refusals,
    /// CPU time spent inflating and deflating, and taking what is free.
    cpu_ns: [AtomicU64; 2],
}

impl<S: PageSink> BalloonDevice<S> {
    /// Number of the statistics queue: to be processed when [`Balloon::poll_statistics`] says so.
    pub const STATISTICS_INDEX: usize = 2;

    /// A device around `balloon`.
    pub fn new(balloon: Balloon<S>) -> Self {
        BalloonDevice { balloon, refusals: Refusals::of("balloon"), cpu_ns: Default::default() }
    }

    /// The balloon itself.
    pub fn balloon(&self) -> &Balloon<S> {
        &self.balloon
    }

    /// CPU time spent so far, ns: to inflate and deflate, and to take what is reported free or hinted at.
    pub fn cpu_ns(&self) -> [u64; 2] {
        self.cpu_ns.each_ref().map(|ns| ns.load(Ordering::Relaxed))
    }
}

impl<S: PageSink> VirtioDevice for BalloonDevice<S> {
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

    fn process<M: GuestMemory>(&self, index: usize, queue: &mut Queue, memory: &M) -> Result<Progress, BrokenRing> {
        let Some(which) = self.balloon.queue_at(index) else { return Ok(Progress::default()) };
        let begun = thread_cpu_time();
        let progress = self.balloon.process(which, queue, memory)?;
        let of = match which {
            BalloonQueue::Inflate | BalloonQueue::Deflate => Some(&self.cpu_ns[0]),
            BalloonQueue::Reporting | BalloonQueue::Hinting => Some(&self.cpu_ns[1]),
            BalloonQueue::Statistics => None,
        };
        let spent = thread_cpu_time().saturating_sub(begun);
        of.inspect(|ns| _ = ns.fetch_add(spent.as_nanos() as u64, Ordering::Relaxed));
        if let Some(error) = &progress.refused {
            self.refusals.log(self.balloon.status().counts.rejected, error);
        }
        Ok(Progress { used: progress.used, more: progress.more, config_changed: progress.config_changed })
    }
}

/// CPU time of the calling thread. The clock exists on every Linux; without it work would look free.
fn thread_cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
