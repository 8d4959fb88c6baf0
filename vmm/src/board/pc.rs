//! What surrounds the vCPUs of a PC: devices at addresses, and the few ports that Linux needs.
//!
//! ```text
//!   address ------> bus: virtio-mmio windows
//!   port 0x3f8      the console, a 16550
//!   port 0x600 ...  power: off, reset, the button       ---> End
//!   port 0x61       the timer's second channel is done, whatever it counts
//!   other ports     nothing: reads as ones
//! ```
//!
//! A guest ends once, and all of its vCPUs with it.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex},
};

use wire::pc::PORT_COM1;

use super::{Bus, Gate, Leave, MmioDevice, Order, Power, Surroundings, Wish};
use crate::{devices::Console, kvm::SciLine, sync::lock};

/// Ports of a 16550.
const COM1_PORTS: u16 = 8;
/// The port with the output of the timer's second channel (bit 5).
const PORT_TIMER: u16 = 0x61;
const TIMER_DONE: u8 = 0x20;

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As it wished.
    Wished(Wish),
    /// By an exception that found no handler, thrice: a crash, or `reboot=triple`.
    Shutdown,
}

/// See the module's description.
pub struct PcBoard {
    bus: Bus,
    gate: Arc<Gate>,
    console: Arc<Console>,
    power: Power,
    sci: SciLine,
    end: Mutex<Option<End>>,
}

impl PcBoard {
    /// The board with these devices; `sci` is ACPI's interrupt line.
    pub fn new(bus: Bus, gate: Arc<Gate>, console: Arc<Console>, sci: SciLine) -> PcBoard {
        PcBoard { bus, gate, console, power: Power::default(), sci, end: Mutex::default() }
    }

    /// Presses the power button.
    pub fn press(&self) {
        self.power.press();
        self.sci.set(self.power.interrupts());
    }

    /// How the guest ended, if it has.
    pub fn end(&self) -> Option<End> {
        *lock(&self.end)
    }

    /// What it says on its console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Whether vCPUs may run.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    fn finish(&self, end: End) -> ControlFlow<Leave> {
        lock(&self.end).get_or_insert(end);
        self.gate.set(Order::Kill);
        ControlFlow::Break(Leave::Exit(0))
    }
}

impl Surroundings for PcBoard {
    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn read(&self, gpa: u64, data: &mut [u8]) {
        self.bus.read(gpa, data);
    }

    fn write(&self, gpa: u64, data: &[u8]) -> ControlFlow<Leave> {
        self.bus.write(gpa, data);
        ControlFlow::Continue(())
    }

    fn read_port(&self, port: u16, data: &mut [u8]) -> ControlFlow<Leave> {
        match com1(port) {
            Some(register) => self.console.read(register, data),
            None if Power::has(port) => self.power.read(port, data),
            None => {
                data.fill(0xff);
                if let (PORT_TIMER, [byte]) = (port, data) {
                    *byte = TIMER_DONE;
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn write_port(&self, port: u16, data: &[u8]) -> ControlFlow<Leave> {
        if let Some(register) = com1(port) {
            self.console.write(register, data);
        } else if Power::has(port) {
            if let Some(wish) = self.power.write(port, data) {
                return self.finish(End::Wished(wish));
            }
            self.sci.set(self.power.interrupts());
        }
        ControlFlow::Continue(())
    }

    fn shutdown(&self) -> ControlFlow<Leave> {
        self.finish(End::Shutdown)
    }
}

/// The console's register at this port.
fn com1(port: u16) -> Option<u64> {
    port.checked_sub(PORT_COM1).filter(|&register| register < COM1_PORTS).map(u64::from)
}
