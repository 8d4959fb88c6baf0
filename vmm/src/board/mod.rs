//! The machine around the vCPUs: what an exit of theirs meets ([`Surroundings`]).
//!
//! The bare machine's, the same for KVM and hosted vCPUs, is here; a PC's, for Linux, in `pc`.
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
mod pc;
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
    pc::{End, PcBoard},
    power::{Power, Wish},
};

/// What a vCPU meets when it leaves the guest. Called by any vCPU thread.
pub trait Surroundings: Send + Sync {
    /// Whether it may go back.
    fn gate(&self) -> &Gate;
    /// It reads a register.
    fn read(&self, gpa: u64, data: &mut [u8]);
    /// It writes a register.
    fn write(&self, gpa: u64, data: &[u8]) -> ControlFlow<Leave>;
    /// It reads a port.
    fn read_port(&self, port: u16, data: &mut [u8]) -> ControlFlow<Leave>;
    /// It writes a port.
    fn write_port(&self, port: u16, data: &[u8]) -> ControlFlow<Leave>;
    /// It has shut down: an exception found no handler, thrice.
    fn shutdown(&self) -> ControlFlow<Leave>;
}

/// Why a vCPU does not go back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// The guest is done, with this code.
    Exit(u32),
    /// It did something that ends it.
    Failure(String),
}

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

impl Surroundings for Board {
    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn read(&self, gpa: u64, data: &mut [u8]) {
        self.read(gpa, data);
    }

    fn write(&self, gpa: u64, data: &[u8]) -> ControlFlow<Leave> {
        self.write(gpa, data).map_break(Leave::Exit)
    }

    fn read_port(&self, port: u16, _: &mut [u8]) -> ControlFlow<Leave> {
        no_port(port)
    }

    fn write_port(&self, port: u16, _: &[u8]) -> ControlFlow<Leave> {
        no_port(port)
    }

    fn shutdown(&self) -> ControlFlow<Leave> {
        ControlFlow::Break(Leave::Failure("an exception, which a bare guest has no handler for".into()))
    }
}

fn no_port(port: u16) -> ControlFlow<Leave> {
    ControlFlow::Break(Leave::Failure(format!("an access to port {port:#x}, and a bare machine has none")))
}
