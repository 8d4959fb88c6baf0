//! The devices that the tables name, and the places that a PC has for them.

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

/// Inputs of the I/O APIC in the order that devices get them: those of PCI, then those of old devices that
/// this PC lacks.
const IN_ORDER: [u32; 17] = [16, 17, 18, 19, 20, 21, 22, 23, 5, 6, 7, 10, 11, 12, 13, 14, 15];

impl VirtioMmio {
    /// How many devices a PC can have.
    pub const MOST: usize = IN_ORDER.len();

    /// The place of a PC's device number `nth`, from 0.
    pub fn place(nth: usize) -> Option<VirtioMmio> {
        let &interrupt = IN_ORDER.get(nth)?;
        Some(VirtioMmio { base: VIRTIO_MMIO.start + nth as u64 * WINDOW_BYTES, interrupt })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_one_that_the_tables_can_name_and_there_is_an_end() {
        let places: Vec<_> = (0..).map_while(VirtioMmio::place).collect();
        assert_eq!((places.len(), check(&places)), (VirtioMmio::MOST, Ok(())));
    }
}
