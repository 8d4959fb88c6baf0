//! Processors and interrupt controllers (MADT, 5.2.12).

use acpi_tables::madt::{EnabledStatus, IoApic, ProcessorLocalApic};
use acpi_tables::sdt::Sdt;
use wire::pc::{INTERRUPT_SCI, IO_APIC_BASE, LOCAL_APIC_BASE};

use super::header::{OEM, OEM_REVISION, OEM_TABLE, bytes_of};

/// Most processors: as many as local APICs have numbers of 8 bits, but for the one that means all of them.
pub const VCPUS_MAX: u32 = 255;

const REVISION: u8 = 6;
const HEADER_BYTES: u32 = 36;
/// "The system also has a PC-AT-compatible dual-8259 setup" (table 5.20).
const PCAT_COMPAT: u32 = 1;
/// Number of the I/O APIC, which no processor has.
const IO_APIC_ID: u8 = 0;

/// An interrupt source override (5.2.12.5): the interrupt of ACPI is active high, and by level.
const SCI_OVERRIDE: [u8; 10] = [2, 10, 0, INTERRUPT_SCI as u8, INTERRUPT_SCI as u8, 0, 0, 0, 0x0d, 0];
/// The second input of each local APIC is for interrupts that cannot be masked (5.2.12.7).
const LOCAL_NMI: [u8; 6] = [4, 6, 0xff, 0, 0, 1];

pub(super) fn table(vcpus: u32) -> Vec<u8> {
    let mut sdt = Sdt::new(*b"APIC", HEADER_BYTES, REVISION, OEM, OEM_TABLE, OEM_REVISION);
    // Below 4 GiB.
    sdt.append(LOCAL_APIC_BASE as u32);
    sdt.append(PCAT_COMPAT);
    for vcpu in 0..vcpus {
        // At most 255.
        let number = vcpu as u8;
        sdt.append_slice(&bytes_of(&ProcessorLocalApic::new(number, number, EnabledStatus::Enabled)));
    }
    sdt.append_slice(&bytes_of(&IoApic::new(IO_APIC_ID, IO_APIC_BASE as u32, 0)));
    sdt.append_slice(&SCI_OVERRIDE);
    sdt.append_slice(&LOCAL_NMI);
    sdt.as_slice().to_vec()
}
