//! What can be wrong with what is to be started, each in the words the user reads.

use wire::pc::{INTERRUPTS, INTERRUPTS_TAKEN, VIRTIO_MMIO};

use crate::VCPUS_MAX;

/// Why there is no machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is no kernel.
    #[error("kernel: neither an ELF file nor a bzImage, it begins with {begins}{hint}")]
    NotAKernel {
        /// Its first bytes, in hexadecimal.
        begins: String,
        /// What it may be, and what to do.
        hint: &'static str,
    },
    /// The file is an ELF file, but not one that can be started.
    #[error("kernel: {what}, which is {found}; needed is {needed}")]
    Header {
        /// Part of the header.
        what: &'static str,
        /// What it is.
        found: String,
        /// What would be right.
        needed: String,
    },
    /// The file ends too early.
    #[error("kernel: {what} ends at byte {end} of a file of {file_bytes} bytes")]
    Truncated {
        /// What is cut off.
        what: String,
        /// Where it should end.
        end: u64,
        /// How long the file is.
        file_bytes: u64,
    },
    /// A part of the kernel is not in RAM.
    #[error("kernel: {what} is for {start:#x} to {end:#x}; there is RAM for it from {low:#x} to {high:#x}")]
    OutsideRam {
        /// Which part.
        what: String,
        /// Its first address.
        start: u64,
        /// The first address behind it.
        end: u128,
        /// First address for a kernel.
        low: u64,
        /// The first address behind.
        high: u64,
    },
    /// Two parts of the kernel are for the same place.
    #[error("kernel: segments {first} and {second} are both for {gpa:#x}")]
    Overlap {
        /// One of them.
        first: usize,
        /// The other one.
        second: usize,
        /// Where.
        gpa: u64,
    },
    /// The kernel would start where it has no code.
    #[error("kernel: it starts at {entry:#x}, which is in none of its segments of code")]
    Entry {
        /// Where it starts.
        entry: u64,
    },
    /// The initial RAM disk does not fit.
    #[error("initrd of {bytes} bytes does not fit: there is room from {low:#x} to {high:#x}")]
    Initrd {
        /// How long it is.
        bytes: u64,
        /// Where room for it begins.
        low: u64,
        /// Where it ends.
        high: u64,
    },
    /// The command line is too long.
    #[error("command line of {bytes} bytes: this kernel takes at most {bytes_max}")]
    CommandLineLength {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
    },
    /// The command line has a byte that a kernel does not take.
    #[error("command line: byte {at} is {byte:#04x}; it may have visible characters of ASCII and spaces")]
    CommandLineByte {
        /// Where.
        at: usize,
        /// What.
        byte: u8,
    },
    /// Not a size that the RAM of a PC can have.
    #[error("{bytes} bytes of RAM: must be a multiple of 4096, from 16 MiB to 1 TiB")]
    Ram {
        /// How many.
        bytes: u64,
    },
    /// Not a number of processors.
    #[error("{vcpus} vCPUs: must be from 1 to {VCPUS_MAX}")]
    Vcpus {
        /// How many.
        vcpus: u32,
    },
    /// A device's window is not where it may be.
    #[error(
        "virtio device at {base:#x}: must be a page of its own from {:#x} to {:#x}",
        VIRTIO_MMIO.start,
        VIRTIO_MMIO.end
    )]
    DeviceWindow {
        /// Where it is.
        base: u64,
    },
    /// A device's interrupt is not one that it may have.
    #[error(
        "virtio device at {base:#x} with interrupt {interrupt}: must be below {INTERRUPTS}, its own, and none of \
         {INTERRUPTS_TAKEN:?}"
    )]
    DeviceInterrupt {
        /// Where it is.
        base: u64,
        /// Its interrupt.
        interrupt: u32,
    },
}
