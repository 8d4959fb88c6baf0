//! The merge protocol: how a VMM's scanner and the domain's frame store agree on what is shared.
//!
//! ```text
//!   scanner                                    store
//!    | -- Hashes [(gfn, hash)] ---------------> |   stable private pages, keyed xxh3
//!    | <------------- Answers [(gfn, answer)] - |   Share(frame) | Publish(frame) | NoRoom (or nothing)
//!    | -- Pages [(gfn, frame)], bytes --------> |   for each Publish; the store hashes the bytes itself
//!    | -- Declined [(gfn, frame)] ------------> |   or this: the page is not private any more
//!    | <------------- Answers [(gfn, Share)] -- |   once the bytes are in place and the published bit is set
//!    |    (the VMM compares, and adopts if equal)
//!    | -- Adopted [frame] --------------------> |   the VMM holds these now, by answer or published bit
//!    | -- Dropped [frame] --------------------> |   the VMM's last reference is gone
//!    | <------------------- Retire [frame] ---- |   nobody is known to hold it; the published bit is clear
//!    | -- Retired [(frame, held)] ------------> |   held: an adoption was under way; published again
//!    |                                          |   all answered "not held": the hole is punched
//! ```
//!
//! A frame is *held* by a VMM from `Adopted` (or `Retired` with `held`) until `Dropped`, `Retired` without
//! `held`, or the VMM's death. `Share` is a hint and holds nothing: an adoption counts only if the published
//! bit is still set after the VMM's own reference was counted, so a frame retired in between is simply not
//! adopted.

use serde::{Deserialize, Serialize};
use wire::{Frame, Gfn};

/// Most entries in one message of any kind.
pub const BATCH_MAX: usize = 1024;
/// Most pages in one [`MergeRequest::Pages`]: 64 KiB, which allocators keep at hand and caches hold.
pub const PAGES_MAX: usize = 16;

/// VMM to store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MergeRequest {
    /// Pages whose content has not changed between two visits, and its hash.
    Hashes(Vec<(Gfn, u64)>),
    /// Content the store asked for.
    Pages(Pages),
    /// What it asked for and does not get: the page, and the frame it was for, which others may have.
    Declined(Vec<(Gfn, Frame)>),
    /// Frames that this VMM holds from here on.
    Adopted(Vec<Frame>),
    /// Frames that this VMM holds no more.
    Dropped(Vec<Frame>),
    /// Answers to [`MergeAnswer::Retire`]: whether a frame is still held.
    Retired(Vec<(Frame, bool)>),
}

/// Pages for the store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pages {
    /// Where the VMM has each, and where the store wants it.
    pub places: Vec<(Gfn, Frame)>,
    /// Their content, 4096 bytes each, one behind the other.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// Store to VMM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MergeAnswer {
    /// To hashes and pages; pages that nothing is said of stay as they are.
    Answers(Vec<(Gfn, Answer)>),
    /// These frames' published bits are clear: say whether you hold them.
    Retire(Vec<Frame>),
}

/// What to do with one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Compare it with this frame; share it if equal.
    Share(Frame),
    /// Send it, for this frame.
    Publish(Frame),
    /// It has an equal, but the store has no room for their frame (or for their names): ask again later.
    NoRoom,
}
