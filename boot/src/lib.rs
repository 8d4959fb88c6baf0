//! From a kernel's file to a machine that starts it: what lies where in memory, and the registers of the
//! first processor. Pure functions: nothing is opened, mapped or started here.
//!
//! ```text
//!   kernel, bytes ------> Kernel: ELF or bzImage, checked   \
//!   initial RAM disk ---> a place at the end of low RAM      \
//!   command line -------> a string that fits                  >--> Boot: writes, in order, disjoint, in RAM
//!   RAM, processors ----> memory map                         /           Start: registers
//!   virtio devices -----> ACPI tables                       /
//!
//!   protocol    kernel         entered in      told by
//!   Pvh         ELF with note  32 bits         start information      (Xen's PVH, as QEMU does)
//!   Linux64     ELF, bzImage   64 bits, paged  zero page              (Documentation/arch/x86/boot.rst)
//! ```
//!
//! A kernel's file is the user's and may be anything. **Never in here:** a write outside of the guest's RAM,
//! two writes to one place, a panic because of a file; an error that does not name the value and what would
//! be right.
//!
//! Where things lie is in [`wire::pc`]; the layouts of what is written are `linux-loader`'s and
//! `acpi_tables`'.

#![forbid(unsafe_code)]

mod acpi;
mod bzimage;
mod command_line;
mod devices;
mod elf;
mod error;
mod initrd;
mod kernel;
mod kernel_file;
mod memory_map;
mod pages;
mod protocol;
mod start;
mod write;

pub use acpi::VCPUS_MAX;
pub use devices::VirtioMmio;
pub use error::Error;
pub use kernel::Protocol;
pub use memory_map::{Kind, Region, memory_map, ram_ranges};
pub use start::{Segment, Start};
pub use write::Write;

/// What is to be started, and on what.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// The kernel's file: ELF (`vmlinux`) or bzImage (`vmlinuz`).
    pub kernel: &'a [u8],
    /// An initial RAM disk's file.
    pub initrd: Option<&'a [u8]>,
    /// What the kernel is told.
    pub command_line: &'a str,
    /// Bytes of RAM.
    pub ram_bytes: u64,
    /// Processors.
    pub vcpus: u32,
    /// Devices that are not found by looking.
    pub devices: &'a [VirtioMmio],
    /// How an ELF kernel that can be entered in both ways is.
    pub prefer: Protocol,
}

/// A machine that is ready to start. All memory that is not written is zero.
#[derive(Clone, Debug)]
pub struct Boot<'a> {
    /// Sorted by address, disjoint, in RAM.
    pub writes: Vec<Write<'a>>,
    /// Registers of the first processor; the others wait to be woken.
    pub start: Start,
    /// How the kernel is entered.
    pub protocol: Protocol,
}

/// Makes a machine of `config`.
///
/// # Errors
/// Something is not what it should be, or does not fit.
pub fn prepare<'a>(config: &Config<'a>) -> Result<Boot<'a>, Error> {
    if config.vcpus == 0 || config.vcpus > VCPUS_MAX {
        return Err(Error::Vcpus { vcpus: config.vcpus });
    }
    let low_end = memory_map::low_ram_end(config.ram_bytes)?;
    devices::check(config.devices)?;
    let kernel = kernel_file::parse(config.kernel, low_end, config.prefer)?;
    let command_line = command_line::write(config.command_line, kernel.command_line_bytes_max)?;
    let initrd = config.initrd.map(|initrd| initrd::write(initrd, &kernel, low_end)).transpose()?;
    let acpi = acpi::write(config.vcpus, config.devices);

    let told = protocol::Told {
        memory_map: memory_map(config.ram_bytes),
        command_line: command_line.gpa,
        initrd: initrd.as_ref().map(|initrd| initrd.gpa..initrd.end()),
        root_pointer: acpi.gpa,
    };
    let protocol = kernel.entry.protocol();
    let (mut writes, start) = protocol::write(&kernel, &told);
    writes.extend([command_line, acpi]);
    writes.extend(initrd);
    writes.extend(kernel.parts);
    writes.retain(|write| !write.bytes.is_empty());
    writes.sort_by_key(|write| write.gpa);
    Ok(Boot { writes, start, protocol })
}
