//! How a device interrupts.
//!
//! ```text
//!   bare guest   one line for all devices: a word that the guest polls without an exit
//!   Linux        a line each, by edge: an event that KVM makes an interrupt of
//! ```

use std::sync::{Arc, atomic::Ordering};

use vmm_sys_util::eventfd::EventFd;

use super::{firmware::Firmware, gate::Gate};

/// The interrupt line of a device.
#[derive(Clone)]
pub struct InterruptLine(Kind);

#[derive(Clone)]
enum Kind {
    Polled { firmware: Arc<Firmware>, gate: Arc<Gate> },
    Edge(Arc<EventFd>),
}

impl InterruptLine {
    /// The one line of the bare machine with this firmware and gate.
    pub fn new(firmware: Arc<Firmware>, gate: Arc<Gate>) -> Self {
        Self(Kind::Polled { firmware, gate })
    }

    /// A line whose edges ring `event`.
    pub fn edge(event: EventFd) -> Self {
        Self(Kind::Edge(Arc::new(event)))
    }

    /// Raises or lowers the line. Polled, it wakes vCPUs that are parked; by edge, each raise is one, as a
    /// driver that was told while it looked must look again.
    pub fn set(&self, pending: bool) {
        match &self.0 {
            Kind::Polled { firmware, gate } => {
                // Release: the guest that sees the line sees what it is about.
                firmware.control().interrupt.store(u32::from(pending), Ordering::Release);
                if pending {
                    gate.wake();
                }
            }
            Kind::Edge(event) if pending => {
                // Fails only when the counter would overflow, and then it has been rung.
                let _ = event.write(1);
            }
            Kind::Edge(_) => {}
        }
    }
}
