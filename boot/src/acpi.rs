//! The ACPI tables (ACPI 6.5): what a kernel cannot find by looking.
//!
//! ```text
//!   0xe0000  RSDP --> XSDT --+--> FADT --+--> DSDT   devices, and how to switch off
//!                            |           `--> FACS   (nothing in it, but it must be there)
//!                            `--> MADT   processors, interrupt controllers
//! ```
//!
//! The machine is not "hardware-reduced": it has the two fixed registers that switch it off and have a power
//! button, and a PC's timer and interrupt controllers, which Linux leaves alone on a reduced one.

mod dsdt;
mod fadt;
mod header;
mod madt;

use acpi_tables::facs::FACS;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use wire::pc::{ACPI_BASE, HIGH_RAM_BASE};

use self::header::{OEM, OEM_REVISION, OEM_TABLE, bytes_of};
use crate::{VirtioMmio, Write};

pub use madt::VCPUS_MAX;

/// What tables are aligned to; the FACS needs it (5.2.10).
const ALIGNMENT_BYTES: usize = 64;

/// All tables, the root pointer first.
pub(crate) fn write(vcpus: u32, devices: &[VirtioMmio]) -> Write<'static> {
    let mut blob = Blob(vec![0; Rsdp::len()]);
    let facs = blob.append(&bytes_of(&FACS::new()));
    let dsdt = blob.append(&dsdt::table(devices));
    let fadt = blob.append(&fadt::table(dsdt, facs));
    let madt = blob.append(&madt::table(vcpus));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = blob.append(&bytes_of(&xsdt));
    blob.0[..Rsdp::len()].copy_from_slice(&bytes_of(&Rsdp::new(OEM, xsdt)));
    // 255 processors and a device for each interrupt have room many times over.
    debug_assert!(blob.0.len() as u64 <= HIGH_RAM_BASE - ACPI_BASE);
    Write { gpa: ACPI_BASE, bytes: blob.0.into() }
}

struct Blob(Vec<u8>);

impl Blob {
    /// Appends a table; its address.
    fn append(&mut self, table: &[u8]) -> u64 {
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT_BYTES), 0);
        let at = ACPI_BASE + self.0.len() as u64;
        self.0.extend(table);
        at
    }
}
