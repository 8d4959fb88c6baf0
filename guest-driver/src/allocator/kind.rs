//! What a page of the guest may be.

/// What a page is.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody's.
    Free = 0,
    /// A workload's, with content that exists nowhere else.
    Anonymous = 1,
    /// A workload's, with content that can be had again.
    Clean = 2,
    /// Given to the host.
    Ballooned = 3,
    /// The allocator's and the driver's own.
    Reserved = 4,
    /// Free, in a report that the host has not answered yet.
    Reporting = 5,
    /// Free, and hinted at: the host may drop it any time, or not. Used when nothing else is left, and freed
    /// when the host is done.
    Hinted = 6,
}

/// Kinds by number.
pub(super) const KINDS: [Kind; 7] =
    [Kind::Free, Kind::Anonymous, Kind::Clean, Kind::Ballooned, Kind::Reserved, Kind::Reporting, Kind::Hinted];
