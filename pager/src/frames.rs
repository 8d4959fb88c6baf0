//! Which frames of the store this guest holds.
//!
//! A count a frame, of the guest's pages that share it. Adopting a frame is a handshake with whoever may be retiring it
//! (the host clears the published bit, then asks; see `control::merge`):
//!
//! ```text
//!   adopter here                     host, and our answer to it
//!   count += 1            (SeqCst)   published bit := 0
//!   published?            (SeqCst)   ask us -> count == 0 ?      (SeqCst)
//!     no: count -= 1, do not adopt      yes: "not held", and the hole is punched
//! ```
//!
//! In every interleaving either the adopter sees the cleared bit or the answer sees the count.

use crate::{
    sync::{AtomicBool, AtomicU32, AtomicU64, Ordering, zeroed_u32s, zeroed_u64s},
    units::Frame,
};

/// Counts, and which of them went from or to zero since the host was last told.
pub struct References {
    counts: Box<[AtomicU32]>,
    changed: Box<[AtomicU64]>,
    /// Whether there may be a bit in `changed`, so that nobody looks through all of it for nothing.
    any_changed: AtomicBool,
    /// What the host was last told; only [`References::take_changes`] writes it.
    told: Box<[AtomicU64]>,
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
        }
    }

    /// Frames there are.
    pub fn count(&self) -> u32 {
        self.counts.len() as u32
    }

    /// Counts one more page that shares `frame`.
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

    /// Whether any page shares `frame`; false for a frame that does not exist.
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
