//! The network device behind the transport.
//!
//! Its thread calls [`super::VirtioMmio::process`] with the number of the queue to receive when the driver
//! notifies that queue, and when the link has frames, unless [`::net::Net::holds_frame`].

use chains::BrokenRing;
use net::{Error, Link, Net, QUEUE_COUNT, QUEUE_SIZE_MAX};
use virtio_queue::Queue;
use vm_memory::GuestMemory;
use wire::net::{RECEIVE_QUEUE, TRANSMIT_QUEUE};

use super::device::{Progress, VirtioDevice};
use super::refusals::Refusals;

/// The network device as a virtio device.
pub struct NetDevice<L> {
    net: Net<L>,
    refusals: Refusals,
}

impl<L: Link> NetDevice<L> {
    /// A device around `net`.
    pub fn new(net: Net<L>) -> Self {
        NetDevice { net, refusals: Refusals::of("net") }
    }

    /// The network device itself.
    pub fn net(&self) -> &Net<L> {
        &self.net
    }

    fn log(&self, error: &Error) {
        let counts = self.net.counts();
        self.refusals.log(counts.rejected + counts.send_dropped + counts.receive_dropped, error);
    }
}

impl<L: Link> VirtioDevice for NetDevice<L> {
    fn device_id(&self) -> u32 {
        wire::net::DEVICE_ID
    }

    fn features(&self) -> u64 {
        self.net.features()
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE_MAX; QUEUE_COUNT]
    }

    fn features_agreed(&self, features: u64) {
        if let Err(error) = self.net.set_features(features) {
            self.log(&error);
        }
    }

    fn driver_ok(&self, _queues: &[usize]) {}

    fn reset(&self) {
        self.net.reset();
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.net.read_config(offset, data);
    }

    fn write_config(&self, offset: u64, data: &[u8]) {
        self.net.write_config(offset, data);
    }

    fn process<M: GuestMemory>(&self, index: usize, queue: &mut Queue, memory: &M) -> Result<Progress, BrokenRing> {
        let progress = match index {
            RECEIVE_QUEUE => self.net.receive(queue, memory)?,
            TRANSMIT_QUEUE => self.net.transmit(queue, memory)?,
            _ => return Ok(Progress::default()),
        };
        progress.refused.iter().for_each(|error| self.log(error));
        Ok(Progress { used: progress.used, more: progress.more, config_changed: false })
    }
}
