//! Which frames of the store this guest holds.
//!
//! A count a frame, of the guest's pages that share it or are patches of it. Adopting a frame is a handshake with whoever may be retiring
//! it (the host clears the published bit, then asks; see `control::merge`):
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
//! That is the scanner's way, which also gives the answers, so that a reference it takes back was never spoken of. Others adopt, or read a frame
//! for a moment, in a *silence*, in which no question is answered:
//!
//! ```text
//!   silence { published? count += 1 }          silence { published? read the frame }
//! ```
//!
//! A frame that is published in a silence stays what it is to its end: the host cannot have our answer to a question it asked before.
//!
//! **Invariant:** whatever the host was answered or told is taken back by a later report when it is so no more.

use crate::{
    sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, lock, zeroed_u32s, zeroed_u64s},
    units::Frame,
};

/// Counts, and which of them went from or to zero since the host was last told.
pub struct References {
    counts: Box<[AtomicU32]>,
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
    /// No references to any of `frames` frames.
    pub fn new(frames: u32) -> References {
        References {
            counts: zeroed_u32s(frames),
            changed: zeroed_u64s(frames.div_ceil(64)),
            told: zeroed_u64s(frames.div_ceil(64)),
            any_changed: AtomicBool::new(false),
            silence: Mutex::new(()),
        }
    }

    /// Frames there are.
    pub fn count(&self) -> u32 {
        self.counts.len() as u32
    }

    /// No question of the host is answered while this is kept. Not for long, and not while touching guest memory.
    pub(crate) fn silence(&self) -> MutexGuard<'_, ()> {
        lock(&self.silence)
    }

    /// Answers the host's question whether any page needs `frame`. For the thread that tells the host of changes.
    pub fn answer(&self, frame: Frame) -> bool {
        let _silence = self.silence();
        let held = self.holds(frame);
        if held {
            // The host knows from now on, perhaps before it was told; if it is over before it would have been told, it still has to hear of that.
            let (word, bit) = bit(frame);
            self.told[word].fetch_or(bit, Ordering::Relaxed);
        }
        held
    }

    /// Counts one more page that needs `frame`.
    pub(crate) fn add(&self, frame: Frame) {
        // SeqCst: see the module's picture.
        if self.counts[frame.index()].fetch_add(1, Ordering::SeqCst) == 0 {
            self.mark(frame);
        }
    }

    /// Counts one page less.
    pub(crate) fn remove(&self, frame: Frame) {
        // SeqCst: whatever the page's mapping did to the frame is over before the host can hear of it.
        if self.counts[frame.index()].fetch_sub(1, Ordering::SeqCst) == 1 {
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
        self.counts.get(frame.index()).is_some_and(|count| count.load(Ordering::SeqCst) > 0)
    }

    /// Reports up to `most` frames that are held and were not when last reported, or the other way round.
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
                let held = self.holds(frame);
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

    #[test]
    fn a_hold_that_was_answered_and_ended_before_it_was_reported_is_taken_back() {
        shuttle::check_random(
            || {
                let references = References::new(70);
                references.add(Frame(65));
                assert!(references.answer(Frame(65)) && !references.answer(Frame(64)) && !references.answer(Frame(70)));
                references.remove(Frame(65));
                let mut reports = Vec::new();
                references.take_changes(64, &mut |frame, held| reports.push((frame, held)));
                assert_eq!(reports, [(Frame(65), false)]);
            },
            1,
        );
    }
}
