//! Numbers with types: a guest page, a frame, a run of pages; and what became of a page that was to share a
//! frame.
//!
//! In the memory of a program, and in a message, a number is as large as without its type.

use core::ops::Range;

/// Bytes of a guest page, and of a frame.
pub const PAGE_BYTES: usize = 4096;
/// A page's content.
pub type PageBytes = [u8; PAGE_BYTES];

/// Guest frame number: a guest-physical address divided by [`PAGE_BYTES`]. 32 bits: 16 TiB of guest RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Gfn(pub u32);

/// Number of a frame in the store: its offset in the store's memfd divided by [`PAGE_BYTES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Frame(pub u32);

/// A run of guest pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First page.
    pub first: Gfn,
    /// How many.
    pub count: u32,
}

/// What became of a page that was to share a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// It shares its frame now.
    Shared,
    /// Its content is not the frame's, or the frame is not published.
    Different,
    /// It was not private, or in motion, or there is no such page or frame.
    NotPrivate,
    /// Its alias would exceed the budget of address-space areas.
    Refused,
}

impl Gfn {
    /// The page `n` further on.
    pub fn plus(self, n: u32) -> Gfn {
        Gfn(self.0 + n)
    }

    /// The run of this page alone.
    pub fn run(self) -> Run {
        Run { first: self, count: 1 }
    }

    /// As an index into per-page tables.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The frame at the page's own offset in the store: at home it needs no alias.
    pub fn home(self) -> Frame {
        Frame(self.0)
    }
}

impl Frame {
    /// The frame `n` further on.
    pub fn plus(self, n: u32) -> Frame {
        Frame(self.0 + n)
    }

    /// As an index into per-frame tables.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl Run {
    /// The run of `range`'s page numbers.
    pub fn from_range(range: Range<u32>) -> Run {
        Run { first: Gfn(range.start), count: range.end.saturating_sub(range.start) }
    }

    /// The pages, in order.
    pub fn gfns(self) -> impl Iterator<Item = Gfn> {
        (self.first.0..self.first.0 + self.count).map(Gfn)
    }

    /// Bytes of the whole run.
    pub fn bytes(self) -> usize {
        self.count as usize * PAGE_BYTES
    }

    /// The part of the run from page `skip` on.
    pub fn skip(self, skip: u32) -> Run {
        Run { first: self.first.plus(skip), count: self.count - skip }
    }
}

/// Longest runs of neighbours in `gfns`, which must ascend.
pub fn runs(gfns: impl IntoIterator<Item = Gfn>) -> impl Iterator<Item = Run> {
    let mut gfns = gfns.into_iter().peekable();
    core::iter::from_fn(move || {
        let mut run = gfns.next()?.run();
        while gfns.next_if(|next| next.0 == run.first.0 + run.count).is_some() {
            run.count += 1;
        }
        Some(run)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_fold_into_runs() {
        let mut folded = runs([1, 2, 3, 7, 9, 10].map(Gfn)).map(|run| (run.first.0, run.count));
        for expected in [(1, 3), (7, 1), (9, 2)] {
            assert_eq!(folded.next(), Some(expected));
        }
        assert_eq!(folded.next(), None);
    }
}
