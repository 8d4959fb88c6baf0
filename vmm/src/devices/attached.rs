//! A virtio device at its place on the bus, with an event for each queue.
//!
//! ```text
//!   guest writes QUEUE_NOTIFY ──KVM──────────► event ──► device thread ──► VirtioMmio::process
//!   the transport, the machine ──notify──────►
//! ```

use std::{os::fd::OwnedFd, sync::Arc};

use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use wire::mmio;

use super::{
    thread::{DeviceThread, Inlet},
    virtio_mmio::{VirtioDevice, VirtioMmio, Wires},
};
use crate::{
    Error,
    board::{Bus, InterruptLine},
    kvm::Vm,
};

/// The transport as machines have it.
type Transport<D> = VirtioMmio<D, Arc<GuestMemoryMmap<()>>, Events>;

/// See the module's description.
pub(crate) struct Attached<D> {
    transport: Arc<Transport<D>>,
    base: u64,
    queues: Vec<EventFd>,
}

impl<D: VirtioDevice + 'static> Attached<D> {
    /// Puts `device` at `base`; its queues lie in `memory`, and it interrupts by `line`.
    pub fn attach(
        bus: &mut Bus,
        base: u64,
        device: D,
        memory: Arc<GuestMemoryMmap<()>>,
        line: InterruptLine,
    ) -> Result<Self, Error> {
        let event = |_: &u16| EventFd::new(EFD_NONBLOCK).map_err(Error::system("making an eventfd"));
        let queues = device.queue_sizes().iter().map(event).collect::<Result<Vec<_>, _>>()?;
        let wires = Events { line, queues: clones(&queues)? };
        let transport = Arc::new(VirtioMmio::new(device, memory, wires));
        bus.attach(base, mmio::WINDOW_BYTES, transport.clone())?;
        Ok(Attached { transport, base, queues })
    }

    /// The registers, to change the configuration space.
    pub fn transport(&self) -> &Transport<D> {
        &self.transport
    }

    /// The device behind them.
    pub fn device(&self) -> &D {
        self.transport.device()
    }

    /// Has the device thread look at queue `index`.
    pub fn notify(&self, index: usize) {
        ring(&self.queues[index]);
    }

    /// Starts the device's thread. With `vm`, the guest notifies it without an exit.
    pub fn spawn(&self, name: String, vm: Option<&Vm>) -> Result<DeviceThread, Error> {
        self.spawn_with(name, vm, None)
    }

    /// The same, for a device that also has something to do when something comes into `inlet`, queue and all.
    pub fn spawn_with_inlet(
        &self,
        name: String,
        vm: Option<&Vm>,
        queue: usize,
        fd: OwnedFd,
        is_wanted: impl Fn(&D) -> bool + Send + 'static,
    ) -> Result<DeviceThread, Error> {
        let transport = self.transport.clone();
        let is_wanted = Box::new(move || transport.is_live(queue) && is_wanted(transport.device()));
        self.spawn_with(name, vm, Some(Inlet { fd, queue, is_wanted }))
    }

    fn spawn_with(&self, name: String, vm: Option<&Vm>, inlet: Option<Inlet>) -> Result<DeviceThread, Error> {
        for (queue, event) in self.queues.iter().enumerate() {
            vm.map_or(Ok(()), |vm| vm.register_ioevent(self.base + mmio::QUEUE_NOTIFY, queue as u32, event))?;
        }
        let transport = self.transport.clone();
        DeviceThread::spawn(name, clones(&self.queues)?, inlet, move |queue| transport.process(queue))
            .map_err(Error::system("starting the device thread"))
    }
}

/// The lines that leave the transport.
pub(crate) struct Events {
    line: InterruptLine,
    queues: Vec<EventFd>,
}

impl Wires for Events {
    fn set_interrupt(&self, asserted: bool) {
        self.line.set(asserted);
    }

    fn notify(&self, index: usize) {
        ring(&self.queues[index]);
    }
}

fn ring(event: &EventFd) {
    // Fails only when the counter would overflow, and then it has been rung.
    let _ = event.write(1);
}

fn clones(events: &[EventFd]) -> Result<Vec<EventFd>, Error> {
    events.iter().map(|event| event.try_clone().map_err(Error::system("copying an eventfd"))).collect()
}
