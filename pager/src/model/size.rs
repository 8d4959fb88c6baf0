//! How small the guest and its store are.

/// Pages of the guest: one with a neighbour.
pub(super) const PAGES: u32 = 2;
/// Frames of the store: the pages' homes, and one to which both pages can move together.
pub(super) const FRAMES: u32 = 3;
