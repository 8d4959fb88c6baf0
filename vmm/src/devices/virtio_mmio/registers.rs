//! The register file: what the driver has said so far, and whether it may say so now. No locks, no I/O.
//!
//! ```text
//!             ACKNOWLEDGE       DRIVER          FEATURES_OK                DRIVER_OK
//!   reset --------------> seen -------> driver ------------> agreed --------------------> live
//!     ^                                  DRIVER_FEATURES      queues are set up            |
//!     |                                  are taken here       here                         | broken ring
//!     `---- STATUS = 0, from anywhere (and the only way out of FAILED, NEEDS_RESET) <------'
//! ```
//!
//! FEATURES_OK stays clear when the features are not a subset of what is offered, or lack VERSION_1 (3.1.1
//! step 5, 6.2): the driver reads STATUS back to learn it.

use virtio_queue::{Queue, QueueState};
use wire::mmio;
use wire::virtio::{
    F_EVENT_IDX, F_VERSION_1, STATUS_ACKNOWLEDGE, STATUS_DRIVER, STATUS_DRIVER_OK, STATUS_FAILED, STATUS_FEATURES_OK,
    STATUS_NEEDS_RESET,
};

/// Registers of shared memory regions (4.2.2): there are none, which all ones say.
const SHARED_MEMORY: std::ops::RangeInclusive<u64> = 0x0b0..=0x0bc;

/// "BLST".
const VENDOR: u32 = u32::from_le_bytes(*b"BLST");

/// The steps of the status, each with the bit that must precede it.
const STEPS: [(u32, u32); 4] = [
    (STATUS_ACKNOWLEDGE, 0),
    (STATUS_DRIVER, STATUS_ACKNOWLEDGE),
    (STATUS_FEATURES_OK, STATUS_DRIVER),
    (STATUS_DRIVER_OK, STATUS_FEATURES_OK),
];

/// What a write asks of the world outside the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    InterruptLine,
    FeaturesAgreed(u64),
    Started,
    Notify(usize),
}

/// What the driver has said of a queue: an allegation until QUEUE_READY.
#[derive(Clone, Copy, Debug)]
struct QueueSetup {
    size_max: u16,
    size: u32,
    descriptors: u64,
    driver: u64,
    device: u64,
    ready: bool,
}

impl QueueSetup {
    fn new(size_max: u16) -> Self {
        QueueSetup { size_max, size: size_max.into(), descriptors: 0, driver: 0, device: 0, ready: false }
    }
}

/// The register file.
#[derive(Debug)]
pub(super) struct Registers {
    offered: u64,
    accepted: u64,
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
    queues: Vec<QueueSetup>,
    status: u32,
    interrupt_status: u32,
    config_generation: u32,
    /// The configuration changed while nobody could be told.
    config_untold: bool,
    /// How often the device needed a reset.
    broken_total: u64,
    pub(super) refused_total: u64,
}

impl Registers {
    pub(super) fn new(offered: u64, queue_sizes: &[u16]) -> Self {
        Registers {
            offered,
            accepted: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
            queues: queue_sizes.iter().map(|&size_max| QueueSetup::new(size_max)).collect(),
            status: 0,
            interrupt_status: 0,
            config_generation: 0,
            config_untold: false,
            broken_total: 0,
            refused_total: 0,
        }
    }

    /// Back to the beginning; only what counts events goes on counting.
    pub(super) fn reset(&mut self) {
        let queue_sizes: Vec<u16> = self.queues.iter().map(|queue| queue.size_max).collect();
        let Registers { offered, config_generation, broken_total, refused_total, .. } = *self;
        *self = Registers { config_generation, broken_total, refused_total, ..Registers::new(offered, &queue_sizes) };
    }

    /// Whether the queues are the device's to work on.
    pub(super) fn is_live(&self) -> bool {
        self.status & (STATUS_DRIVER_OK | STATUS_NEEDS_RESET | STATUS_FAILED) == STATUS_DRIVER_OK
    }

    pub(super) fn interrupt_status(&self) -> u32 {
        self.interrupt_status
    }

