//! What a page's word remembers of its past: when it left, or who took what was behind it.

/// When a page left: the era, modulo 4, and the pages evicted before it, in units of its guest's choice,
/// modulo 4096.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// The era.
    pub era: u64,
    /// Units of pages evicted.
    pub evictions: u64,
}

impl Left {
    /// Bits of the era that are remembered.
    pub const ERA_BITS: u32 = 2;
    /// Bits of the units of evictions.
    pub const EVICTIONS_BITS: u32 = 12;

    /// From now on, the era and the units of evictions that have passed since, as far as they can be known.
    pub fn until(self, now: Left) -> Left {
        Left {
            era: now.era.wrapping_sub(self.era) & ((1 << Left::ERA_BITS) - 1),
            evictions: now.evictions.wrapping_sub(self.evictions) & ((1 << Left::EVICTIONS_BITS) - 1),
        }
    }
}

/// Who took what was behind a page that now has nothing behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Taker {
    /// The guest reported it free, or hinted at it.
    Reporting = 1,
    /// The guest gave it up.
    Balloon = 2,
    /// It was all zero.
    Zero = 3,
}
