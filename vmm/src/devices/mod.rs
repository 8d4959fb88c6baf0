//! The devices a guest finds at its registers: which there are is decided here, and nowhere else.
//!
//! ```text
//!   Devices::bare ──► bus:  CONSOLE_BASE  Console
//!                           METER_BASE    Meter
//!                           BALLOON_BASE  Attached<BalloonDevice>: virtio, with an event a queue
//!   Devices::pc   ──► bus:  virtio devices, from boot::VirtioMmio::place(0) on; the console is at ports
//!   Devices::spawn  ──► the thread that works the queues, rung by KVM or by the transport
//! ```

mod attached;
mod console;
mod meter;
mod thread;
pub mod virtio_mmio;

use std::sync::Arc;

use balloon::Balloon;
use boot::VirtioMmio;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
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
    /// Whether there is a balloon.
    pub has_balloon: bool,
    /// RAM, where queues and buffers lie.
    pub memory: Arc<GuestMemoryMmap<()>>,
    /// RAM as the balloon takes it and gives it back.
    pub pages: GuestPages,
}

impl Parts {
    fn balloon(&self) -> BalloonDevice<GuestPages> {
        BalloonDevice::new(Balloon::new(self.pages.frames(), self.pages.clone()))
    }
}

impl Devices {
    /// Puts the devices of a bare machine at their places on `bus`; `name` is its guest's, and all interrupt
    /// by `line`.
    pub fn bare(bus: &mut Bus, name: String, line: InterruptLine, parts: Parts) -> Result<Devices, Error> {
        bus.attach(CONSOLE_BASE, mmio::WINDOW_BYTES, Arc::new(Console::to_log(name, None)))?;
        let meter = Arc::new(Meter::default());
        bus.attach(METER_BASE, mmio::WINDOW_BYTES, meter.clone())?;
        let balloon = || Attached::attach(bus, BALLOON_BASE, parts.balloon(), parts.memory.clone(), line);
        let balloon = parts.has_balloon.then(balloon).transpose()?;
        Ok(Devices { meter, balloon })
    }

    /// Puts the devices of a PC on `bus`, in `places`, in their order; each interrupts `vm` by a line of its
    /// own.
    pub fn pc(bus: &mut Bus, vm: &Vm, places: &[VirtioMmio], parts: &Parts) -> Result<Devices, Error> {
        let mut places = places.iter();
        let mut place = || {
            let &VirtioMmio { base, interrupt } = places.next().ok_or(Error::DeviceCount { most: VirtioMmio::MOST })?;
            Ok::<_, Error>((base, InterruptLine::edge(self::interrupt(vm, interrupt)?)))
        };
        let balloon = || {
            let (base, line) = place()?;
            Attached::attach(bus, base, parts.balloon(), parts.memory.clone(), line)
        };
        let balloon = parts.has_balloon.then(balloon).transpose()?;
        Ok(Devices { meter: Arc::default(), balloon })
    }

    /// Starts the thread that works the queues, if there are any. With `vm`, it is notified without an exit.
    pub fn spawn(&self, vm: Option<&Vm>) -> Result<Option<DeviceThread>, Error> {
        self.balloon.as_ref().map(|balloon| balloon.spawn(vm)).transpose()
    }
}

/// An event that interrupts `vm`.
pub(crate) fn interrupt(vm: &Vm, interrupt: u32) -> Result<EventFd, Error> {
    let event = EventFd::new(EFD_NONBLOCK).map_err(Error::system("making an eventfd"))?;
    vm.register_interrupt(interrupt, &event)?;
    Ok(event)
}
