//! Which frames of the store this guest holds.
//!
//! A count a frame, of the guest's pages that share it or are patches of it. Adopting a frame is a handshake
//! with whoever may be retiring it (the host clears the published bit, then asks; see `control::merge`):
//!
//! ```text
//!   adopter here                     host, and our answer to it
//!   count += 1            (SeqCst)   published bit := 0
//!   published?            (SeqCst)   ask us -> count == 0 ?      (SeqCst)
//!     no: count -= 1, do not adopt      yes: "not held", and the hole is punched
//! ```
//!
//! In every interleaving either the adopter sees the cleared bit or the answer sees the count.
//!
//! That is the scanner's way, which also gives the answers, so that a reference it takes back was never
//! spoken of. Others adopt, or read a frame for a moment, in a *silence*, in which no question is answered:
//!
//! ```text
//!   silence { published? count += 1 }          silence { published? read the frame }
//! ```
//!
//! A frame that is published in a silence stays what it is to its end: the host cannot have our answer to a
//! question it asked before.
//!
//! The host is told of pages that share a frame only. So it asks about a frame that nobody shares any more,
//! although patches need it, and learns that it is held. One that a single patch needs is *lonely* then: it
//! costs a page for less than one, and the patch is to be undone.
//!
//! **Invariant:** whatever the host was answered or told is taken back by a later report when it is so no
//! more.

use wire::Frame;

use super::counts::Counts;
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, lock, zeroed_u64s};

/// Counts, and which of them went from or to zero since the host was last told.
pub struct References {
    sharers: Counts,
    patches: Counts,
    lonely: Box<[AtomicU64]>,
    any_lonely: AtomicBool,
    changed: Box<[AtomicU64]>,
    /// Whether there may be a bit in `changed`, so that nobody looks through all of it for nothing.
    any_changed: AtomicBool,
    /// What the host was last told or answered; only the thread that speaks to the host writes it.
    told: Box<[AtomicU64]>,
    silence: Mutex<()>,
}

fn bit(frame: Frame) -> (usize, u64) {
    (frame.index() / 64, 1 << (frame.0 % 64))
}

impl References {
    /// What a frame costs, at most: two counts, and three bits.
    pub const BYTES_PER_FRAME: usize = 2 * Counts::BYTES_EACH + 1;

    /// No references to any of `frames` frames.
    pub fn new(frames: u32) -> References {
        References {
            sharers: Counts::new(frames),
            patches: Counts::new(frames),
            lonely: zeroed_u64s(frames.div_ceil(64)),
            any_lonely: AtomicBool::new(false),
            changed: zeroed_u64s(frames.div_ceil(64)),
            told: zeroed_u64s(frames.div_ceil(64)),
            any_changed: AtomicBool::new(false),
            silence: Mutex::new(()),
        }
    }

    /// Frames there are.
    pub fn count(&self) -> u32 {
        self.sharers.len() as u32
    }