    pub(super) fn used_buffer(&mut self) {
        self.interrupt_status |= mmio::INTERRUPT_USED_BUFFER;
    }

    pub(super) fn configuration_changed(&mut self) {
        self.config_generation = self.config_generation.wrapping_add(1);
        self.config_untold = true;
        self.tell_configuration();
    }

    /// 2.1.2: "If DRIVER_OK is set, after it sets DEVICE_NEEDS_RESET, the device MUST send a device
    /// configuration change notification to the driver."
    ///
    /// Returns how often this has happened.
    pub(super) fn needs_reset(&mut self) -> u64 {
        self.status |= STATUS_NEEDS_RESET;
        self.interrupt_status |= mmio::INTERRUPT_CONFIG_CHANGE;
        self.broken_total += 1;
        self.broken_total
    }

    /// The number in QUEUE_SEL, if there is such a queue.
    pub(super) fn queue_sel(&self) -> Option<usize> {
        let index = usize::try_from(self.queue_sel).ok()?;
        (self.queues.get(index)?.size_max > 0).then_some(index)
    }

    /// Numbers of the queues that are set up.
    pub(super) fn ready_queues(&self) -> Vec<usize> {
        (0..self.queues.len()).filter(|&index| self.queues[index].ready).collect()
    }

    pub(super) fn set_queue_ready(&mut self, ready: bool) {
        if let Some(index) = self.queue_sel() {
            self.queues[index].ready = ready;
        }
    }

    /// The selected queue as the driver set it up: its size and alignments are right, its addresses yet to be
    /// compared with guest memory. `None` as well where a driver ring is at address 0, which `virtio-queue`
    /// takes for no ring.
    pub(super) fn checked_queue(&self) -> Option<Queue> {
        let setup = self.queue_to_set_up()?;
        if setup.driver == 0 {
            return None;
        }
        let state = QueueState {
            max_size: setup.size_max,
            size: u16::try_from(setup.size).ok()?,
            ready: true,
            desc_table: setup.descriptors,
            avail_ring: setup.driver,
            used_ring: setup.device,
            event_idx_enabled: self.accepted & (1 << F_EVENT_IDX) != 0,
            ..QueueState::default()
        };
        Queue::try_from(state).ok()
    }

    /// Reads a register; `None` if it is unknown or only to be written.
    pub(super) fn read(&self, offset: u64) -> Option<u32> {
        let queue = self.queue_sel().map(|index| self.queues[index]);
        Some(match offset {
            mmio::MAGIC_VALUE => mmio::MAGIC,
            mmio::VERSION => mmio::VERSION_2,
            mmio::VENDOR_ID => VENDOR,
            mmio::DEVICE_FEATURES => half(self.offered, self.device_features_sel),
            mmio::QUEUE_SIZE_MAX => queue.map_or(0, |queue| queue.size_max.into()),
            mmio::QUEUE_READY => queue.is_some_and(|queue| queue.ready).into(),
            mmio::INTERRUPT_STATUS => self.interrupt_status,
            mmio::STATUS => self.status,
            mmio::CONFIG_GENERATION => self.config_generation,
            _ if SHARED_MEMORY.contains(&offset) => u32::MAX,
            _ => return None,
        })
    }

