//! What the transport asks of a device, and of the machine around it.

use chains::BrokenRing;
use virtio_queue::Queue;
use vm_memory::GuestMemory;

/// A virtio device. All but [`VirtioDevice::process`] is called with registers locked, and must not block.
pub trait VirtioDevice: Send + Sync {
    /// Its number in section 5.
    fn device_id(&self) -> u32;

    /// Features it offers; VIRTIO_F_VERSION_1 is among them.
    fn features(&self) -> u64;

    /// Largest size of each queue: a power of two, or 0 where a number has no queue.
    fn queue_sizes(&self) -> &[u16];

    /// Driver and device have agreed on these, which are offered and contain VIRTIO_F_VERSION_1.
    fn features_agreed(&self, features: u64);

    /// The driver has started, with these queues set up.
    fn driver_ok(&self, queues: &[usize]);

    /// The driver is gone; its buffers with it.
    fn reset(&self);

    /// Reads the configuration space: fills `data`, with 0 where there is nothing.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes the configuration space, where the driver may.
    fn write_config(&self, offset: u64, data: &[u8]);

    /// One bounded turn of work on queue `index`, on the device thread. May block in page faults. After an
    /// error the device does nothing until it is reset.
    fn process<M: GuestMemory>(&self, index: usize, queue: &mut Queue, memory: &M) -> Result<Progress, BrokenRing>;
}

/// What a device did in its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Buffers went back to the driver.
    pub used: bool,
    /// There is more to do.
    pub more: bool,
    /// The configuration space changed.
    pub config_changed: bool,
}

/// How a turn ended: whether the device thread is to come back without being called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnEnd {
    /// Wait for the next notification.
    Done,
    /// Call again, after the other queues.
    More,
}

/// The lines that leave the device. Called with registers locked: must not block, nor call back.
pub trait Wires: Send + Sync {
    /// The interrupt line: asserted while INTERRUPT_STATUS is not 0.
    fn set_interrupt(&self, asserted: bool);

    /// Calls the device thread to queue `index`, as its ioeventfd would.
    fn notify(&self, index: usize);
}
