//! The devices a guest finds at its registers: which there are is decided here, and nowhere else.
//!
//! ```text
//!   Devices::bare ──► bus:  CONSOLE_BASE  Console
//!                           METER_BASE    Meter
//!                           BALLOON_BASE  Attached<BalloonDevice>: virtio, with an event a queue
//!   Devices::pc   ──► bus:  virtio devices, from boot::VirtioMmio::place(0) on; the console is at ports
//!   Devices::spawn  ──► a thread for each virtio device, rung by KVM or by the transport
//! ```

mod attached;
mod console;
mod meter;
mod thread;
pub mod virtio_mmio;

use std::{fs::File, os::fd::AsFd, sync::Arc};

use balloon::Balloon;
use block::{Block, FileDisk};
use boot::VirtioMmio;
use control::status::{DiskStatus, NetworkStatus};
use net::{Net, Tap};
use rng::Rng;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use wire::{
    machine::{BALLOON_BASE, CONSOLE_BASE, METER_BASE},
    mmio,
    net::RECEIVE_QUEUE,
};

use self::virtio_mmio::{BalloonDevice, BlockDevice, NetDevice, RngDevice, VirtioDevice};
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
    random: Option<Attached<RngDevice<File>>>,
    disks: Vec<Attached<BlockDevice<FileDisk>>>,
    nets: Vec<Attached<NetDevice<Tap>>>,
}

/// What of a PC's devices the host has opened.
pub(crate) struct Files {
    /// Random numbers.
    pub random: File,
    /// Disks, in order.
    pub disks: Vec<Block<FileDisk>>,
    /// Networks, in order.
    pub taps: Vec<Net<Tap>>,
}

impl Files {
    /// How many places they take, beside a balloon.
    pub fn places(&self) -> usize {
        1 + self.disks.len() + self.taps.len()
    }
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
        bus.attach(CONSOLE_BASE, mmio::WINDOW_BYTES, Arc::new(Console::to_log(name)))?;
        let meter = Arc::new(Meter::default());
        bus.attach(METER_BASE, mmio::WINDOW_BYTES, meter.clone())?;
        let balloon = || Attached::attach(bus, BALLOON_BASE, parts.balloon(), parts.memory.clone(), line);
        let balloon = parts.has_balloon.then(balloon).transpose()?;
        Ok(Devices { meter, balloon, random: None, disks: Vec::new(), nets: Vec::new() })
    }

    /// Puts the devices of a PC on `bus`, in `places`, in their order; each interrupts `vm` by a line of its
    /// own.
    pub fn pc(bus: &mut Bus, vm: &Vm, places: &[VirtioMmio], parts: &Parts, files: Files) -> Result<Devices, Error> {
        let mut places = places.iter();
        let mut free = FreePlaces { bus, vm, places: &mut places, memory: &parts.memory };
        let Files { random, disks, taps } = files;
        Ok(Devices {
            meter: Arc::default(),
            balloon: parts.has_balloon.then(|| free.attach(parts.balloon())).transpose()?,
            random: Some(free.attach(RngDevice::new(Rng::new(random)))?),
            disks: disks.into_iter().map(|disk| free.attach(BlockDevice::new(disk))).collect::<Result<_, _>>()?,
            nets: taps.into_iter().map(|net| free.attach(NetDevice::new(net))).collect::<Result<_, _>>()?,
        })
    }

    /// What all disks did so far.
    pub fn disks_status(&self) -> DiskStatus {
        self.disks.iter().fold(DiskStatus::default(), |sum, disk| {
            let counts = disk.device().block().counts();
            DiskStatus {
                reads_total: sum.reads_total + counts.reads,
                read_bytes_total: sum.read_bytes_total + counts.read_bytes,
                writes_total: sum.writes_total + counts.writes,
                written_bytes_total: sum.written_bytes_total + counts.written_bytes,
                flushes_total: sum.flushes_total + counts.flushes,
                discarded_bytes_total: sum.discarded_bytes_total + counts.discarded_bytes,
                failed_total: sum.failed_total + counts.failed,
                rejected_total: sum.rejected_total + counts.rejected,
            }
        })
    }

    /// What all networks did so far.
    pub fn networks_status(&self) -> NetworkStatus {
        self.nets.iter().fold(NetworkStatus::default(), |sum, net| {
            let counts = net.device().net().counts();
            NetworkStatus {
                sent_frames_total: sum.sent_frames_total + counts.sent_frames,
                sent_bytes_total: sum.sent_bytes_total + counts.sent_bytes,
                received_frames_total: sum.received_frames_total + counts.received_frames,
                received_bytes_total: sum.received_bytes_total + counts.received_bytes,
                dropped_total: sum.dropped_total + counts.send_dropped + counts.receive_dropped,
                rejected_total: sum.rejected_total + counts.rejected,
            }
        })
    }

    /// Starts the threads that work the queues, one a device. With `vm`, they are notified without an exit.
    pub fn spawn(&self, vm: Option<&Vm>) -> Result<Vec<DeviceThread>, Error> {
        let mut threads = Vec::new();
        if let Some(balloon) = &self.balloon {
            threads.push(balloon.spawn("devices".into(), vm)?);
        }
        if let Some(random) = &self.random {
            threads.push(random.spawn("rng".into(), vm)?);
        }
        for (number, disk) in self.disks.iter().enumerate() {
            threads.push(disk.spawn(format!("disk{number}"), vm)?);
        }
        for (number, net) in self.nets.iter().enumerate() {
            let link = net.device().net().link().as_fd().try_clone_to_owned();
            let link = link.map_err(Error::system("copying a tap's descriptor"))?;
            let takes_frames = |device: &NetDevice<Tap>| !device.net().holds_frame();
            threads.push(net.spawn_with_inlet(format!("net{number}"), vm, RECEIVE_QUEUE, link, takes_frames)?);
        }
        Ok(threads)
    }
}

/// The places that are left, and what goes there.
struct FreePlaces<'a, 'b> {
    bus: &'a mut Bus,
    vm: &'a Vm,
    places: &'a mut std::slice::Iter<'b, VirtioMmio>,
    memory: &'a Arc<GuestMemoryMmap<()>>,
}

impl FreePlaces<'_, '_> {
    fn attach<D: VirtioDevice + 'static>(&mut self, device: D) -> Result<Attached<D>, Error> {
        let place = self.places.next().ok_or(Error::DeviceCount { most: VirtioMmio::MOST })?;
        let line = InterruptLine::edge(interrupt(self.vm, place.interrupt)?);
        Attached::attach(self.bus, place.base, device, self.memory.clone(), line)
    }
}

/// An event that interrupts `vm`.
pub(crate) fn interrupt(vm: &Vm, interrupt: u32) -> Result<EventFd, Error> {
    let event = EventFd::new(EFD_NONBLOCK).map_err(Error::system("making an eventfd"))?;
    vm.register_interrupt(interrupt, &event)?;
    Ok(event)
}
