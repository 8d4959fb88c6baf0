//! Which of the pages that a guest reports free are taken: those that come when the host wants them.
//!
//! ```text
//!   report ──► open? ──yes──► taken: nothing is behind the pages any more
//!                └────no────► left:  acknowledged, and the pages stay as they are
//!
//!   open     for BURST from the first report that is taken, or for so many pages; then not before the delay
//!            has passed since that report
//! ```
//!
//! A report is leave to take pages, not a duty (VIRTIO 1.3, 5.5.6.7), and it is answered at once either way.
//! A guest cannot use pages while their report is open, and one that is short of memory must not wait for
//! that. What was left is not reported again before the guest has used it. Memory that is left is not out of
//! reach: a host that grows short asks which pages are free *now* (hinting). Those go, whenever they were
//! reported.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Reports that belong together: what a driver names in one go, range after range.
const BURST_MS: u64 = 100;
/// A delay that never ends.
pub const NEVER: u64 = u64::MAX;

/// See the module's description. Orders may come from any thread, reports come from one.
#[derive(Debug)]
pub struct ReportPace {
    delay_ms: AtomicU64,
    pages_max: AtomicU32,
    /// Pages of the burst under way.
    burst_pages: AtomicU32,
    /// When the last burst began, plus 1; 0 before the first.
    opened_ms: AtomicU64,
    left_pages: AtomicU64,
}

impl Default for ReportPace {
    /// One that takes everything.
    fn default() -> Self {
        ReportPace {
            delay_ms: AtomicU64::new(0),
            pages_max: AtomicU32::new(u32::MAX),
            burst_pages: AtomicU32::new(0),
            opened_ms: AtomicU64::new(0),
            left_pages: AtomicU64::new(0),
        }
    }
}

impl ReportPace {
    /// Between the beginnings of two bursts there are at least so many ms from now on, and a burst takes so
    /// many pages. A delay of 0 takes everything.
    pub fn set(&self, delay_ms: u64, pages_max: u32) {
        // Relaxed, here and below: a report that comes at the same moment may go by either.
        self.delay_ms.store(delay_ms, Ordering::Relaxed);
        self.pages_max.store(pages_max, Ordering::Relaxed);
    }

    /// In force, ms.
    pub fn delay_ms(&self) -> u64 {
        self.delay_ms.load(Ordering::Relaxed)
    }

    /// Pages that were reported and left, in all.
    pub fn left_pages(&self) -> u64 {
        self.left_pages.load(Ordering::Relaxed)
    }

    /// How many of these pages are to be taken, from the first on, reported at `now_ms` by a clock that does
    /// not go back.
    pub fn takes(&self, pages: u32, now_ms: u64) -> u32 {
        let delay_ms = self.delay_ms();
        let taken = match delay_ms {
            0 => pages,
            NEVER => 0,
            _ => self.of_burst(pages, delay_ms, now_ms),
        };
        self.left_pages.fetch_add(u64::from(pages - taken), Ordering::Relaxed);
        taken
    }

    fn of_burst(&self, pages: u32, delay_ms: u64, now_ms: u64) -> u32 {
        let opened_ms = self.opened_ms.load(Ordering::Relaxed);
        let since_ms = now_ms.saturating_add(1).saturating_sub(opened_ms);
        let so_far = match since_ms {
            _ if opened_ms == 0 || since_ms >= delay_ms => {
                self.opened_ms.store(now_ms.saturating_add(1), Ordering::Relaxed);
                0
            }
            since if since < BURST_MS => self.burst_pages.load(Ordering::Relaxed),
            _ => return 0,
        };
        let taken = pages.min(self.pages_max.load(Ordering::Relaxed).saturating_sub(so_far));
        self.burst_pages.store(so_far.saturating_add(taken), Ordering::Relaxed);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(pace: &ReportPace, times_ms: impl IntoIterator<Item = u64>) -> Vec<u64> {
        times_ms.into_iter().filter(|&now_ms| pace.takes(10, now_ms) == 10).collect()
    }

    #[test]
    fn what_is_reported_in_one_go_is_taken_and_then_nothing_until_the_delay_is_over() {
        let pace = ReportPace::default();
        pace.set(2_000, u32::MAX);
        assert_eq!(
            taken(&pace, [0, 10, 99, 100, 250, 1_999, 2_000, 2_050, 2_100, 4_000]),
            [0, 10, 99, 2_000, 2_050, 4_000]
        );
        assert_eq!(pace.left_pages(), 40);
    }

    #[test]
    fn a_shorter_delay_opens_at_once_and_none_takes_everything() {
        let pace = ReportPace::default();
        pace.set(10_000, u32::MAX);
        assert_eq!(taken(&pace, [0, 500, 1_000]), [0]);
        pace.set(20, u32::MAX);
        assert_eq!(taken(&pace, [1_001, 1_010, 1_021, 1_042]), [1_001, 1_010, 1_021, 1_042]);
        pace.set(0, u32::MAX);
        assert_eq!(taken(&pace, 2_000..2_100).len(), 100);
    }

    #[test]
    fn a_delay_without_end_takes_nothing_and_jumps_of_the_clock_break_nothing() {
        let pace = ReportPace::default();
        pace.set(NEVER, u32::MAX);
        assert!(taken(&pace, [0, u64::MAX]).is_empty());
        pace.set(1_000, u32::MAX);
        assert_eq!(taken(&pace, [5_000, 0, u64::MAX, 7]), [5_000, 0, u64::MAX, 7]);
    }

    #[test]
    fn a_burst_ends_with_its_pages() {
        let pace = ReportPace::default();
        pace.set(1_000, 25);
        assert_eq!([0, 1, 2, 50, 500, 1_000, 1_001].map(|now_ms| pace.takes(20, now_ms)), [20, 5, 0, 0, 0, 20, 5]);
        assert_eq!(pace.left_pages(), 15 + 60 + 15);
    }
}
