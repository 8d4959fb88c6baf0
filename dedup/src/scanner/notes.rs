//! What the scanner remembers of each page, in two bytes: one of a sample of its content, and one of
//!
//! ```text
//!   bit  7         6 5 4    3        2         1          0
//!        changed / reluct.  taken    over      differs    told
//!        no room                     budget    from home
//! ```
//!
//! A *sample* is a digest of a few words of a page (see `ScanMemory::sample_private`). A page that is sampled
//! alike twice is taken for stable, and one that was told and is sampled alike for unchanged: neither is
//! proof, and neither needs to be. A page that changed elsewhere is found out when the store hashes what it
//! is sent, or when the page is compared before it is shared; what is lost is a chance to share until it is
//! told anew. In return the second and all later visits to a page that does not change cost six cache lines
//! instead of 64, and no write-protection that its guest would have to pay for with a fault.
//!
//! A page that was shared (or dropped as zero) and is private again was broken by its guest. Its *reluctance*
//! grows by one, and it is visited in every 2^reluctance-th pass only, until [`Notes::relax`] lowers it
//! again. Since a page must be sampled alike on two visits before anything is asked about it, a reluctant
//! page must also be stable for that much longer.

use wire::Gfn;

/// The store was asked about this content.
pub(crate) const TOLD: u8 = 1 << 0;
/// The frame at the page's own offset was compared and is different: from here on, hashes decide. Stays when
/// the content changes, or a page that changes all the time would be write-protected in every pass.
pub(crate) const DIFFERS: u8 = 1 << 1;
/// The VMA budget left no room for its alias.
pub(crate) const OVER_BUDGET: u8 = 1 << 2;
/// We took the page away from the guest: shared or dropped.
pub(crate) const TAKEN: u8 = 1 << 3;
/// Of content that the store was told: it has an equal, but the store had no room for their frame.
pub(crate) const NO_ROOM: u8 = 1 << 7;
/// The same bit, of content that was not told: it was different at the visit before.
const CHANGED: u8 = NO_ROOM;
/// What says something of the page's content, and is void when that changes.
const OF_CONTENT: u8 = TOLD | OVER_BUDGET | NO_ROOM;

const RELUCTANCE: u8 = 0b111 << RELUCTANCE_SHIFT;
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

/// Why a private page is private.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Not seen twice yet.
    NotVisited,
    /// Changes from visit to visit.
    Volatile,
    /// Content not known elsewhere.
    Unique,
    /// Its guest broke it.
    Broken,
    /// No area for its alias.
    VmaBudget,
    /// No room for its frame.
    StoreBudget,
}

/// What the scanner's notes cost, bytes a guest page.
pub const NOTES_BYTES_PER_PAGE: u64 = 2;

/// The memory of all pages of a guest.
#[derive(Debug)]
pub(crate) struct Notes {
    samples: Vec<u8>,
    flags: Vec<u8>,
}

impl Notes {
    pub(crate) fn new(pages: u32) -> Self {
        Self { samples: vec![0; pages as usize], flags: vec![0; pages as usize] }
    }

    /// Whether a page's turn has come. Reluctant pages are spread over the passes by their numbers.
    pub(crate) fn is_due(&self, gfn: Gfn, pass: u64) -> bool {
        let reluctance = (self.flags[gfn.index()] & RELUCTANCE) >> RELUCTANCE_SHIFT;
        (pass + u64::from(gfn.0)).is_multiple_of(1 << reluctance)
    }

    pub(crate) fn has(&self, gfn: Gfn, flag: u8) -> bool {
        self.flags[gfn.index()] & flag != 0
    }

    pub(crate) fn set(&mut self, gfn: Gfn, flag: u8) {
        self.flags[gfn.index()] |= flag;
    }

    pub(crate) fn clear(&mut self, gfn: Gfn, flag: u8) {
        self.flags[gfn.index()] &= !flag;
    }

    /// The page was found private: if it had been taken, its guest broke it.
    pub(crate) fn found_private(&mut self, gfn: Gfn) {
        let flags = &mut self.flags[gfn.index()];
        if *flags & TAKEN != 0 {
            let reluctance = ((*flags & RELUCTANCE) >> RELUCTANCE_SHIFT) + 1;
            *flags = (reluctance.min(RELUCTANCE_MAX) << RELUCTANCE_SHIFT) | *flags & OF_CONTENT;
        }
    }

