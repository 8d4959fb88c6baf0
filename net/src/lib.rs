//! The network device (VIRTIO 1.3, 5.1), without a transport.
//!
//! ```text
//!   driver                                        Net                                          Link
//!    | transmitq  [header][frame] --------------> | copy out, check the header         ----> send
//!    | receiveq   [buffer] [buffer] ... <-------- | a frame into as many as it takes   <---- receive
//!    | config     mac, mtu <--                    | what the driver takes              ----> set_offloads
//! ```
//!
//! Whatever a driver says is an allegation. A frame leaves only after its header was checked against what was
//! agreed on; and:
//!
//! * a malformed request is a typed [`Error`], counted, and handed back; a ring that lies about itself is
//!   [`chains::BrokenRing`], after which the device needs a reset; nothing the guest does is a panic;
//! * a frame that the link does not take, or that fits into no buffer, is dropped and counted, as on a wire;
//!   there is no queue in here but for one frame that waits for buffers, so a guest that does not receive
//!   fills the link's queue and nothing of ours;
//! * the buffers of one frame become visible to the driver together;
//! * a call does a bounded amount of work ([`FRAMES_PER_TURN`], [`BYTES_PER_TURN`]) and says when there is
//!   more;
//! * no byte outside of the buffers is written, and no lock is held while guest memory is touched, which may
//!   block in a page fault;
//! * the kernel never gets an address in guest memory: frames go through a buffer of ours.
//!
//! A device thread calls [`Net::transmit`] when the driver notifies, [`Net::receive`] when it does, and when
//! the link has frames; while [`Net::holds_frame`], it need not look at the link. `unsafe` is in `sys`, which
//! has the tap's three ioctls.

#![deny(unsafe_code)]

mod config;
mod device;
mod header;
mod link;
mod receive;
#[allow(unsafe_code, reason = "ioctls")]
mod sys;
mod tap;
mod transmit;

use std::io;

pub use device::{Counts, FEATURES, Net, Progress};
pub use link::{Link, Offloads};
pub use tap::{Tap, TapError};

/// Descriptors of each queue: QEMU's number.
pub const QUEUE_SIZE_MAX: u16 = 256;

/// How many queues there are: one pair.
pub const QUEUE_COUNT: usize = 2;

/// Bytes of a header and the largest frame (5.1.6.3.1), one of 65535 bytes of IPv6 payload.
pub const PACKET_BYTES_MAX: usize = 65601;

/// Bytes of a header and the shortest frame: a header of Ethernet's.
const PACKET_BYTES_MIN: usize = wire::net::HEADER_BYTES + 14;

/// Frames moved in one turn: a quarter of a queue. A reset waits for a turn to end.
pub const FRAMES_PER_TURN: usize = 64;

/// Bytes moved after which a turn takes no further frame.
pub const BYTES_PER_TURN: u64 = 1 << 20;

/// What can go wrong with a request. It concerns that request, or that frame, only.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request's buffers are wrong, or guest memory was taken away under it.
    #[error("request is not a chain of buffers")]
    Chain(#[from] chains::Error),
    /// A buffer is for the other direction.
    #[error("request has {bytes} bytes for the other direction")]
    Direction {
        /// How many.
        bytes: u64,
    },
    /// A packet is no header and frame.
    #[error("packet of {bytes} bytes: a header and a frame have from {PACKET_BYTES_MIN} to {PACKET_BYTES_MAX}")]
    PacketLength {
        /// How long it is.
        bytes: u64,
    },
    /// A header asks for what was not agreed on.
    #[error("header asks for segmentation {gso_type:#x} with flags {flags:#x}, which were not agreed on")]
    NotAgreed {
        /// Its flags.
        flags: u8,
        /// Its kind of segmentation.
        gso_type: u8,
    },
    /// A header places a checksum outside of the frame.
    #[error("checksum from {start} on, put {offset} bytes behind, is not in a frame of {frame_bytes} bytes")]
    Checksum {
        /// Where it starts.
        start: u16,
        /// Where it goes, from there.
        offset: u16,
        /// How long the frame is.
        frame_bytes: usize,
    },
    /// A header asks for segmentation into nothing, or without a checksum.
    #[error("header asks for segments of {segment_bytes} bytes with flags {flags:#x}")]
    Segmentation {
        /// Payload of one segment.
        segment_bytes: u16,
        /// Its flags.
        flags: u8,
    },
    /// A buffer to receive into cannot hold a header.
    #[error("buffer of {bytes} bytes is too short to receive into")]
    ShortBuffer {
        /// How long it is.
        bytes: u64,
    },
    /// The link failed.
    #[error("link cannot {doing}")]
    Link {
        /// What was asked of it.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
}
