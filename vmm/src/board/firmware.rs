//! Memory that a bare guest shares with its VMM, unknown to the pager; see `wire::machine` for its map.
//!
//! Written before the start: boot information, and for KVM the guest image and its page tables. Afterwards
//! the VMM touches only the atomics of `Control` and `VcpuReport`; whatever else the guest does in here hurts
//! the guest alone.

use std::sync::atomic::Ordering;

use wire::{
    PAGE_BYTES,
    machine::{
        BootInfo, CONTROL_BASE, Control, FIRMWARE_BASE, FIRMWARE_BYTES, RAM_BYTES_MAX, REPORT_BASE, STACK_BASE,
        STACK_BYTES, VCPUS_MAX, VcpuReport,
    },
};

use super::{elf, page_tables};
use crate::{Error, sys::mapping::Mapping};

/// Where a bare guest's vCPUs start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// First instruction.
    pub entry: u64,
    /// Root of the page tables.
    pub page_table: u64,
}

impl Start {
    /// Top of a vCPU's stack.
    pub fn stack_top(vcpu: u32) -> u64 {
        STACK_BASE + (u64::from(vcpu) + 1) * STACK_BYTES
    }
}

/// See the module's description.
#[derive(Debug)]
pub struct Firmware {
    memory: Mapping,
    boot: BootInfo,
}

impl Firmware {
    /// Firmware with `boot` in place: all that hosted vCPUs need.
    pub fn new(boot: BootInfo) -> Result<Self, Error> {
        let aligned = boot.ram_bytes.is_multiple_of(PAGE_BYTES as u64);
        if boot.ram_bytes == 0 || boot.ram_bytes > RAM_BYTES_MAX || !aligned {
            return Err(Error::RamSize(boot.ram_bytes));
        }
        if boot.vcpus == 0 || boot.vcpus as usize > VCPUS_MAX {
            return Err(Error::VcpuCount(boot.vcpus));
        }
        let memory = Mapping::anonymous(FIRMWARE_BYTES as usize).map_err(Error::system("mapping the firmware"))?;
        let mut firmware = Self { memory, boot };
        firmware.write(FIRMWARE_BASE, &encode(&boot));
        Ok(firmware)
    }

    /// Puts the guest image, an ELF file, and page tables in place: what KVM vCPUs need besides.
    pub fn load(&mut self, image: &[u8]) -> Result<Start, Error> {
        let image = elf::Image::parse(image)?;
        for segment in &image.segments {
            self.write(segment.gpa, segment.bytes);
        }
        let page_table = page_tables::build(self.boot.ram_bytes, |gpa, entry| self.write(gpa, &entry.to_le_bytes()));
        Ok(Start { entry: image.entry, page_table })
    }

    /// What the guest was told.
    pub fn boot(&self) -> &BootInfo {
        &self.boot
    }

    /// What the guest is told while it runs.
    pub fn control(&self) -> &Control {
        self.memory.shared((CONTROL_BASE - FIRMWARE_BASE) as usize)
    }

    /// What a vCPU says of itself.
    ///
    /// # Panics
    /// When no machine has that many vCPUs.
    pub fn report(&self, vcpu: u32) -> &VcpuReport {
        assert!((vcpu as usize) < VCPUS_MAX, "vcpu {vcpu}");
        self.memory.shared((REPORT_BASE - FIRMWARE_BASE) as usize + vcpu as usize * size_of::<VcpuReport>())
    }

    /// The reports of all vCPUs there are.
    pub fn reports(&self) -> impl Iterator<Item = &VcpuReport> {
        (0..self.boot.vcpus).map(|vcpu| self.report(vcpu))
    }

    /// The guest has something to look at: an interrupt is pending, or it is to stop.
    pub fn is_wanted(&self) -> bool {
        // Acquire: what the interrupt is about was written before it was raised.
        let Control { stop, interrupt, .. } = self.control();
        interrupt.load(Ordering::Acquire) != 0 || stop.load(Ordering::Acquire) != 0
    }

    /// The memory, for a memory slot.
    pub(crate) fn memory(&self) -> &Mapping {
        &self.memory
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) {
        self.memory.write((gpa - FIRMWARE_BASE) as usize, bytes);
    }
}

/// `boot` as it lies in memory.
fn encode(boot: &BootInfo) -> Vec<u8> {
    let &BootInfo {
        magic,
        ram_bytes,
        seed,
        guest,
        vcpus,
        workload,
        balloon,
        floor_bytes,
        contents,
        active,
        reserved_bytes,
    } = boot;
    let wide = |values: &[u64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let narrow = [guest, vcpus, workload, balloon].map(u32::to_le_bytes).concat();
    [wide(&[magic, ram_bytes, seed]), narrow, wide(&[floor_bytes, contents, active, reserved_bytes])].concat()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use wire::machine::{BOOT_MAGIC, Workload};

    /// What a guest of this size is told to begin with.
    pub(crate) fn boot(ram_bytes: u64, vcpus: u32, workload: Workload) -> BootInfo {
        BootInfo { vcpus, ..BootInfo::new(ram_bytes, workload as u32) }
    }

    #[test]
    fn boot_information_lies_as_the_guest_reads_it() {
        let boot = BootInfo {
            magic: BOOT_MAGIC,
            ram_bytes: 2,
            seed: 3,
            guest: 4,
            vcpus: 5,
            workload: 6,
            balloon: 7,
            floor_bytes: 8,
            contents: 9,
            active: 10,
            reserved_bytes: 11,
        };
        let bytes = encode(&boot);
        assert_eq!(bytes.len(), size_of::<BootInfo>());
        let word = |offset: usize| u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap());
        use std::mem::offset_of;
        assert_eq!(word(offset_of!(BootInfo, ram_bytes)), 2);
        assert_eq!(word(offset_of!(BootInfo, seed)), 3);
        assert_eq!(word(offset_of!(BootInfo, guest)), 4);
        assert_eq!(word(offset_of!(BootInfo, vcpus)), 5);
        assert_eq!(word(offset_of!(BootInfo, workload)), 6);
        assert_eq!(word(offset_of!(BootInfo, balloon)), 7);
        assert_eq!(word(offset_of!(BootInfo, floor_bytes)), 8);
        assert_eq!(word(offset_of!(BootInfo, contents)), 9);
        assert_eq!(word(offset_of!(BootInfo, active)), 10);
        assert_eq!(word(offset_of!(BootInfo, reserved_bytes)), 11);
    }

    #[test]
    fn impossible_machines_are_refused() {
        for ram_bytes in [0, 4095, 4097, RAM_BYTES_MAX + 4096] {
            assert!(matches!(Firmware::new(boot(ram_bytes, 1, Workload::Idle)), Err(Error::RamSize(_))), "{ram_bytes}");
        }
        for vcpus in [0, VCPUS_MAX as u32 + 1] {
            assert!(matches!(Firmware::new(boot(4096, vcpus, Workload::Idle)), Err(Error::VcpuCount(_))), "{vcpus}");
        }
    }
}
