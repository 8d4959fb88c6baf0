//! The traditional memory balloon device (VIRTIO 1.3, 5.5), without a transport.
//!
//! ```text
//!   driver                                Balloon                         PageSink
//!    | inflateq  [page numbers] ------> | copy out, check against RAM, sort -> inflate(range)
//!    | deflateq  [page numbers] ------> |                                  -> deflate(range)
//!    | reporting [free buffers] ------> | align inward, check, merge       -> report_free(range, fill)
//!    | hinting   [command, buffers] --> | rounds, see `hinting`            -> watch, drop_hinted, unwatch
//!    | statsq    [tag, value] --------> | parse; keep the buffer: returning it asks for news
//!    | config    num_pages, free_page_hint_cmd_id <--, actual, poison_val -->
//! ```
//!
//! Whatever a queue says is an allegation. It becomes a range of frame numbers only by the checks here, and:
//!
//! * no range reaches the sink that is empty or reaches outside RAM;
//! * a malformed request is a typed [`Error`], counted, and handed back to the driver; a ring that lies about
//!   itself is a [`chains::BrokenRing`], after which the device needs a reset; nothing the guest does is a
//!   panic;
//! * a call does a bounded amount of work ([`CHAINS_PER_TURN`], [`NUMBERS_PER_TURN`]) and says when there is
//!   more;
//! * no lock is held while guest memory is touched, which may block in a page fault, or while the sink works;
//! * reported and hinted pages are never written: only their addresses matter;
//! * a hint drops nothing that was written to since its round began, whatever the driver says.

#![forbid(unsafe_code)]

mod buffers;
mod config;
mod device;
mod hinting;
mod numbers;
mod queues;
mod ram;
mod ranges;
mod reporting;
mod statistics;
mod turn;

use std::ops::Range;
use std::sync::Arc;

use vm_memory::GuestAddress;

pub use device::{Balloon, Counts, FEATURES, Status};
pub use hinting::HintingRefused;
pub use numbers::{NUMBERS_PER_BATCH, NUMBERS_PER_CHAIN_MAX};
pub use queues::{BalloonQueue, QUEUE_COUNT, QUEUE_SIZE_MAX};
pub use ram::RamLayout;
pub use statistics::STATISTICS_MAX;
pub use turn::{CHAINS_PER_TURN, NUMBERS_PER_TURN, Progress};

/// Where page ranges go. Frame numbers are inside RAM, ranges are not empty.
pub trait PageSink: Send + Sync {
    /// The guest gave these frames up. Called before the driver gets its buffer back.
    fn inflate(&self, range: Range<u32>);
    /// The guest wants these frames back. Called before the driver gets its buffer back.
    fn deflate(&self, range: Range<u32>);
    /// The content of these frames is worthless; the guest may touch them again, without a word, once it has
    /// its buffer back. Unless they keep their content, it must find them filled with the 32-bit pattern
    /// `fill`.
    fn report_free(&self, range: Range<u32>, fill: u32);
    /// Hints are going to come: whatever is written to from the return of this on, no hint may drop.
    fn watch(&self);
    /// At some time since [`PageSink::watch`], the content of these frames was worthless. May drop those that
    /// were not written to since that watch began, leaving them filled with `fill`; says how many. A sink
    /// that cannot tell drops none.
    fn drop_hinted(&self, range: Range<u32>, fill: u32) -> u32;
    /// Ends [`PageSink::watch`]: once this has returned, nothing is dropped by hints that are still being
    /// served. Called at any time.
    fn unwatch(&self);
}

impl<T: PageSink + ?Sized> PageSink for Arc<T> {
    fn inflate(&self, range: Range<u32>) {
        (**self).inflate(range);
    }

    fn deflate(&self, range: Range<u32>) {
        (**self).deflate(range);
    }

    fn report_free(&self, range: Range<u32>, fill: u32) {
        (**self).report_free(range, fill);
    }

    fn watch(&self) {
        (**self).watch();
    }

    fn drop_hinted(&self, range: Range<u32>, fill: u32) -> u32 {
        (**self).drop_hinted(range, fill)
    }

    fn unwatch(&self) {
        (**self).unwatch();
    }
}

/// What a guest can do wrong with a request. It concerns that request only.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request's buffers are wrong, or cannot be read.
    #[error("request is not a chain of buffers")]
    Chain(#[from] chains::Error),
    /// A buffer is writable where the device reads, or the other way round.
    #[error("buffer at {address:?} is for the other direction")]
    Direction {
        /// Where the buffer is.
        address: GuestAddress,
    },
    /// A request is not a whole number of entries.
    #[error("request of {bytes} bytes is not a multiple of {entry_bytes}")]
    OddLength {
        /// How long the request is.
        bytes: u64,
        /// How long one entry is.
        entry_bytes: usize,
    },
    /// A command of free page hinting has the wrong length.
    #[error("command id of {bytes} bytes instead of 4")]
    CommandLength {
        /// How long it is.
        bytes: u64,
    },
    /// A request has more entries than are looked at.
    #[error("request of {entries} entries exceeds {entries_max}")]
    TooManyEntries {
        /// Entries in the request.
        entries: u64,
        /// The bound.
        entries_max: usize,
    },
    /// A page number lies outside RAM; the other pages of the request were served.
    #[error("page number {number:#x} is outside RAM, which ends at {ram_end:#x}")]
    OutsideRam {
        /// The first such number.
        number: u64,
        /// The first number behind RAM.
        ram_end: u32,
    },
}
