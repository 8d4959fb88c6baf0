//! A count for each of many things, most of them small: a byte each, and a map for those that are large.
//!
//! ```text
//!   byte          0 1 2 ... 254        the count, changed without a lock
//!                 255                  the count is in the map, which is changed under its lock
//! ```
//!
//! A byte goes to 255 and leaves it under the map's lock only. So who finds it there and takes the lock finds
//! the entry, or a small count.
//!
//! **Invariant:** a byte is zero exactly when its count is. Every change and every look is sequentially
//! consistent, as the handshake of [`super::references`] needs it. A change of a count that stays in the map
//! does not touch the byte; but it was made after the byte was seen at 255, and before it can leave that.

use std::collections::BTreeMap;

use crate::sync::{AtomicU8, Mutex, Ordering, lock, zeroed_u8s};

/// The byte of a count that is in the map: few things are shared as often. In the model two, so that races go
/// through the map.
const LARGE: u8 = if cfg!(test) { 2 } else { u8::MAX };

/// The counts.
pub(crate) struct Counts {
    bytes: Box<[AtomicU8]>,
    /// Counts of `LARGE` and more: fewer than all references together divided by that. Removing allocates
    /// nothing, as the fault thread may not.
    large: Mutex<BTreeMap<usize, u32>>,
}

impl Counts {
    /// What a count costs, if it is small.
    pub const BYTES_EACH: usize = size_of::<u8>();

    /// So many zeros.
    pub fn new(count: u32) -> Counts {
        Counts { bytes: zeroed_u8s(count), large: Mutex::default() }
    }

    /// Counts there are.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Counts one more; what the count was.
    pub fn add(&self, at: usize) -> u32 {
        let byte = &self.bytes[at];
        let small = |count: u8| (count < LARGE - 1).then_some(count + 1);
        // SeqCst, all of them: see the module's doc.
        if let Ok(before) = byte.fetch_update(Ordering::SeqCst, Ordering::SeqCst, small) {
            return u32::from(before);
        }
        let mut large = lock(&self.large);
        let up_to_large = |count: u8| (count < LARGE).then_some(count + 1);
        match byte.fetch_update(Ordering::SeqCst, Ordering::SeqCst, up_to_large) {
            Ok(before) => {
                if before == LARGE - 1 {
                    large.insert(at, u32::from(LARGE));
                }
                u32::from(before)
            }
            Err(_) => {
                let count = large.get_mut(&at).expect("a byte at its end has an entry");
                *count += 1;
                *count - 1
            }
        }
    }

    /// Counts one less; what the count was.
    ///
    /// # Panics
    /// If it was zero. A page then shows a frame that the host may have been told nobody needs: its guest is
    /// ended, see [`crate::Failure::Panicked`].
    pub fn remove(&self, at: usize) -> u32 {
        let byte = &self.bytes[at];
        let one_less =
            |count: u8| count.checked_sub(1).unwrap_or_else(|| panic!("{at} is given back by more than took it"));
        let small = |count: u8| (count < LARGE).then(|| one_less(count));
        if let Ok(before) = byte.fetch_update(Ordering::SeqCst, Ordering::SeqCst, small) {
            return u32::from(before);
        }
        let mut large = lock(&self.large);
        if let Ok(before) = byte.fetch_update(Ordering::SeqCst, Ordering::SeqCst, small) {
            return u32::from(before);
        }
        let count = large.get_mut(&at).expect("a byte at its end has an entry");
        let before = *count;
        *count -= 1;
        if before == u32::from(LARGE) {
            large.remove(&at);
            byte.store(LARGE - 1, Ordering::SeqCst);
        }
        before
    }

    /// Whether a count is above zero; false for one that does not exist.
    pub fn any(&self, at: usize) -> bool {
        self.bytes.get(at).is_some_and(|byte| byte.load(Ordering::SeqCst) > 0)
    }

    /// Whether a count is one.
    pub fn is_one(&self, at: usize) -> bool {
        self.bytes[at].load(Ordering::SeqCst) == 1
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sync::run_once;

    #[test]
    fn a_count_goes_through_the_map_and_back() {
        run_once(|| {
            let counts = Counts::new(3);
            assert_eq!((0..5).map(|_| counts.add(1)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
            assert!(counts.any(1) && !counts.any(0) && !counts.any(2) && !counts.any(3));
            assert_eq!((0..4).map(|_| counts.remove(1)).collect::<Vec<_>>(), [5, 4, 3, 2]);
            assert!(counts.is_one(1) && lock(&counts.large).is_empty());
            assert_eq!((counts.remove(1), counts.any(1)), (1, false));
        });
    }

    #[test]
    #[should_panic(expected = "2 is given back by more than took it")]
    fn a_count_does_not_go_below_zero() {
        run_once(|| {
            let counts = Counts::new(3);
            counts.add(2);
            counts.remove(2);
            counts.remove(2);
        });
    }

    #[test]
    fn a_count_is_never_seen_as_zero_while_somebody_counts_and_nothing_is_lost() {
        shuttle::check_random(
            || {
                let counts = Arc::new(Counts::new(1));
                let threads: Vec<_> = (0..3)
                    .map(|_| {
                        let counts = Arc::clone(&counts);
                        shuttle::thread::spawn(move || {
                            for _ in 0..2 {
                                counts.add(0);
                                assert!(counts.any(0));
                                counts.add(0);
                                assert!(counts.any(0));
                                counts.remove(0);
                                assert!(counts.any(0));
                                counts.remove(0);
                            }
                            counts.add(0);
                        })
                    })
                    .collect();
                threads.into_iter().for_each(|thread| thread.join().expect("no thread panicked"));
                assert_eq!((0..3).map(|_| counts.remove(0)).collect::<Vec<_>>(), [3, 2, 1]);
                assert!(!counts.any(0) && lock(&counts.large).is_empty());
            },
            5_000,
        );
    }
}
