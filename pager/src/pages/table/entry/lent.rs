//! The part of a private page's word that says whether it is lent to the kernel, and since when.
//!
//! ```text
//!   63          39 38          27 26 25  24
//!  +--------------+--------------+------+---+
//!  |              | evictions    | era  | X |
//!  +--------------+--------------+------+---+
//! ```

use super::{Entry, LIVES_MAX, Left, PAYLOAD, PAYLOAD_SHIFT, PRIVATE_LIVES_SHIFT, PRIVATE_UNSEEN, PROBED, State};

const LENT: u64 = 1 << PAYLOAD_SHIFT;
const ERA_SHIFT: u32 = PAYLOAD_SHIFT + 1;
const EVICTIONS_SHIFT: u32 = ERA_SHIFT + Left::ERA_BITS;
const LIVES: u64 = (LIVES_MAX as u64) << PRIVATE_LIVES_SHIFT;

impl Entry {
    /// A private page that the kernel was asked to swap out.
    pub fn into_lent(self, left: Left) -> Entry {
        debug_assert_eq!(self.state(), State::Private);
        let at = left.era << ERA_SHIFT | left.evictions << EVICTIONS_SHIFT;
        Entry(self.0 & !(PAYLOAD | LIVES | PRIVATE_UNSEEN) | LENT | at)
    }

    /// A private page that is in memory, and survives `lives` passes of the hand.
    pub fn into_here(self, lives: u8) -> Entry {
        debug_assert!(self.state() == State::Private && lives <= LIVES_MAX);
        Entry(self.0 & !(PAYLOAD | LIVES | PROBED) | u64::from(lives) << PRIVATE_LIVES_SHIFT)
    }

    /// A private page that is in memory, as far as we know.
    pub fn is_here(self) -> bool {
        self.state() == State::Private && self.lent().is_none()
    }

    /// A private page that the kernel has, as far as we know.
    pub fn is_lent(self) -> bool {
        self.lent().is_some()
    }

    /// Since when the kernel has a private page, as far as we know.
    pub fn lent(self) -> Option<Left> {
        let part = |shift: u32, bits: u32| self.0 >> shift & ((1 << bits) - 1);
        (self.state() == State::Private && self.0 & LENT != 0).then(|| Left {
            era: part(ERA_SHIFT, Left::ERA_BITS),
            evictions: part(EVICTIONS_SHIFT, Left::EVICTIONS_BITS),
        })
    }
}
