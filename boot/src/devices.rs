//! The devices that the tables name.

use wire::mmio::WINDOW_BYTES;
use wire::pc::{INTERRUPTS, INTERRUPTS_TAKEN, VIRTIO_MMIO};

use crate::Error;

/// A virtio-mmio device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioMmio {
    /// Its window of registers, one page.
    pub base: u64,
    /// Its interrupt, by edge.
    pub interrupt: u32,
}

pub(crate) fn check(devices: &[VirtioMmio]) -> Result<(), Error> {
    for (nth, &VirtioMmio { base, interrupt }) in devices.iter().enumerate() {
        let others = || devices[..nth].iter();
        let placed = base.is_multiple_of(WINDOW_BYTES) && VIRTIO_MMIO.contains(&base);
        if !placed || others().any(|other| other.base == base) {
            return Err(Error::DeviceWindow { base });
        }
        let free = interrupt < INTERRUPTS && !INTERRUPTS_TAKEN.contains(&interrupt);
        if !free || others().any(|other| other.interrupt == interrupt) {
            return Err(Error::DeviceInterrupt { base, interrupt });
        }
    }
    Ok(())
}