    /// Whether the page was merged before, and its guest broke it, not long ago.
    pub(crate) fn was_broken(&self, gfn: Gfn) -> bool {
        self.has(gfn, RELUCTANCE)
    }

    /// Compares with the sample of the visit before, and keeps this one.
    pub(crate) fn see(&mut self, gfn: Gfn, sample: u64) -> Seen {
        let last = &mut self.samples[gfn.index()];
        let seen = match std::mem::replace(last, short(sample)) {
            same if same == short(sample) => {
                if !self.has(gfn, TOLD) {
                    self.clear(gfn, CHANGED);
                }
                return Seen::Stable;
            }
            0 => Seen::New,
            _ => Seen::Changed,
        };
        self.clear(gfn, OF_CONTENT);
        if seen == Seen::Changed {
            self.set(gfn, CHANGED);
        }
        seen
    }

    /// Why a private page is private.
    pub(crate) fn why(&self, gfn: Gfn) -> Why {
        let (sample, flags) = (self.samples[gfn.index()], self.flags[gfn.index()]);
        match flags {
            _ if flags & (TAKEN | RELUCTANCE) != 0 => Why::Broken,
            _ if sample == 0 => Why::NotVisited,
            _ if flags & OVER_BUDGET != 0 => Why::VmaBudget,
            _ if flags & (TOLD | NO_ROOM) == TOLD | NO_ROOM => Why::StoreBudget,
            _ if flags & TOLD != 0 => Why::Unique,
            _ if flags & CHANGED != 0 => Why::Volatile,
            _ => Why::NotVisited,
        }
    }

    /// Forgets a page's content.
    pub(crate) fn forget(&mut self, gfn: Gfn) {
        self.samples[gfn.index()] = 0;
        self.clear(gfn, OF_CONTENT);
    }

    /// Lowers every page's reluctance by one, and forgets what the store had no room for: it says so again if
    /// that is still so.
    pub(crate) fn relax(&mut self) {
        for flags in &mut self.flags {
            if *flags & TOLD != 0 {
                *flags &= !NO_ROOM;
            }
            *flags -= u8::from(*flags & RELUCTANCE != 0) << RELUCTANCE_SHIFT;
        }
    }
}

/// What is kept of a sample: never 0, which stands for "not visited", and 1 for zeros alone. One change of
/// content in 254 is not noticed.
fn short(sample: u64) -> u8 {
    if sample == 0 { 1 } else { ((sample >> 32) % 254) as u8 + 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Gfn = Gfn(3);

    fn visits_in_64_passes(notes: &Notes) -> usize {
        (0..64).filter(|&pass| notes.is_due(PAGE, pass)).count()
    }

    #[test]
    fn they_cost_what_they_are_said_to() {
        const PAGES: u32 = 1 << 10;
        let Notes { samples, flags } = Notes::new(PAGES);
        let bytes = size_of_val(&samples[..]) + size_of_val(&flags[..]);
        assert_eq!(bytes as u64, u64::from(PAGES) * NOTES_BYTES_PER_PAGE);
        assert_eq!((samples.capacity(), flags.capacity()), (PAGES as usize, PAGES as usize));
    }

    #[test]
    fn each_break_halves_the_visits_and_relaxing_doubles_them() {
        let mut notes = Notes::new(8);
        for halvings in 1..=8 {
            notes.set(PAGE, TAKEN);
            notes.found_private(PAGE);
            notes.found_private(PAGE);
            assert_eq!(visits_in_64_passes(&notes), 64 >> halvings.min(6), "after {halvings} breaks");
        }
        for _ in 0..7 {
            notes.relax();
        }
        assert_eq!(visits_in_64_passes(&notes), 64);
    }

    #[test]
    fn changed_content_voids_what_was_noted_of_it() {
        let mut notes = Notes::new(8);
        assert_eq!(notes.see(PAGE, 0), Seen::New);
        notes.set(PAGE, TOLD | DIFFERS | TAKEN);
        assert_eq!(notes.see(PAGE, 0), Seen::Stable);
        assert!(notes.has(PAGE, TOLD));
        assert_eq!(notes.see(PAGE, u64::MAX), Seen::Changed);
        assert!(!notes.has(PAGE, TOLD) && notes.has(PAGE, DIFFERS) && notes.has(PAGE, TAKEN));
    }
}
