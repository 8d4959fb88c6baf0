//! Numbers with types: a guest page, a frame, a page's bytes.

use std::ops::Range;

/// Bytes of a page, and of a frame.
pub const PAGE_BYTES: usize = 4096;
/// A page's content.
pub type PageBytes = [u8; PAGE_BYTES];

/// Where a page is sampled, in bytes: its first words, where data structures and file formats keep what distinguishes them, its last,
/// and one in each quarter; six cache lines' worth of looking instead of 64.
pub(crate) const SAMPLE_AT: [usize; 8] = [0, 8, 968, 1544, 2248, 2960, 3528, 4088];

/// A digest of a few words of a page, 0 if and only if all are zero. `word` reads the one at a byte offset.
pub(crate) fn sample(word: impl Fn(usize) -> u64) -> u64 {
    let words = SAMPLE_AT.map(word);
    if words == [0; SAMPLE_AT.len()] {
        return 0;
    }
    // The finaliser of xorshift-multiply generators: each word moves all bits.
    let mix = |sum: u64, word: u64| (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    words.into_iter().fold(1, mix) | 1
}

/// Guest frame number: a guest-physical address divided by [`PAGE_BYTES`]. 32 bits: 16 TiB of guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gfn(pub u32);

/// Number of a frame in the store: its offset in the store's memfd divided by [`PAGE_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frame(pub u32);

/// A run of guest pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First page.
    pub first: Gfn,
    /// How many.
    pub count: u32,
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
    std::iter::from_fn(move || {
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
        let folded: Vec<_> = runs([1, 2, 3, 7, 9, 10].map(Gfn)).map(|run| (run.first.0, run.count)).collect();
        assert_eq!(folded, [(1, 3), (7, 1), (9, 2)]);
    }
}
