//! How a domain is, in numbers.

/// Figures of one domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Frames of the store.
    pub frames: u64,
    /// Frames that are awaited, published or being retired.
    pub frames_in_use: u64,
    /// Frames published now.
    pub frames_published: u64,
    /// Frames the VMMs are being asked about.
    pub frames_retiring: u64,
    /// Memory of the store, as the kernel counts it.
    pub allocated_bytes: u64,
    /// Hashes seen once.
    pub candidates: u64,
    /// Frames published so far.
    pub published_total: u64,
    /// Frames punched so far.
    pub retired_total: u64,
    /// Pages asked for that did not come, or came with other content.
    pub declined_total: u64,
    /// Frames not placed because the budget or the store was full.
    pub refused_total: u64,
    /// Frames that some VMM holds.
    pub frames_held: u64,
    /// The same, each counted as often as there are VMMs that hold it.
    pub holds: u64,
    /// Frames that could not be written or punched.
    pub store_errors_total: u64,
}
