//! The block device (VIRTIO 1.3, 5.2), without a transport.
//!
//! ```text
//!   driver                                    Block                                        Disk
//!    | [header][data ...][status] ---------> | copy the header out, check it: Request
//!    |   T_IN            data  <------------ |   in pieces through a buffer of ours  <---- read_at
//!    |   T_OUT           data  ------------> |   in pieces through a buffer of ours  ----> write_at
//!    |   T_FLUSH                             |                                       ----> flush
//!    |   T_DISCARD       [segments] -------> | copy out, check each: ranges          ----> discard
//!    |   T_WRITE_ZEROES  [segments] -------> | copy out, check each: ranges          ----> write_zeroes
//!    |   T_GET_ID        name  <------------ |
//!    | config  capacity, limits <--, writeback
//! ```
//!
//! Whatever a request says is an allegation: it becomes bytes of the disk only by the checks in `request`.
//! And:
//!
//! * no byte outside of the disk's capacity is read or written, and none of guest memory outside of the
//!   request's buffers;
//! * what the disk cannot do (EIO, ENOSPC, a file that has become shorter) is `S_IOERR` for the guest, a
//!   counter, and nothing else;
//! * a malformed request is a typed [`Error`], counted, and answered if it has a byte for the answer; a ring
//!   that lies about itself is a [`chains::BrokenRing`], after which the device needs a reset; nothing the
//!   guest does is a panic;
//! * a call does a bounded amount of work ([`REQUESTS_PER_TURN`], [`BYTES_PER_TURN`], [`REQUEST_BYTES_MAX`])
//!   and says when there is more;
//! * no lock is held while guest memory is touched, which may block in a page fault, or while the disk works;
//! * the kernel never gets an address in guest memory. Data goes through a buffer of ours, so no page is
//!   pinned for a disk's DMA while the pager moves it, no page fault is served inside of a file system, and
//!   descriptors opened with `O_DIRECT` work.

#![forbid(unsafe_code)]

mod config;
mod device;
mod disk;
mod request;
mod scratch;
mod turn;

use std::io;

pub use device::{Block, Counts, FEATURES};
pub use disk::{Access, Disk, DiskError, FileDisk, Geometry};
pub use request::{DISCARD_SECTORS_MAX, REQUEST_BYTES_MAX, SEGMENTS_MAX, ZEROES_SECTORS_MAX};
pub use scratch::SCRATCH_BYTES;
pub use turn::{BYTES_PER_TURN, Progress, REQUESTS_PER_TURN};

/// Descriptors of the one queue: QEMU's number.
pub const QUEUE_SIZE_MAX: u16 = 256;

/// What can go wrong with a request. It concerns that request only.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request's buffers are wrong, or guest memory was taken away under it.
    #[error("request is not a chain of buffers")]
    Chain(#[from] chains::Error),
    /// There is no byte that the answer could go to.
    #[error("request has no writable byte for its status")]
    NoStatus,
    /// The request is shorter than its header.
    #[error("request header of {bytes} bytes is shorter than 16")]
    ShortHeader {
        /// How long it is.
        bytes: usize,
    },
    /// There is no such request.
    #[error("request of unknown type {number}")]
    UnknownType {
        /// Its number.
        number: u32,
    },
    /// The data is not a whole number of its units.
    #[error("data of {bytes} bytes is not a multiple of {unit_bytes}")]
    OddLength {
        /// How long it is.
        bytes: u64,
        /// How long a unit is.
        unit_bytes: u64,
    },
    /// The data is longer than the device said it may be.
    #[error("data of {bytes} bytes is longer than {bytes_max}")]
    LongData {
        /// How long it is.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// The request concerns sectors that the disk does not have.
    #[error("{sectors} sectors from {sector} on are not on a disk of {capacity}")]
    BeyondEnd {
        /// The first of them.
        sector: u64,
        /// How many.
        sectors: u64,
        /// How many the disk has.
        capacity: u64,
    },
    /// A segment has more sectors than the device said it may have.
    #[error("segment of {sectors} sectors is longer than {sectors_max}")]
    LongSegment {
        /// How many it has.
        sectors: u64,
        /// The bound.
        sectors_max: u64,
    },
    /// A segment has flags that mean nothing.
    #[error("segment has flags {flags:#x}, which it may not have")]
    Flags {
        /// The flags.
        flags: u32,
    },
    /// The disk may only be read.
    #[error("disk is read-only")]
    ReadOnly,
    /// The disk failed.
    #[error("disk cannot {doing} at byte {at_byte}")]
    Disk {
        /// What was asked of it.
        doing: &'static str,
        /// Where.
        at_byte: u64,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// What the driver is told (5.2.6).
    fn status(&self) -> u8 {
        match self {
            Error::UnknownType { .. } | Error::Flags { .. } => wire::block::S_UNSUPP,
            _ => wire::block::S_IOERR,
        }
    }
}