    /// Writes a register, STATUS 0 and QUEUE_READY excepted; `None` if that is unknown or not allowed now.
    pub(super) fn write(&mut self, offset: u64, value: u32) -> Option<Effect> {
        match offset {
            mmio::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            mmio::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            mmio::DRIVER_FEATURES => self.accept(value)?,
            mmio::QUEUE_SEL => self.queue_sel = value,
            mmio::QUEUE_SIZE => self.queue_to_set_up_mut()?.size = value,
            mmio::QUEUE_DESC_LOW => set_low(&mut self.queue_to_set_up_mut()?.descriptors, value),
            mmio::QUEUE_DESC_HIGH => set_high(&mut self.queue_to_set_up_mut()?.descriptors, value),
            mmio::QUEUE_DRIVER_LOW => set_low(&mut self.queue_to_set_up_mut()?.driver, value),
            mmio::QUEUE_DRIVER_HIGH => set_high(&mut self.queue_to_set_up_mut()?.driver, value),
            mmio::QUEUE_DEVICE_LOW => set_low(&mut self.queue_to_set_up_mut()?.device, value),
            mmio::QUEUE_DEVICE_HIGH => set_high(&mut self.queue_to_set_up_mut()?.device, value),
            mmio::QUEUE_NOTIFY => {
                let index = usize::try_from(value).ok().filter(|&index| index < self.queues.len())?;
                return Some(Effect::Notify(index));
            }
            mmio::INTERRUPT_ACK => {
                self.interrupt_status &= !value;
                return Some(Effect::InterruptLine);
            }
            mmio::STATUS => return self.write_status(value),
            _ => return None,
        }
        Some(Effect::None)
    }

    fn write_status(&mut self, value: u32) -> Option<Effect> {
        // 2.1.1: "The driver MUST NOT clear a device status bit", but NEEDS_RESET is not the driver's.
        if self.status & !value & !STATUS_NEEDS_RESET != 0 || self.status & STATUS_FAILED != 0 {
            return None;
        }
        // 3.1.1 step 6: the driver reads FEATURES_OK back before it goes on.
        let both = STATUS_FEATURES_OK | STATUS_DRIVER_OK;
        if value & !self.status & both == both {
            return None;
        }
        self.status |= value & STATUS_FAILED;
        let mut effect = Effect::None;
        for (step, before) in STEPS {
            if value & step == 0 || self.status & step != 0 {
                continue;
            }
            if self.status & before != before || (step == STATUS_FEATURES_OK && !self.features_are_acceptable()) {
                return None;
            }
            self.status |= step;
            match step {
                STATUS_FEATURES_OK => effect = Effect::FeaturesAgreed(self.accepted),
                STATUS_DRIVER_OK => {
                    self.tell_configuration();
                    effect = Effect::Started;
                }
                _ => {}
            }
        }
        Some(effect)
    }

    /// 2.2.1: "The driver MUST NOT accept a feature which the device did not offer"; and features are settled
    /// once.
    fn accept(&mut self, value: u32) -> Option<()> {
        if self.status & (STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_FAILED) != STATUS_DRIVER {
            return None;
        }
        match self.driver_features_sel {
            0 => set_low(&mut self.accepted, value),
            1 => set_high(&mut self.accepted, value),
            // There are no further features; a driver may say so.
            _ if value == 0 => {}
            _ => return None,
        }
        Some(())
    }

    fn features_are_acceptable(&self) -> bool {
        self.accepted & !self.offered == 0 && self.accepted & (1 << F_VERSION_1) != 0
    }

    /// Sends a configuration change notification if the driver can get one, else leaves it for the start.
    fn tell_configuration(&mut self) {
        if self.config_untold && self.status & STATUS_DRIVER_OK != 0 {
            self.config_untold = false;
            self.interrupt_status |= mmio::INTERRUPT_CONFIG_CHANGE;
        }
    }

    /// Queues are set up between FEATURES_OK and DRIVER_OK (3.1.1), and not while ready (4.2.2.2).
    fn queue_to_set_up(&self) -> Option<&QueueSetup> {
        let settled = self.status & (STATUS_FEATURES_OK | STATUS_DRIVER_OK | STATUS_FAILED) == STATUS_FEATURES_OK;
        self.queues.get(self.queue_sel()?).filter(|queue| settled && !queue.ready)
    }

    fn queue_to_set_up_mut(&mut self) -> Option<&mut QueueSetup> {
        self.queue_to_set_up()?;
        let index = self.queue_sel()?;
        self.queues.get_mut(index)
    }
}

/// 32 of 64 feature bits; there are no others.
fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

fn set_low(word: &mut u64, value: u32) {
    *word = *word & !u64::from(u32::MAX) | u64::from(value);
}

fn set_high(word: &mut u64, value: u32) {
    *word = *word & u64::from(u32::MAX) | u64::from(value) << 32;
}
