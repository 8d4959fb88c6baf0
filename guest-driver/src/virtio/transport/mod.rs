//! How the driver reaches a device's registers.

#[cfg(test)]
pub(crate) mod fake;

use crate::machine::Machine;

/// A virtio-mmio register file; offsets are those of [`wire::mmio`].
pub trait Transport {
    /// Reads a register.
    fn read(&self, offset: u64) -> u32;
    /// Writes a register.
    fn write(&self, offset: u64, value: u32);
}

/// A register file at an address of the machine.
#[derive(Debug)]
pub struct Mmio<'a, M> {
    /// The machine.
    pub machine: &'a M,
    /// Address of the first register.
    pub base: u64,
}

impl<M: Machine> Transport for Mmio<'_, M> {
    fn read(&self, offset: u64) -> u32 {
        self.machine.mmio_read(self.base + offset)
    }

    fn write(&self, offset: u64, value: u32) {
        self.machine.mmio_write(self.base + offset, value);
    }
}
