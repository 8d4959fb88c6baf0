//! The devices a guest finds at its registers: which there are is decided here, and nowhere else.
//!
//! ```text
//!   Devices::attach ──► bus:  CONSOLE_BASE  Console
//!                             METER_BASE    Meter
//!                             BALLOON_BASE  Attached<BalloonDevice>: virtio, with an event a queue
//!   Devices::spawn  ──► the thread that works the queues, rung by KVM or by the transport
//! ```

mod attached;
mod console;
mod meter;
mod thread;
pub mod virtio_mmio;

use std::sync::Arc;

use balloon::Balloon;
use vm_memory::GuestMemoryMmap;
use wire::{
    machine::{BALLOON_BASE, CONSOLE_BASE, METER_BASE},
    mmio,
};

use self::virtio_mmio::BalloonDevice;
pub(crate) use self::{attached::Attached, thread::DeviceThread};
pub use self::{
    console::{Console, LINE_BYTES_MAX},
    meter::Meter,
};
use crate::{
    Error,
    board::{Bus, InterruptLine},
    kvm::Vm,
    memory::GuestPages,
};

/// The devices of one machine, as its owner asks them.
pub(crate) struct Devices {
    /// Where workloads leave their times.
    pub meter: Arc<Meter>,
    /// The balloon, where the guest was told of one.
    pub balloon: Option<Attached<BalloonDevice<GuestPages>>>,
}

/// What devices are made of.
pub(crate) struct Parts {
    /// Of the guest, for its console.
    pub name: String,
    /// Whether it has a balloon.
    pub has_balloon: bool,
    /// RAM, where queues and buffers lie.
    pub memory: Arc<GuestMemoryMmap<()>>,
    /// RAM as the balloon takes it and gives it back.
    pub pages: GuestPages,
    /// What they interrupt by.
    pub line: InterruptLine,
}

impl Devices {
    /// Puts all devices at their places on `bus`.
    pub fn attach(bus: &mut Bus, parts: Parts) -> Result<Devices, Error> {
        let Parts { name, has_balloon, memory, pages, line } = parts;
        bus.attach(CONSOLE_BASE, mmio::WINDOW_BYTES, Arc::new(Console::to_log(name)))?;
        let meter = Arc::new(Meter::default());
        bus.attach(METER_BASE, mmio::WINDOW_BYTES, meter.clone())?;
        let balloon = || {
            let device = BalloonDevice::new(Balloon::new(pages.count(), pages));
            Attached::attach(bus, BALLOON_BASE, device, memory, line)
        };
        let balloon = has_balloon.then(balloon).transpose()?;
        Ok(Devices { meter, balloon })
    }

    /// Starts the thread that works the queues, if there are any. With `vm`, it is notified without an exit.
    pub fn spawn(&self, vm: Option<&Vm>) -> Result<Option<DeviceThread>, Error> {
        self.balloon.as_ref().map(|balloon| balloon.spawn(vm)).transpose()
    }
}
