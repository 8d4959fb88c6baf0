//! A kernel's file, checked: what of it goes where, and how it is entered.

use std::ops::Range;

use linux_loader::loader::bootparam::setup_header;
use wire::pc::HIGH_RAM_BASE;

use crate::{Error, Protocol, Write, bzimage, elf};

/// How a kernel is entered, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// By the PVH protocol.
    Pvh(u64),
    /// By the 64-bit protocol.
    Linux64(u64),
}

impl Entry {
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Entry::Pvh(_) => Protocol::Pvh,
            Entry::Linux64(_) => Protocol::Linux64,
        }
    }
}

/// A kernel that fits.
#[derive(Debug)]
pub(crate) struct Kernel<'a> {
    pub(crate) parts: Vec<Write<'a>>,
    /// First address behind all that it needs to start.
    pub(crate) end: u64,
    pub(crate) entry: Entry,
    /// What a bzImage says of itself, which it wants to be told again.
    pub(crate) header: Option<setup_header>,
    pub(crate) command_line_bytes_max: usize,
    /// First address that an initial RAM disk must not reach.
    pub(crate) initrd_end_max: u64,
}

impl<'a> Kernel<'a> {
    /// Reads `file`. There is RAM below `low_end`.
    pub(crate) fn parse(file: &'a [u8], low_end: u64, prefer: Protocol) -> Result<Self, Error> {
        let room = HIGH_RAM_BASE..low_end;
        if file.starts_with(b"\x7fELF") {
            elf::parse(file, room, prefer)
        } else if bzimage::is_one(file) {
            bzimage::parse(file, room)
        } else {
            Err(not_a_kernel(file))
        }
    }
}

fn not_a_kernel(file: &[u8]) -> Error {
    let hint = match file {
        [] => ": the file is empty",
        [0x1f, 0x8b, ..]
        | [0x28, 0xb5, 0x2f, 0xfd, ..]
        | [0xfd, b'7', b'z', b'X', b'Z', ..]
        | [b'B', b'Z', b'h', ..] => ": it is compressed, unpack it first",
        [b'M', b'Z', ..] => ": a program for UEFI without a bzImage in it",
        [b'!', b'<', b'a', b'r', ..] => ": a package, take boot/vmlinuz out of it",
        _ => "",
    };
    let begins = file.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    Error::NotAKernel { begins: if begins.is_empty() { "nothing".into() } else { begins }, hint }
}

/// Where `what` goes, if there is room for it.
pub(crate) fn place(
    what: impl FnOnce() -> String,
    start: u64,
    bytes: u64,
    room: &Range<u64>,
) -> Result<Range<u64>, Error> {
    match start.checked_add(bytes) {
        Some(end) if start >= room.start && end <= room.end => Ok(start..end),
        _ => Err(Error::OutsideRam {
            what: what(),
            start,
            end: u128::from(start) + u128::from(bytes),
            low: room.start,
            high: room.end,
        }),
    }
}
