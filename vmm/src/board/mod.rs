//! The machine around the vCPUs, the same for KVM and hosted ones: firmware, devices, doorbell, interrupt
//! line and gate.
//!
//! ```text
//!   KVM exit  ----\                       /--> doorbell: park, exit
//!                  > Board::read / write ---+--> bus: devices
//!   hosted guest -/                       \--> (notifications of KVM guests never come here: ioeventfd)
//!
//!   device thread --> InterruptLine::set --> Control::interrupt, parked vCPUs wake
//! ```

mod bus;
mod doorbell;
pub(crate) mod elf;
pub(crate) mod firmware;
mod gate;
mod interrupt;
mod page_tables;
mod power;

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use wire::machine::{DOORBELL_BASE, MMIO_END};

use self::doorbell::Ring;
pub use self::{
    bus::{Bus, MmioDevice},
    firmware::{Firmware, Start},
    gate::{Gate, Inside, Killed, Order},
    interrupt::InterruptLine,
    power::{Power, Wish},
};

/// See the module's description.
pub struct Board {
    /// Memory shared with the guest.
    pub firmware: Arc<Firmware>,
    /// Devices.
    pub bus: Bus,
    /// Whether vCPUs may run.
    pub gate: Arc<Gate>,
    /// What the guest's clock counts from.
    start: Instant,
    /// vCPUs that are parked.
    parked: AtomicU32,
}

impl Board {
    /// The board of a machine with this firmware, these devices and this gate.
    pub fn new(firmware: Arc<Firmware>, bus: Bus, gate: Arc<Gate>) -> Board {
        Board { firmware, bus, gate, start: Instant::now(), parked: AtomicU32::new(0) }
    }

    /// A vCPU reads a register.
    pub fn read(&self, gpa: u64, data: &mut [u8]) {
        if (DOORBELL_BASE..MMIO_END).contains(&gpa) { data.fill(0) } else { self.bus.read(gpa, data) }
    }

    /// A vCPU writes a register; breaks with its exit code when that was its last act.
    pub fn write(&self, gpa: u64, data: &[u8]) -> ControlFlow<u32> {
        match Ring::decode(gpa, data) {
            Some(Ring::Park(timeout)) => self.park(timeout),
            Some(Ring::Exit(code)) => return ControlFlow::Break(code),
            Some(Ring::Nothing) => {}
            None => self.bus.write(gpa, data),
        }
        ControlFlow::Continue(())
    }

    /// Waits, in a vCPU's name, until the guest is wanted, the gate closes or `timeout` has passed.
    pub fn park(&self, timeout: Duration) {
        self.parked.fetch_add(1, Ordering::Relaxed);
        self.gate.wait_for(|| self.firmware.is_wanted(), timeout);
        self.parked.fetch_sub(1, Ordering::Relaxed);
        self.set_clock();
    }

    /// Whether all vCPUs are parked: nobody reads the clock.
    pub fn is_parked(&self) -> bool {
        self.parked.load(Ordering::Relaxed) == self.firmware.boot().vcpus
    }

    /// Sets the guest's clock. It never goes back, whoever is the last to set it.
    pub fn set_clock(&self) {
        let now_ms = self.start.elapsed().as_millis() as u64;
        self.firmware.control().now_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    /// Asks the guest to verify what it holds and to exit.
    pub fn stop_guest(&self) {
        // Release: pairs with the guest's load.
        self.firmware.control().stop.store(1, Ordering::Release);
        self.gate.wake();
    }
}
