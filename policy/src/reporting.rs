//! When a guest's free pages are taken: at once while memory is wanted, late while there is plenty.
//!
//! A page that is reported, taken, and allocated again a moment later costs its guest a fault for nothing.
//! Always eager has been seen to cost an allocate/free loop 40 %, always lazy leaves gigabytes unused for ten
//! seconds. So the delay between two reports follows two things: how short the host is, and how many of the
//! pages taken came back soon.
//!
//! ```text
//!   high: 2 s      soft: 200 ms      hard, low: 20 ms
//!   × 4 for each look that finds too many back, ÷ 4 for each that does not
//! ```

use crate::state::HostState;

/// Pages back soon, as a share of those taken, that make reporting lazier.
const BACK_TOO_OFTEN: f64 = 0.1;
/// Fewer pages than this say nothing.
const PAGES_MIN: u64 = 64;
/// Pages that are risked on a guest of which it is not known, or known too well, what becomes of them: 2 MiB,
/// some 50 ms of faults.
const SAMPLE_PAGES: u32 = 512;
/// So many looks in a row are believed: one alone may fall into a pause of a loop.
const GOOD_MIN: u32 = 3;
/// Longest delay, ms: taking 16 MiB that come back costs a guest a third of a second of faults, on a nested
/// host.
const DELAY_MS_MAX: u64 = 60_000;
/// How often a delay is multiplied at most: from the shortest to the longest.
const PATIENCE_MAX: u32 = 6;

/// The delay by need alone, ms.
fn delay_ms(state: HostState) -> u64 {
    match state {
        HostState::High => 2_000,
        HostState::Soft => 200,
        HostState::Hard | HostState::Low => 20,
    }
}

/// One guest's reporting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reporting {
    patience: u32,
    /// Looks in a row at what has stayed away.
    good: u32,
}

impl Reporting {
    /// Since the last look, so many pages were taken as reported free, and so many of those taken were
    /// touched again soon.
    pub fn look(&mut self, taken: u64, back: u64) {
        if taken < PAGES_MIN {
            return;
        }
        let too_often = back as f64 > taken as f64 * BACK_TOO_OFTEN;
        self.good = if too_often { 0 } else { self.good.saturating_add(1) };
        self.patience = if too_often { (self.patience + 1).min(PATIENCE_MAX) } else { self.patience.saturating_sub(1) };
    }

    /// How many pages to take at a time: a sample, until what was taken has stayed away.
    pub fn pages_max(&self) -> u32 {
        if self.good >= GOOD_MIN { u32::MAX } else { SAMPLE_PAGES }
    }

    /// How long to leave free pages alone, ms.
    pub fn delay_ms(&self, state: HostState) -> u64 {
        (delay_ms(state) << (2 * self.patience)).min(DELAY_MS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_the_host_the_sooner_free_pages_go() {
        let reporting = Reporting::default();
        assert_eq!(HostState::ALL.map(|state| reporting.delay_ms(state)), [2_000, 200, 20, 20]);
    }

    /// Faults of 65 µs against the time in which a loop allocates and frees the same pages again: less than 5
    /// % is lost.
    #[test]
    fn a_loop_that_allocates_and_frees_soon_keeps_its_pages() {
        const FAULT_S: f64 = 65e-6;
        let (pages, loop_s) = (2048.0, 0.05);
        for state in HostState::ALL {
            let mut reporting = Reporting::default();
            let (mut worked_s, mut lost_s) = (0.0, 0.0);
            while worked_s < 120.0 {
                let delay_s = reporting.delay_ms(state) as f64 / 1e3;
                // One report takes all that is free then, and the loop wants it back at once.
                worked_s += delay_s.max(loop_s);
                lost_s += pages * FAULT_S;
                reporting.look(pages as u64, pages as u64);
            }
            assert!(lost_s / worked_s < 0.05, "{state}: {lost_s} of {worked_s} s");
        }
    }

    #[test]
    fn pages_that_stay_away_make_reporting_eager_again() {
        let mut reporting = Reporting::default();
        (0..50).for_each(|_| reporting.look(1000, 900));
        assert_eq!(reporting.delay_ms(HostState::Hard), DELAY_MS_MAX);
        reporting.look(10, 10);
        assert_eq!(reporting.pages_max(), SAMPLE_PAGES);
        (0..20).for_each(|_| reporting.look(1000, 10));
        assert_eq!((reporting.delay_ms(HostState::Hard), reporting.pages_max()), (20, u32::MAX));
    }
}
