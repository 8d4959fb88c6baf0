//! What a domain's VMMs are called, and how many there can be.

use std::fmt;

/// VMMs that a domain has room for: as many as 13 bits of the frame table can count as holders of one frame.
pub(crate) const VMMS_MAX: u16 = (1 << 13) - 1;

/// A VMM: one life of a guest. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmmId {
    /// Its guest's number.
    pub guest: u32,
    /// How often the guest was started anew before.
    pub life: u32,
}

impl VmmId {
    /// Of a guest's first life.
    pub const fn first(guest: u32) -> Self {
        Self { guest, life: 0 }
    }

    /// Of the same guest's next life.
    pub const fn next(self) -> Self {
        Self { guest: self.guest, life: self.life + 1 }
    }
}

impl fmt::Display for VmmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VMM {} of guest {}", self.life, self.guest)
    }
}
