//! What devices have in common: from a descriptor chain to buffers that are checked, and turns
//! of work on a queue.
//!
//! ```text
//!   available ring --> DescriptorChain --> Chain::check --> readable: Buffers --read-->  bytes of ours
//!        ^                (virtio-queue)        |           writable: Buffers <--write-- bytes of ours
//!        |                                      `--> Error: the request is refused, its buffer goes back
//!      turn: a bounded number of requests, then others
//! ```
//!
//! A driver says where its buffers are, how long, and which way they go; all of that is an allegation.
//! [`Chain::check`] makes [`Buffers`] of it, and of those:
//!
//! * each lies in guest memory as a whole, does not wrap around, and is used in one direction only;
//! * the buffers that the device reads come before those that it writes (2.7.4.2), and there are no more than
//!   the queue has entries;
//! * a chain that breaks off is an error. (`virtio-queue` ends it silently.)
//!
//! Bytes are copied, once: what a request says cannot change after it was looked at. No reference into guest
//! memory leaves this crate. Every copy may block in a page fault, so it belongs on a device's own thread.

#![forbid(unsafe_code)]

mod buffers;
mod chain;
#[cfg(feature = "driver")]
pub mod driver;
mod turn;

pub use buffers::{Buffers, Part};
pub use chain::Chain;
pub use turn::{Bounds, Progress, Served, add_used_together, turn};

use vm_memory::{GuestAddress, GuestMemoryError};

/// A ring that lies about itself, and with it everything in it: the device needs a reset.
#[derive(Debug, thiserror::Error)]
#[error("the {ring} ring is broken")]
pub struct BrokenRing {
    /// What it is for.
    pub ring: &'static str,
    /// What is wrong with it.
    pub source: virtio_queue::Error,
}

impl BrokenRing {
    /// The ring for this is the one that is wrong.
    pub fn of(ring: &'static str) -> impl FnOnce(virtio_queue::Error) -> BrokenRing {
        move |source| BrokenRing { ring, source }
    }
}

/// What can be wrong with a chain. It concerns one request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A chain is empty, or ends in a descriptor that cannot be read.
    #[error("descriptor chain breaks off after {descriptors} descriptors")]
    Broken {
        /// Descriptors before the break.
        descriptors: usize,
    },
    /// A chain has more descriptors than its queue.
    #[error("descriptor chain is longer than its queue of {queue_size}")]
    Long {
        /// Descriptors in the queue.
        queue_size: u16,
    },
    /// A buffer to read comes after one to write.
    #[error("buffer at {address:?} is to be read, and comes after one to be written")]
    Order {
        /// Where the buffer is.
        address: GuestAddress,
    },
    /// A buffer is not in guest memory, or not as a whole.
    #[error("buffer at {address:?} of {bytes} bytes is not in guest memory")]
    Outside {
        /// Where the buffer is.
        address: GuestAddress,
        /// How long it is.
        bytes: u32,
    },
    /// Guest memory that was there is not there any more.
    #[error("guest memory at {address:?} cannot be accessed")]
    Memory {
        /// Where.
        address: GuestAddress,
        /// Why not.
        source: GuestMemoryError,
    },
}
