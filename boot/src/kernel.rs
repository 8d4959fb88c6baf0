//! A kernel that was found fit: what of its file goes where, and how it is entered.

use std::ops::Range;

use linux_loader::loader::bootparam::setup_header;

use crate::{Error, Write};

/// How a kernel is entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// By the PVH protocol, where the kernel has its note.
    #[default]
    Pvh,
    /// By the 64-bit protocol of Linux.
    Linux64,
}

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
