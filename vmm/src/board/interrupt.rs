//! How a device interrupts: one line for all of them, a word the guest polls without an exit.

use std::sync::{Arc, atomic::Ordering};

use super::{firmware::Firmware, gate::Gate};

/// The one interrupt line of a machine.
#[derive(Clone)]
pub struct InterruptLine {
    firmware: Arc<Firmware>,
    gate: Arc<Gate>,
}

impl InterruptLine {
    /// The line of the machine with this firmware and gate.
    pub fn new(firmware: Arc<Firmware>, gate: Arc<Gate>) -> Self {
        Self { firmware, gate }
    }

    /// Raises or lowers the line; raised, it wakes vCPUs that are parked.
    pub fn set(&self, pending: bool) {
        // Release: the guest that sees the line sees what it is about.
        self.firmware.control().interrupt.store(u32::from(pending), Ordering::Release);
        if pending {
            self.gate.wake();
        }
    }
}
