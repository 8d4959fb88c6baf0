//! The index: from the hash of a page's content to where that content is.
//!
//! ```text
//!   (nothing) ── hash seen once ──► Candidate ── seen elsewhere ──► Awaited ── content came ──► Frame
//!       ▲                              │ too old                       │ declined                 │ retired
//!       └──────────────────────────────┴───────────────────────────────┴──────────────────────────┘
//! ```
//!
//! Readers look up without the domain's lock; entries change under that lock only. Candidates, the only entries that cost the
//! store no frame, are bounded by generations: when the young ones reach half the limit, those of older generations go.
//!
//! No guard of the map leaves a function of this file: every value is copied out.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;

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

#[derive(Clone, Copy, Debug)]
struct Slot {
    entry: Entry,
    generation: u32,
}

/// Hash to [`Entry`].
#[derive(Debug, Default)]
pub(crate) struct Index {
    slots: DashMap<u64, Slot>,
    /// Candidates in all.
    candidates: AtomicUsize,
    /// Candidates of the current generation.
    young: AtomicUsize,
    generation: AtomicU32,
}

impl Index {
    /// What is known of a hash.
    pub(crate) fn get(&self, hash: u64) -> Option<Entry> {
        self.slots.get(&hash).map(|slot| slot.entry)
    }

    /// Candidates in all.
    pub(crate) fn candidates(&self) -> usize {
        self.candidates.load(Ordering::Relaxed)
    }

    /// Notes where a hash was seen (again, or first), within `limit` candidates in all.
    pub(crate) fn put_candidate(&self, hash: u64, vmm: VmmId, gfn: u32, limit: usize) {
        // Relaxed everywhere: writers hold the domain's lock, and readers only show the figures.
        if self.young.load(Ordering::Relaxed) >= (limit / 2).max(1) {
            self.age();
        }
        let generation = self.generation.load(Ordering::Relaxed);
        let previous = self.slots.insert(hash, Slot { entry: Entry::Candidate { vmm, gfn }, generation });
        self.forget_count(previous);
        self.candidates.fetch_add(1, Ordering::Relaxed);
        self.young.fetch_add(1, Ordering::Relaxed);
    }

    /// The content is in a frame, or on its way to one.
    pub(crate) fn put(&self, hash: u64, entry: Entry) {
        debug_assert!(!matches!(entry, Entry::Candidate { .. }), "candidates are counted: use put_candidate");
        self.forget_count(self.slots.insert(hash, Slot { entry, generation: 0 }));
    }

    /// Forgets a hash if this is what is known of it.
    pub(crate) fn remove(&self, hash: u64, entry: Entry) {
        if let MapEntry::Occupied(slot) = self.slots.entry(hash)
            && slot.get().entry == entry
        {
            let removed = slot.remove();
            self.forget_count(Some(removed));
        }
    }

    /// Starts a generation; candidates not seen since the last start go.
    fn age(&self) {
        let current = self.generation.load(Ordering::Relaxed);
        self.slots.retain(|_, slot| !matches!(slot.entry, Entry::Candidate { .. }) || slot.generation == current);
        self.candidates.store(self.young.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        self.generation.store(current.wrapping_add(1), Ordering::Relaxed);
    }

    fn forget_count(&self, slot: Option<Slot>) {
        if let Some(Slot { entry: Entry::Candidate { .. }, generation }) = slot {
            self.candidates.fetch_sub(1, Ordering::Relaxed);
            if generation == self.generation.load(Ordering::Relaxed) {
                self.young.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VMM: VmmId = VmmId(1);

    #[test]
    fn candidates_stay_within_their_limit_and_the_oldest_go_first() {
        let index = Index::default();
        index.put(1 << 32, Entry::Frame(9));
        for hash in 0..1000 {
            index.put_candidate(hash, VMM, hash as u32, 100);
            assert!(index.candidates() <= 100);
            assert_eq!(index.candidates(), index.slots.len() - 1);
        }
        assert_eq!(index.get(0), None);
        assert_eq!(index.get(999), Some(Entry::Candidate { vmm: VMM, gfn: 999 }));
        assert_eq!(index.get(1 << 32), Some(Entry::Frame(9)), "frames do not age");
    }

    #[test]
    fn a_candidate_seen_again_is_young_again() {
        let index = Index::default();
        for hash in 1..1000 {
            index.put_candidate(0, VMM, 0, 20);
            index.put_candidate(hash, VMM, 1, 20);
        }
        assert_eq!(index.get(0), Some(Entry::Candidate { vmm: VMM, gfn: 0 }));
    }

    #[test]
    fn only_the_entry_that_is_meant_is_removed() {
        let index = Index::default();
        index.put(7, Entry::Frame(1));
        index.remove(7, Entry::Frame(2));
        assert_eq!(index.get(7), Some(Entry::Frame(1)));
        index.remove(7, Entry::Frame(1));
        assert_eq!(index.get(7), None);
    }
}
