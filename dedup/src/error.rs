//! What can go wrong with the store, and what VMMs can do wrong.

use control::merge::{BATCH_MAX, PAGES_MAX};
use nix::errno::Errno;
use wire::{Frame, Gfn};

use crate::VmmId;
use crate::domain::vmm_id::VMMS_MAX;

/// The store could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on the store failed.
    #[error("cannot {what} the frame store")]
    Store {
        /// What we were doing.
        what: &'static str,
        /// Why it failed.
        source: Errno,
    },
    /// The guest has more pages than the store was made for.
    #[error("guest of {pages} pages in a domain made for guests of at most {home_frames}")]
    GuestTooLarge {
        /// The guest's pages.
        pages: u32,
        /// Largest guest.
        home_frames: u32,
    },
    /// Two living VMMs with one id.
    #[error("{0} is in the domain already")]
    Duplicate(VmmId),
    /// More VMMs than can be counted as holders of one frame.
    #[error("{0} is one too many: a domain has room for {VMMS_MAX} VMMs")]
    Full(VmmId),
}

/// A VMM broke the merge protocol. The host drops it; the others do not notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Not (or no longer) in the domain.
    #[error("{0} is not in this domain")]
    Unknown(VmmId),
    /// Longer than the protocol allows.
    #[error("batch of {0} entries (at most {BATCH_MAX}, or {PAGES_MAX} pages)")]
    BatchTooLong(usize),
    /// A page the guest does not have.
    #[error("gfn {:#x} of a guest of {pages:#x} pages", gfn.0)]
    Gfn {
        /// Alleged gfn.
        gfn: Gfn,
        /// The guest's pages.
        pages: u32,
    },
    /// Content that is not as long as its pages.
    #[error("{bytes} bytes of content for {pages} pages of 4096")]
    PagesLength {
        /// Content's length.
        bytes: usize,
        /// Pages it is said to be.
        pages: usize,
    },
    /// Content for a frame this VMM was not asked for.
    #[error("page {:#x} sent for frame {:#x}, which was not asked for", gfn.0, frame.0)]
    NotAsked {
        /// Alleged gfn.
        gfn: Gfn,
        /// Alleged frame.
        frame: Frame,
    },
    /// A frame adopted that nobody could adopt.
    #[error("frame {:#x} adopted, which is not published", .0.0)]
    NotPublished(Frame),
    /// An answer to a question that was not put.
    #[error("frame {:#x} answered for, which is not being retired", .0.0)]
    NotRetiring(Frame),
    /// A frame the store does not have.
    #[error("frame {:#x} is beyond the store", .0.0)]
    Frame(Frame),
    /// A question or report about frames, where nothing is shared.
    #[error("a merge request in a domain that shares nothing")]
    NothingShared,
}
