//! The virtio-mmio transport, version 2 (VIRTIO 1.3, 4.2): a device's register window, and turns of work on
//! its queues.
//!
//! ```text
//!   vCPU threads                                  the device thread
//!    read, write --> Registers (status, features, process(queue) --> live Queue --> VirtioDevice::process
//!                    selectors, queue setups)       |                                 |
//!                      |  QUEUE_READY: a setup,     |                                 |  guest memory
//!                      |  checked, becomes          |                                 |  (may wait for it)
//!                      `------------> a live Queue  `-- used buffers, NEEDS_RESET <---'
//! ```
//!
//! **Threads and locks.** Register accesses come from any vCPU; [`VirtioMmio::process`] from one device
//! thread. There are two locks, taken in this order:
//!
//! 1. `queues`, held for a whole turn of work. Only a reset and QUEUE_READY take it on a vCPU, so that when
//!    the driver's write of STATUS 0 returns, the device touches its memory no more (2.4.2). That wait is one
//!    turn long, which is bounded.
//! 2. `registers`, never held over guest memory. Everything else a vCPU does takes this one alone, so a
//!    device that waits for a page does not keep a vCPU from its registers. The device's own lock and
//!    [`Wires`] are leaves under it.
//!
//! **Architecture Invariant:** no register access touches guest memory; ring addresses are compared with its
//! borders only. Whoever holds all threads (for a pause) must hold the device thread *between* turns: within
//! one, a vCPU may be waiting for it in a reset.

mod balloon;
mod block;
mod device;
#[cfg(test)]
mod devices_tests;
mod net;
mod refusals;
mod registers;
mod rng;
#[cfg(test)]
mod tests;

use std::sync::Mutex;

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddressSpace;
use wire::mmio;

pub use self::balloon::BalloonDevice;
pub use self::block::BlockDevice;
pub use self::device::{Progress, TurnEnd, VirtioDevice, Wires};
pub use self::net::NetDevice;
use self::registers::{Effect, Registers};
pub use self::rng::RngDevice;
use crate::{board::MmioDevice, sync::lock};

/// One device behind its register window.
pub struct VirtioMmio<D, M, W> {
    device: D,
    memory: M,
    wires: W,
    queues: Mutex<Vec<Option<Queue>>>,
    registers: Mutex<Registers>,
}

impl<D: VirtioDevice, M: GuestAddressSpace, W: Wires> VirtioMmio<D, M, W> {
    /// `device`, whose queues lie in `memory`, wired to its interrupt line and its device thread by `wires`.
    pub fn new(device: D, memory: M, wires: W) -> Self {
        let queue_sizes = device.queue_sizes();
        let queues = queue_sizes.iter().map(|_| None).collect();
        let registers = Registers::new(device.features(), queue_sizes);
        VirtioMmio { device, memory, wires, queues: Mutex::new(queues), registers: Mutex::new(registers) }
    }

    /// The device, to ask it or to wish for something that is not in its configuration space.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// How many queues there are; the ioeventfds' data matches are the numbers below it.
    pub fn queue_count(&self) -> usize {
        self.device.queue_sizes().len()
    }

    /// Whether a queue is the device's to work on.
    pub fn is_live(&self, index: usize) -> bool {
        let registers = lock(&self.registers);
        registers.is_live() && registers.ready_queues().contains(&index)
    }

    /// Register accesses that were refused: unknown, of the wrong size, or at the wrong time.
    pub fn refused_total(&self) -> u64 {
        lock(&self.registers).refused_total
    }

    /// One turn of work on a queue, by the device thread: when the queue's ioeventfd or [`Wires::notify`]
    /// says so, and again after [`TurnEnd::More`], other queues first.
    pub fn process(&self, index: usize) -> TurnEnd {
        let mut queues = lock(&self.queues);
        if !lock(&self.registers).is_live() {
            return TurnEnd::Done;
        }
        // `is_live` cannot end while `queues` is held, but by the driver's own FAILED.
        let Some(queue) = queues.get_mut(index).and_then(Option::as_mut) else { return TurnEnd::Done };
        let memory = self.memory.memory();
        let result = self.device.process(index, queue, &*memory);
        let mut registers = lock(&self.registers);
        match result {
            Ok(progress) => {
                if progress.used {
                    registers.used_buffer();
                }
                if progress.config_changed {
                    registers.configuration_changed();
                }
                // A line that is a pulse is not to be raised for nothing.
                if progress.used || progress.config_changed {
                    self.set_line(&registers);
                }
                if progress.more { TurnEnd::More } else { TurnEnd::Done }
            }
            Err(error) => {
                let times = registers.needs_reset();
                self.set_line(&registers);
                drop(registers);
                // A guest may break its device as often as it likes, but causes at most 64 lines.
                if times.is_power_of_two() {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(queue = index, times, error, "device needs a reset");
                }
                TurnEnd::Done
            }
        }
    }

