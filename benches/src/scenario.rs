//! The memory that both sides get: which content each page of each guest has.
//!
//! Three quarters of every guest's pages are common to all guests, the rest are its own. No page compares equal to another
//! before its last word, as a byte comparison's worst case is to be measured, not its best.

use std::collections::HashSet;

use pager::{PAGE_BYTES, PageBytes};

/// Mean length of an extent, in pages, as real images show.
const EXTENT_PAGES: u64 = 4;

/// Where the common pages lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// At the same address in every guest.
    SameAddress,
    /// Elsewhere in every guest, in extents of mean length 4.
    Extents,
    /// Elsewhere in every guest, no two neighbours together.
    SinglePages,
}

impl Placement {
    /// The scenarios by name.
    pub const ALL: [(&'static str, Placement); 3] = [
        ("S1-same-address", Placement::SameAddress),
        ("S2-extents", Placement::Extents),
        ("S2-single-pages", Placement::SinglePages),
    ];
}

/// The content numbers of all guests' pages.
pub struct Scenario {
    /// By guest and page; equal numbers are equal pages.
    pub contents: Vec<Vec<u64>>,
}

impl Scenario {
    /// `guests` guests of `pages` pages.
    pub fn new(placement: Placement, guests: u32, pages: u32) -> Scenario {
        let common = u64::from(pages) * 3 / 4;
        let contents = (0..u64::from(guests))
            .map(|guest| {
                let own = (common..u64::from(pages)).map(|page| (guest + 1) << 32 | page);
                let linear: Vec<u64> = (0..common).chain(own).collect();
                match placement {
                    Placement::SameAddress => linear,
                    Placement::Extents => shuffled(&linear, guest, EXTENT_PAGES),
                    Placement::SinglePages => shuffled(&linear, guest, 1),
                }
            })
            .collect();
        Scenario { contents }
    }

    /// Pages that a perfect sharer would save: all less the distinct ones.
    pub fn limit_pages(&self) -> u64 {
        let all = self.contents.iter().flatten();
        all.clone().count() as u64 - all.collect::<HashSet<_>>().len() as u64
    }
}

/// The page with content number `number`.
pub fn content(number: u64) -> PageBytes {
    let mut page = [0; PAGE_BYTES];
    let mut word = 0x9e37_79b9_7f4a_7c15u64;
    for chunk in page.chunks_exact_mut(8) {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    page[PAGE_BYTES - 8..].copy_from_slice(&(number + 1).to_le_bytes());
    page
}

fn shuffled(linear: &[u64], guest: u64, mean_pages: u64) -> Vec<u64> {
    let mut random = Random(guest.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
    let mut extents = Vec::new();
    let mut rest = linear;
    while !rest.is_empty() {
        // 1 to 2 × mean − 1: uniform, and `mean_pages` on average.
        let length = (1 + random.below(2 * mean_pages - 1)).min(rest.len() as u64);
        let (extent, tail) = rest.split_at(length as usize);
        extents.push(extent);
        rest = tail;
    }
    for last in (1..extents.len()).rev() {
        extents.swap(last, random.below(last as u64 + 1) as usize);
    }
    extents.concat()
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_quarters_of_all_but_one_guest_can_be_saved_however_they_lie() {
        for (_, placement) in Placement::ALL {
            assert_eq!(Scenario::new(placement, 4, 1024).limit_pages(), 3 * 768);
        }
    }

    #[test]
    fn contents_differ_only_where_their_numbers_do() {
        assert_eq!(content(7), content(7));
        assert_ne!(content(7), content(8));
        assert_eq!(content(7)[..PAGE_BYTES - 8], content(8)[..PAGE_BYTES - 8]);
    }
}
