//! A PC as Linux expects it, and its map: addresses, ports and interrupts that kernel, tables and board agree
//! on.
//!
//! ```text
//!   0                 RAM   what the boot loader leaves (see below), then the guest's
//!   0x9_fc00          not RAM to the guest, up to 1 MiB; in it the ACPI tables
//!   0x10_0000         RAM   the kernel; an initial RAM disk at the end of this part
//!   0xc000_0000       hole  virtio-mmio windows, interrupt controllers, KVM's own pages
//!   0x1_0000_0000     RAM   what is above 3 GiB of it
//! ```

use core::ops::Range;

/// Where the global descriptor table lies.
pub const GDT_BASE: u64 = 0x500;
/// Where the start information of the PVH protocol lies.
pub const PVH_BASE: u64 = 0x6000;
/// Where the zero page of the Linux boot protocol lies.
pub const ZERO_PAGE_BASE: u64 = 0x7000;
/// Where the page tables lie that a 64-bit kernel is entered with, six pages.
pub const PAGE_TABLE_BASE: u64 = 0x9000;
/// Where the command line lies.
pub const COMMAND_LINE_BASE: u64 = 0x2_0000;
/// Bytes there are for the command line, the zero behind it included.
pub const COMMAND_LINE_BYTES: u64 = 0x1_0000;
/// End of the RAM below 1 MiB, as PCs have it.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// Where the ACPI tables lie, the root pointer first: a place where kernels look for it.
pub const ACPI_BASE: u64 = 0xe_0000;
/// First byte of the kernel, and of the RAM behind the gap.
pub const HIGH_RAM_BASE: u64 = 0x10_0000;

/// Addresses below 4 GiB that are not RAM.
pub const HOLE: Range<u64> = 0xc000_0000..0x1_0000_0000;
/// Where the windows of virtio-mmio devices may be.
pub const VIRTIO_MMIO: Range<u64> = 0xd000_0000..0xd010_0000;
/// The interrupt controller of devices.
pub const IO_APIC_BASE: u64 = 0xfec0_0000;
/// The interrupt controller of each processor.
pub const LOCAL_APIC_BASE: u64 = 0xfee0_0000;
/// Three pages that KVM wants for itself on Intel's processors.
pub const KVM_TSS_BASE: u64 = 0xfffb_d000;

/// Pins of the I/O APIC: its interrupts are the numbers below it.
pub const INTERRUPTS: u32 = 24;
/// Interrupts of the PC's own: timer, the second controller's line, serial ports, clock, ACPI. None of them
/// is a virtio device's.
pub const INTERRUPTS_TAKEN: [u32; 7] = [0, 1, 2, 3, INTERRUPT_COM1, 8, INTERRUPT_SCI];
/// Interrupt of the first serial port.
pub const INTERRUPT_COM1: u32 = 4;
/// Interrupt of ACPI.
pub const INTERRUPT_SCI: u32 = 9;

/// Port of the first serial port, eight of them.
pub const PORT_COM1: u16 = 0x3f8;
/// Port of ACPI's PM1 event registers (ACPI 6.5, 4.8.3.1): status, 16 bits, and enable, 16 bits.
pub const PORT_PM1_EVENT: u16 = 0x600;
/// Port of ACPI's PM1 control register (4.8.3.2), 16 bits.
pub const PORT_PM1_CONTROL: u16 = 0x604;
/// Bit of the PM1 event registers: the power button.
pub const PM1_POWER_BUTTON: u16 = 1 << 8;
/// Bit of the PM1 control register: events interrupt by ACPI. Always set: there is no other mode.
pub const PM1_SCI_ENABLED: u16 = 1 << 0;
/// Bit of the PM1 control register: go to sleep.
pub const PM1_SLEEP_ENABLE: u16 = 1 << 13;
/// Where the kind of sleep is in the PM1 control register, three bits.
pub const PM1_SLEEP_TYPE_SHIFT: u32 = 10;
/// The kind of sleep that is power-off.
pub const SLEEP_TYPE_OFF: u8 = 5;
/// Port of the reset register.
pub const PORT_RESET: u16 = 0xcf9;
/// What is written there to reset.
pub const RESET_VALUE: u8 = 6;
