//! The index: from the hash of a page's content to where that content is.
//!
//! ```text
//!   (nothing) ── hash seen once ──► Candidate ── seen elsewhere ──► Awaited ── content came ──► Frame
//!       ▲                              │ too old                       │ declined                 │ retired
//!       └──────────────────────────────┴───────────────────────────────┴──────────────────────────┘
//! ```
//!
//! Entries change under the domain's lock only. Candidates, the only entries that cost the
//! store no frame, are bounded by generations: when the young ones reach half the limit, those of older generations go.
//!
//! No guard of the map leaves a function of this file: every value is copied out.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use foldhash::quality::RandomState;

use crate::VmmId;

/// Where content with some hash is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Seen once, in this VMM, at this gfn.
    Candidate { vmm: VmmId, gfn: u32 },
    /// On its way to this frame.
    Awaited(u32),
    /// In this frame.
    Frame(u32),
}

/// An entry in one word, so that an index of millions is not twice the size:
///
/// ```text
///   63  62 61        56 55          32 31            0
///   +-----+------------+--------------+--------------+
///   | tag | generation | VMM          | gfn or frame |
///   +-----+------------+--------------+--------------+
/// ```
///
/// Of a VMM's number 24 bits are kept: when 16 million guests have started, a candidate may name the wrong one, whose page is then
/// compared in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot(u64);

const TAG_SHIFT: u32 = 62;
const GENERATION_SHIFT: u32 = 56;
/// Generations count modulo this.
const GENERATIONS: u32 = 1 << (TAG_SHIFT - GENERATION_SHIFT);
const VMM_SHIFT: u32 = 32;
const VMM_MASK: u32 = (1 << (GENERATION_SHIFT - VMM_SHIFT)) - 1;

impl Slot {
    fn new(entry: Entry, generation: u32) -> Slot {
        let (tag, vmm, number) = match entry {
            Entry::Candidate { vmm, gfn } => (0, vmm.0 & VMM_MASK, gfn),
            Entry::Awaited(frame) => (1, 0, frame),
            Entry::Frame(frame) => (2, 0, frame),
        };
        let generation = u64::from(generation % GENERATIONS);
        Slot(tag << TAG_SHIFT | generation << GENERATION_SHIFT | u64::from(vmm) << VMM_SHIFT | u64::from(number))
    }

    fn entry(self) -> Entry {
        let number = self.0 as u32;
        match self.0 >> TAG_SHIFT {
            0 => Entry::Candidate { vmm: VmmId((self.0 >> VMM_SHIFT) as u32 & VMM_MASK), gfn: number },
            1 => Entry::Awaited(number),
            _ => Entry::Frame(number),
        }
    }

    /// Whether it is a candidate of this generation.
    fn is_young(self, generation: u32) -> bool {
        let own = (self.0 >> GENERATION_SHIFT) as u32 % GENERATIONS;
        matches!(self.entry(), Entry::Candidate { .. }) && own == generation % GENERATIONS
    }
}

/// Hash to [`Entry`].
#[derive(Debug, Default)]
pub(crate) struct Index {
    slots: DashMap<u64, Slot, RandomState>,
    /// Candidates in all.
    candidates: AtomicUsize,
    /// Candidates of the current generation.
    young: AtomicUsize,
    generation: AtomicU32,
}

