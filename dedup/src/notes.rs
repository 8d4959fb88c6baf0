//! What the scanner remembers of each page, in five bytes: 32 bits of its last hash, and a byte of
//!
//! ```text
//!   bit  7   6 5 4    3        2         1          0
//!        -   reluct.  taken    over      differs    told
//!                              budget    from home
//! ```
//!
//! A page that was shared (or dropped as zero) and is private again was broken by its guest. Its *reluctance* grows by one, and it
//! is visited in every 2^reluctance-th pass only, until [`Notes::relax`] lowers it again. Since a page must have the same hash on
//! two visits before anything is asked about it, a reluctant page must also be stable for that much longer.

use crate::PageBytes;

/// The store was asked about this content.
pub(crate) const TOLD: u8 = 1 << 0;
/// The frame at the page's own offset was compared and is different: from here on, hashes decide. Stays when the content changes,
/// or a page that changes all the time would be write-protected in every pass.
pub(crate) const DIFFERS: u8 = 1 << 1;
/// The VMA budget left no room for its alias.
pub(crate) const OVER_BUDGET: u8 = 1 << 2;
/// We took the page away from the guest: shared or dropped.
pub(crate) const TAKEN: u8 = 1 << 3;
/// What says something of the page's content, and is void when that changes.
const OF_CONTENT: u8 = TOLD | OVER_BUDGET;

const RELUCTANCE_SHIFT: u32 = 4;
/// Every 64th pass at the least: minutes, when scanning is slow.
const RELUCTANCE_MAX: u8 = 6;

/// How a page's content compares with the visit before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Never visited before.
    New,
    /// Other content.
    Changed,
    /// The same.
    Stable,
}

/// The memory of all pages of a guest.
#[derive(Debug)]
pub(crate) struct Notes {
    hashes: Vec<u32>,
    flags: Vec<u8>,
}

impl Notes {
    pub(crate) fn new(pages: u32) -> Self {
        Self { hashes: vec![0; pages as usize], flags: vec![0; pages as usize] }
    }

    /// Whether a page's turn has come. Reluctant pages are spread over the passes by their numbers.
    pub(crate) fn is_due(&self, gfn: u32, pass: u64) -> bool {
        let reluctance = self.flags[gfn as usize] >> RELUCTANCE_SHIFT;
        (pass + u64::from(gfn)).is_multiple_of(1 << reluctance)
    }

    pub(crate) fn has(&self, gfn: u32, flag: u8) -> bool {
        self.flags[gfn as usize] & flag != 0
    }

    pub(crate) fn set(&mut self, gfn: u32, flag: u8) {
        self.flags[gfn as usize] |= flag;
    }

    pub(crate) fn clear(&mut self, gfn: u32, flag: u8) {
        self.flags[gfn as usize] &= !flag;
    }

    /// The page was found private: if it had been taken, its guest broke it.
    pub(crate) fn found_private(&mut self, gfn: u32) {
        let flags = &mut self.flags[gfn as usize];
        if *flags & TAKEN != 0 {
            let reluctance = (*flags >> RELUCTANCE_SHIFT) + 1;
            *flags = (reluctance.min(RELUCTANCE_MAX) << RELUCTANCE_SHIFT) | *flags & OF_CONTENT;
        }
    }

    /// Compares with the hash of the visit before, and keeps this one.
    pub(crate) fn see(&mut self, gfn: u32, hash: u64) -> Seen {
        let last = &mut self.hashes[gfn as usize];
        let seen = match std::mem::replace(last, short(hash)) {
            same if same == short(hash) => return Seen::Stable,
            0 => Seen::New,
            _ => Seen::Changed,
        };
        self.clear(gfn, OF_CONTENT);
        seen
    }

    /// Whether a page's content has this hash still, as far as 31 bits tell.
    pub(crate) fn matches(&self, gfn: u32, hash: u64) -> bool {
        self.hashes[gfn as usize] == short(hash)
    }

    /// Forgets a page's content.
    pub(crate) fn forget(&mut self, gfn: u32) {
        self.hashes[gfn as usize] = 0;
        self.clear(gfn, OF_CONTENT);
    }

    /// Lowers every page's reluctance by one.
    pub(crate) fn relax(&mut self) {
        for flags in &mut self.flags {
            *flags -= u8::from(*flags >> RELUCTANCE_SHIFT != 0) << RELUCTANCE_SHIFT;
        }
    }
}

/// What is kept of a hash: never 0, which stands for "not visited".
fn short(hash: u64) -> u32 {
    (hash >> 32) as u32 | 1
}

/// Pages of one batch, copied out of the guest, and where they came from. The copies live in one buffer that is reused.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    pub(crate) gfns: Vec<u32>,
    pub(crate) pages: Vec<PageBytes>,
}

impl Copies {
    pub(crate) fn clear(&mut self) {
        self.gfns.clear();
        self.pages.clear();
    }

    pub(crate) fn push(&mut self, gfn: u32, page: &PageBytes) {
        self.gfns.push(gfn);
        self.pages.push(*page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visits_in_64_passes(notes: &Notes) -> usize {
        (0..64).filter(|&pass| notes.is_due(3, pass)).count()
    }

    #[test]
    fn each_break_halves_the_visits_and_relaxing_doubles_them() {
        let mut notes = Notes::new(8);
        for halvings in 1..=8 {
            notes.set(3, TAKEN);
            notes.found_private(3);
            notes.found_private(3);
            assert_eq!(visits_in_64_passes(&notes), 64 >> halvings.min(6), "after {halvings} breaks");
        }
        for _ in 0..7 {
            notes.relax();
        }
        assert_eq!(visits_in_64_passes(&notes), 64);
    }

    #[test]
    fn changed_content_voids_what_was_noted_of_it() {
        let mut notes = Notes::new(1);
        assert_eq!(notes.see(0, 0), Seen::New);
        notes.set(0, TOLD | DIFFERS | TAKEN);
        assert_eq!(notes.see(0, 0), Seen::Stable);
        assert!(notes.has(0, TOLD));
        assert_eq!(notes.see(0, u64::MAX), Seen::Changed);
        assert!(!notes.has(0, TOLD) && notes.has(0, DIFFERS) && notes.has(0, TAKEN));
    }
}
