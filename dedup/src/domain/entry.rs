//! An entry of the index, in seven bytes:
//!
//! ```text
//!   55       32 31  30 29            0
//!   +----------+------+---------------+
//!   |   tag    | kind | page or frame |      zeros: no entry
//!   +----------+------+---------------+
//! ```

/// Pages of guests that candidates can be of: 4 TiB in one domain. Frames are as many.
pub(crate) const PAGE_NUMBERS: u32 = 1 << NUMBER_BITS;
const NUMBER_BITS: u32 = 30;
const KIND_BITS: u32 = 2;
const TAG_SHIFT: u32 = NUMBER_BITS + KIND_BITS;
pub(crate) const TAG_BITS: u32 = 24;

/// What an entry is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing.
    None = 0,
    /// A candidate told since candidates were last thinned out.
    Young = 1,
    /// A candidate told before.
    Old = 2,
    /// Content that is in a frame, or on its way there.
    Frame = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry([u8; 7]);

impl Entry {
    pub(crate) const NONE: Entry = Entry([0; 7]);

    pub(crate) fn new(tag: u32, kind: Kind, number: u32) -> Self {
        debug_assert!(tag < 1 << TAG_BITS && number < PAGE_NUMBERS);
        let word = u64::from(tag) << TAG_SHIFT | (kind as u64) << NUMBER_BITS | u64::from(number);
        let [bytes @ .., _] = word.to_le_bytes();
        Self(bytes)
    }

    fn word(self) -> u64 {
        // Two loads that overlap, not seven.
        let [low @ .., _, _, _] = self.0;
        let [_, _, _, high @ ..] = self.0;
        u64::from(u32::from_le_bytes(low)) | u64::from(u32::from_le_bytes(high)) << 24
    }

    pub(crate) fn tag(self) -> u32 {
        (self.word() >> TAG_SHIFT) as u32
    }

    pub(crate) fn kind(self) -> Kind {
        match self.word() >> NUMBER_BITS & ((1 << KIND_BITS) - 1) {
            0 => Kind::None,
            1 => Kind::Young,
            2 => Kind::Old,
            _ => Kind::Frame,
        }
    }

    /// Of the page or the frame.
    pub(crate) fn number(self) -> u32 {
        self.word() as u32 & (PAGE_NUMBERS - 1)
    }

    pub(crate) fn is_none(self) -> bool {
        self.kind() == Kind::None
    }

    pub(crate) fn is_candidate(self) -> bool {
        matches!(self.kind(), Kind::Young | Kind::Old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_comes_out_as_it_went_in() {
        for kind in [Kind::Young, Kind::Old, Kind::Frame] {
            for (tag, number) in [(0, PAGE_NUMBERS - 1), ((1 << TAG_BITS) - 1, 0), (7, 9)] {
                let entry = Entry::new(tag, kind, number);
                assert_eq!((entry.tag(), entry.kind(), entry.number()), (tag, kind, number));
            }
        }
        assert!(Entry::NONE.is_none() && !Entry::NONE.is_candidate());
    }
}