    /// No question of the host is answered while this is kept. Not for long, and not while touching guest
    /// memory.
    pub(crate) fn silence(&self) -> MutexGuard<'_, ()> {
        lock(&self.silence)
    }

    /// Answers the host's question whether any page needs `frame`. For the thread that tells the host of
    /// changes.
    pub fn answer(&self, frame: Frame) -> bool {
        let _silence = self.silence();
        let held = self.holds(frame);
        if held {
            // The host knows from now on, perhaps before it was told; if it is over before it would have been
            // told, it still has to hear of that.
            let (word, bit) = bit(frame);
            self.told[word].fetch_or(bit, Ordering::Relaxed);
            if !self.is_shared(frame) && self.patches.is_one(frame.index()) {
                self.lonely[word].fetch_or(bit, Ordering::Relaxed);
                // Release: pairs with the swap in `take_lonely`, which then finds the bit.
                self.any_lonely.store(true, Ordering::Release);
            }
        }
        held
    }

    /// Up to 64 frames, in one place, that were lonely when the host asked about them last; none twice. For
    /// one thread at a time.
    pub(crate) fn take_lonely(&self) -> Vec<Frame> {
        // Acquire: pairs with `answer`. What is marked from here on sets it again.
        if !self.any_lonely.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        let Some(word) = self.lonely.iter().position(|word| word.load(Ordering::Relaxed) != 0) else {
            return Vec::new();
        };
        self.any_lonely.store(true, Ordering::Relaxed);
        let bits = self.lonely[word].swap(0, Ordering::Relaxed);
        (0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit| Frame(word as u32 * 64 + bit)).collect()
    }

    /// Counts one more patch of `frame`.
    pub(crate) fn add_patch(&self, frame: Frame) {
        self.patches.add(frame.index());
    }

    /// Counts one patch less.
    pub(crate) fn remove_patch(&self, frame: Frame) {
        if self.patches.remove(frame.index()) <= 2 {
            // With the last one the host may have the frame back; with the last but one it is to ask again
            // whether it is lonely.
            self.mark(frame);
        }
    }

    /// Counts one more page that shares `frame`.
    pub(crate) fn add(&self, frame: Frame) {
        if self.sharers.add(frame.index()) == 0 {
            self.mark(frame);
        }
    }

    /// Counts one page less.
    pub(crate) fn remove(&self, frame: Frame) {
        // Whatever the page's mapping did to the frame is over before the host can hear of it.
        if self.sharers.remove(frame.index()) == 1 {
            self.mark(frame);
        }
    }

    fn mark(&self, frame: Frame) {
        let (word, bit) = bit(frame);
        // Release: pairs with the swap in `take_changes`, which then reads a count at least this new.
        self.changed[word].fetch_or(bit, Ordering::Release);
        // Release: whoever sees it finds the bit.
        self.any_changed.store(true, Ordering::Release);
    }

    /// Whether any page needs `frame`; false for a frame that does not exist.
    pub fn holds(&self, frame: Frame) -> bool {
        self.is_shared(frame) || self.patches.any(frame.index())
    }

    fn is_shared(&self, frame: Frame) -> bool {
        self.sharers.any(frame.index())
    }

    /// Reports up to `most` frames that pages share and did not when last reported, or the other way round.
    /// For one thread at a time: the one that tells the host.
    pub fn take_changes(&self, most: usize, report: &mut dyn FnMut(Frame, bool)) {
        // Acquire: pairs with `mark`. What is marked from here on sets it again.
        if !self.any_changed.swap(false, Ordering::Acquire) {
            return;
        }
        let mut left = most;
        for (index, word) in self.changed.iter().enumerate() {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            if left < 64 {
                self.any_changed.store(true, Ordering::Relaxed);
                return;
            }
            let mut bits = word.swap(0, Ordering::Acquire);
            while bits != 0 {
                let bit = bits & bits.wrapping_neg();
                bits ^= bit;
                let frame = Frame(index as u32 * 64 + bit.trailing_zeros());
                let held = self.is_shared(frame);
                let told = &self.told[index];
                if (told.load(Ordering::Relaxed) & bit != 0) != held {
                    told.fetch_xor(bit, Ordering::Relaxed);
                    report(frame, held);
                    left -= 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::run_once;

    #[test]
    fn a_hold_that_was_answered_and_ended_before_it_was_reported_is_taken_back() {
        run_once(|| {
            let references = References::new(70);
            references.add(Frame(65));
            assert!(references.answer(Frame(65)) && !references.answer(Frame(64)) && !references.answer(Frame(70)));
            references.remove(Frame(65));
            let mut reports = Vec::new();
            references.take_changes(64, &mut |frame, held| reports.push((frame, held)));
            assert_eq!(reports, [(Frame(65), false)]);
        });
    }

    #[test]
    fn the_host_is_told_of_sharers_answered_about_patches_and_asks_again_about_the_last_patch() {
        run_once(|| {
            let references = References::new(70);
            let told = |expected: &[bool]| {
                let mut reports = Vec::new();
                references.take_changes(64, &mut |_, held| reports.push(held));
                assert_eq!(reports, expected);
            };
            references.add(Frame(65));
            told(&[true]);
            references.add_patch(Frame(65));
            references.add_patch(Frame(65));
            told(&[]);
            references.remove(Frame(65));
            told(&[false]);
            assert!(references.answer(Frame(65)));
            assert_eq!(references.take_lonely(), [], "two patches are worth it");
            references.remove_patch(Frame(65));
            told(&[false]);
            assert!(references.answer(Frame(65)));
            assert_eq!((references.take_lonely(), references.take_lonely()), (vec![Frame(65)], vec![]));
            references.remove_patch(Frame(65));
            told(&[false]);
            assert!(!references.answer(Frame(65)));
        });
    }
}
