//! The entropy device (VIRTIO 1.3, 5.4), without a transport.
//!
//! ```text
//!   driver                          Rng                                       Source
//!    | [buffer to fill] ---------> | check, at most BYTES_PER_REQUEST of it <-- fill
//!    | <------- how much it got -- |
//! ```
//!
//! * "The device MUST place one or more random bytes into the buffer, but it MAY use less than the entire
//!   buffer length" (5.4.6.2): a driver that wants more asks again, and others get their turn in between.
//! * A source that fails gives none: the buffer goes back empty, which is counted. Never are bytes handed out
//!   that are not random.
//! * A malformed request is a typed [`Error`], counted, and handed back; a ring that lies about itself is a
//!   [`chains::BrokenRing`], after which the device needs a reset; nothing the guest does is a panic.
//! * No byte outside of the buffers is written, and no lock is held while guest memory is touched, which may
//!   block in a page fault.

#![forbid(unsafe_code)]

mod device;
mod source;

use std::io;

pub use device::{BYTES_PER_REQUEST, Counts, FEATURES, Progress, REQUESTS_PER_TURN, Rng};
pub use source::Source;

/// Descriptors of the one queue, of which Linux uses one at a time.
pub const QUEUE_SIZE_MAX: u16 = 128;

/// What can go wrong with a request. It concerns that request only.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request's buffers are wrong, or guest memory was taken away under it.
    #[error("request is not a chain of buffers")]
    Chain(#[from] chains::Error),
    /// "The driver MUST NOT place device-readable buffers into the queue" (5.4.6.1).
    #[error("request has {bytes} bytes to be read")]
    Readable {
        /// How many.
        bytes: u64,
    },
    /// There is nothing to fill.
    #[error("request has no room for a byte")]
    Empty,
    /// There is no randomness to be had.
    #[error("source of randomness failed")]
    Source(#[source] io::Error),
}