    /// Changes the configuration space: `change` says whether it did, and then the driver is told. `change`
    /// must not block.
    pub fn configure(&self, change: impl FnOnce(&D) -> bool) {
        let mut registers = lock(&self.registers);
        if change(&self.device) {
            registers.configuration_changed();
            self.set_line(&registers);
        }
    }

    fn write_register(&self, offset: u64, value: u32) {
        match (offset, value) {
            (mmio::STATUS, 0) => self.reset(),
            (mmio::QUEUE_READY, _) => self.set_queue_ready(value),
            _ => {
                let mut registers = lock(&self.registers);
                match registers.write(offset, value) {
                    Some(Effect::None) => {}
                    Some(Effect::InterruptLine) => self.set_line(&registers),
                    Some(Effect::FeaturesAgreed(features)) => self.device.features_agreed(features),
                    Some(Effect::Started) => {
                        self.device.driver_ok(&registers.ready_queues());
                        self.set_line(&registers);
                        // A driver may fill a queue before it is started (Linux does, 5.5.5 demands it): look
                        // at all of them.
                        (0..self.queue_count()).for_each(|index| self.wires.notify(index));
                    }
                    Some(Effect::Notify(index)) => self.wires.notify(index),
                    None => registers.refused_total += 1,
                }
            }
        }
    }

    fn reset(&self) {
        let mut queues = lock(&self.queues);
        let mut registers = lock(&self.registers);
        queues.fill_with(|| None);
        registers.reset();
        self.device.reset();
        self.set_line(&registers);
    }

    fn set_queue_ready(&self, value: u32) {
        let mut queues = lock(&self.queues);
        let mut registers = lock(&self.registers);
        let queue = match value {
            0 => Some(None),
            1 => registers.checked_queue().filter(|queue| queue.is_valid(&*self.memory.memory())).map(Some),
            _ => None,
        };
        let place = registers.queue_sel().and_then(|index| queues.get_mut(index));
        match (queue, place) {
            (Some(queue), Some(place)) => {
                registers.set_queue_ready(queue.is_some());
                *place = queue;
            }
            _ => registers.refused_total += 1,
        }
    }

    /// Always with the registers locked, so that the line follows INTERRUPT_STATUS in order.
    fn set_line(&self, registers: &Registers) {
        self.wires.set_interrupt(registers.interrupt_status() != 0);
    }
}

impl<D, M, W> MmioDevice for VirtioMmio<D, M, W>
where
    D: VirtioDevice,
    M: GuestAddressSpace + Send + Sync,
    W: Wires,
{
    /// A vCPU reads `data.len()` bytes of the window. What cannot be read is 0.
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let mut registers = lock(&self.registers);
        if !is_aligned(offset, data.len()) {
            registers.refused_total += 1;
        } else if offset >= mmio::CONFIG {
            self.device.read_config(offset - mmio::CONFIG, data);
        } else if let Ok(register) = <&mut [u8; 4]>::try_from(data) {
            let value = match offset {
                mmio::DEVICE_ID => Some(self.device.device_id()),
                _ => registers.read(offset),
            };
            match value {
                Some(value) => *register = value.to_le_bytes(),
                None => registers.refused_total += 1,
            }
        } else {
            // 4.2.2.2: the registers proper are 32 bits wide, and accessed as such.
            registers.refused_total += 1;
        }
    }

    /// A vCPU writes `data` into the window. What cannot be written is ignored.
    fn write(&self, offset: u64, data: &[u8]) {
        if is_aligned(offset, data.len()) {
            if offset >= mmio::CONFIG {
                let _registers = lock(&self.registers);
                return self.device.write_config(offset - mmio::CONFIG, data);
            }
            if let Ok(&register) = <&[u8; 4]>::try_from(data) {
                return self.write_register(offset, u32::from_le_bytes(register));
            }
        }
        lock(&self.registers).refused_total += 1;
    }
}

/// 4.2.2.2: accesses of 1, 2 or 4 bytes, at multiples of their size.
fn is_aligned(offset: u64, bytes: usize) -> bool {
    matches!(bytes, 1 | 2 | 4) && offset.is_multiple_of(bytes as u64)
}