impl Index {
    /// What is known of a hash. If nothing is, it is noted as seen in `vmm` at `gfn`, within `limit` candidates in all.
    pub(crate) fn get_or_note(&self, hash: u64, vmm: VmmId, gfn: u32, limit: usize) -> Option<Entry> {
        self.make_room(limit);
        match self.slots.entry(hash) {
            MapEntry::Occupied(slot) => Some(slot.get().entry()),
            MapEntry::Vacant(slot) => {
                slot.insert(Slot::new(Entry::Candidate { vmm, gfn }, self.generation.load(Ordering::Relaxed)));
                self.candidates.fetch_add(1, Ordering::Relaxed);
                self.young.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Candidates in all.
    pub(crate) fn candidates(&self) -> usize {
        self.candidates.load(Ordering::Relaxed)
    }

    /// Notes that a hash was seen again, and where.
    pub(crate) fn put_candidate(&self, hash: u64, vmm: VmmId, gfn: u32, limit: usize) {
        self.make_room(limit);
        let generation = self.generation.load(Ordering::Relaxed);
        let previous = self.slots.insert(hash, Slot::new(Entry::Candidate { vmm, gfn }, generation));
        self.forget_count(previous);
        self.candidates.fetch_add(1, Ordering::Relaxed);
        self.young.fetch_add(1, Ordering::Relaxed);
    }

    /// Relaxed everywhere: writers hold the domain's lock, and readers only show the figures.
    fn make_room(&self, limit: usize) {
        if self.young.load(Ordering::Relaxed) >= (limit / 2).max(1) {
            self.age();
        }
    }

    /// The content is in a frame, or on its way to one.
    pub(crate) fn put(&self, hash: u64, entry: Entry) {
        debug_assert!(!matches!(entry, Entry::Candidate { .. }), "candidates are counted: use put_candidate");
        self.forget_count(self.slots.insert(hash, Slot::new(entry, 0)));
    }

    /// Forgets a hash if this is what is known of it.
    pub(crate) fn remove(&self, hash: u64, entry: Entry) {
        if let MapEntry::Occupied(slot) = self.slots.entry(hash)
            && slot.get().entry() == entry
        {
            let removed = slot.remove();
            self.forget_count(Some(removed));
        }
    }

    /// Starts a generation; candidates not seen since the last start go.
    fn age(&self) {
        let current = self.generation.load(Ordering::Relaxed);
        self.slots.retain(|_, slot| !matches!(slot.entry(), Entry::Candidate { .. }) || slot.is_young(current));
        self.candidates.store(self.young.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        self.generation.store(current.wrapping_add(1), Ordering::Relaxed);
    }

    fn forget_count(&self, slot: Option<Slot>) {
        if let Some(slot) = slot
            && matches!(slot.entry(), Entry::Candidate { .. })
        {
            self.candidates.fetch_sub(1, Ordering::Relaxed);
            if slot.is_young(self.generation.load(Ordering::Relaxed)) {
                self.young.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VMM: VmmId = VmmId(1);

    fn get(index: &Index, hash: u64) -> Option<Entry> {
        index.slots.get(&hash).map(|slot| slot.entry())
    }

    #[test]
    fn an_entry_fits_one_word_and_comes_out_as_it_went_in() {
        let vmm = VmmId(VMM_MASK);
        for entry in [Entry::Candidate { vmm, gfn: u32::MAX }, Entry::Awaited(u32::MAX), Entry::Frame(7)] {
            for generation in 0..GENERATIONS {
                let slot = Slot::new(entry, generation);
                assert_eq!(slot.entry(), entry);
                let candidate = matches!(entry, Entry::Candidate { .. });
                assert_eq!((slot.is_young(generation), slot.is_young(generation + 1)), (candidate, false));
            }
        }
    }

    #[test]
    fn candidates_stay_within_their_limit_and_the_oldest_go_first() {
        let index = Index::default();
        index.put(1 << 32, Entry::Frame(9));
        for hash in 0..1000 {
            index.put_candidate(hash, VMM, hash as u32, 100);
            assert!(index.candidates() <= 100);
            assert_eq!(index.candidates(), index.slots.len() - 1);
        }
        assert_eq!(get(&index, 0), None);
        assert_eq!(get(&index, 999), Some(Entry::Candidate { vmm: VMM, gfn: 999 }));
        assert_eq!(get(&index, 1 << 32), Some(Entry::Frame(9)), "frames do not age");
    }

    #[test]
    fn a_candidate_seen_again_is_young_again() {
        let index = Index::default();
        for hash in 1..1000 {
            index.put_candidate(0, VMM, 0, 20);
            index.put_candidate(hash, VMM, 1, 20);
        }
        assert_eq!(get(&index, 0), Some(Entry::Candidate { vmm: VMM, gfn: 0 }));
    }

    #[test]
    fn only_the_entry_that_is_meant_is_removed() {
        let index = Index::default();
        index.put(7, Entry::Frame(1));
        index.remove(7, Entry::Frame(2));
        assert_eq!(get(&index, 7), Some(Entry::Frame(1)));
        index.remove(7, Entry::Frame(1));
        assert_eq!(get(&index, 7), None);
    }
}
