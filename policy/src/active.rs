//! How much of its memory a guest really uses, estimated without its help (Waldspurger, OSDI 2002, section
//! 5.3).
//!
//! Each *period*, a hundred pages chosen at random are invalidated, so that the next access to each faults
//! once. The share of them that was touched by the end of the period estimates the share of all memory that
//! is active. One period's figure is coarse: with a hundred pages its standard deviation is up to five
//! points. So three averages are kept:
//!
//! ```text
//!   period ends        slow    += 1/4 × (touched / sampled − slow)    steady
//!                      fast    += 1/2 × (touched / sampled − fast)    follows a change within two periods
//!   within a period    current  = fast, as if the period ended now    sees early that a guest wakes up
//!
//!   estimate = max(slow, fast, current)
//! ```
//!
//! What policy goes by follows the estimate only as far as this leaves a band around it, as wide as the error
//! of the averages: entitlements that followed every sample would move memory back and forth for nothing.
//!
//! That holds for guests that wait. One that does not is not harmed if it is believed to use less than it
//! does: it waits, and is believed again. So the less it waits, the more its last period counts alone, with
//! the one under way ([`Estimator::recent_ratio`]): demand that has gone is seen in one period, not in ten.
//!
//! A guest that waits for memory touches less than it would: one that is thrashing looks idle, and would be
//! taken for that. So what it touched is taken for what it would have touched in the whole of its time
//! ([`Sample::unhindered`]).
//!
//! The maximum answers growth fast and shrinking slowly: memory taken too early costs faults, memory taken
//! late costs nothing yet.

use crate::state::HostState;

/// Pages invalidated a period: bounds what sampling costs a guest to as many faults.
pub const SAMPLE_PAGES: u32 = 100;
/// Weight of the last period in the slow average.
const SLOW: f64 = 0.25;
/// Weight of the last period in the fast average.
const FAST: f64 = 0.5;
/// What policy goes by is at most so far from the estimate: one and a half standard deviations of the slow
/// average. Of guests that use a third of their memory, it moves by 0.2 points a period; if it took over each
/// estimate that is further away, by 0.8.
const DEAD_BAND: f64 = 0.03;
/// What a single period may have missed, in standard deviations: one period of forty has missed more.
const MISSED: f64 = 2.0;
/// A period under pressure is this much shorter than one without.
const PRESSED_DIVISOR: u64 = 5;
/// Shortest period under pressure, ms: a hundred faults of 65 µs are 0.2 % of it, less than what counts as
/// waiting for memory.
const PERIOD_MS_MIN: u64 = 3_000;

/// Length of a guest's sampling period, ms, when the host is in `state` and the period at rest is
/// `period_ms`.
pub fn period_ms(period_ms: u64, state: HostState) -> u64 {
    match state {
        HostState::High => period_ms,
        HostState::Soft | HostState::Hard | HostState::Low => {
            (period_ms / PRESSED_DIVISOR).max(PERIOD_MS_MIN.min(period_ms))
        }
    }
}

/// What a VMM found when it looked at its sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Pages invalidated.
    pub sampled: u32,
    /// Part of them that was touched since.
    pub touched: u32,
}

/// Waiting counts up to this share of the time: of one that did nothing else, nothing can be said.
const WAITING_MAX: f64 = 0.95;

impl Sample {
    /// What a guest would have touched that has waited for memory for this share of its time. Accesses come
    /// at random, so that a page is missed with probability `exp(-rate × time)`: with `1 / (1 − waiting)`
    /// times the time, that to this power.
    pub fn unhindered(self, waiting: f64) -> Sample {
        let Some(ratio) = self.ratio() else { return self };
        let waiting = if waiting.is_nan() { 0.0 } else { waiting.clamp(0.0, WAITING_MAX) };
        let touched = 1.0 - (1.0 - ratio).powf(1.0 / (1.0 - waiting));
        Sample { touched: (touched * f64::from(self.sampled)).round() as u32, ..self }
    }

    /// Share that was touched; none of a sample that is empty. More touched than sampled is all of them.
    fn ratio(self) -> Option<f64> {
        (self.sampled > 0).then(|| f64::from(self.touched.min(self.sampled)) / f64::from(self.sampled))
    }
}

/// One guest's averages.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimator {
    /// Slow and fast average; none before the first period has ended.
    averages: Option<(f64, f64)>,
    current: Option<f64>,
    /// Of the last period and the one under way, the larger; with what may have been missed.
    recent: Option<f64>,
    settled: Option<f64>,
}

impl Estimator {
    /// A period has ended with this.
    pub fn end_period(&mut self, sample: Sample) {
        let Some(ratio) = sample.ratio() else { return };
        let (slow, fast) = self.averages.unwrap_or((ratio, ratio));
        self.averages = Some((slow + SLOW * (ratio - slow), fast + FAST * (ratio - fast)));
        self.current = None;
        let missed = MISSED * (ratio * (1.0 - ratio) / f64::from(sample.sampled)).sqrt();
        self.recent = Some(ratio + missed);
        self.settle();
    }

    /// The period under way has come to this.
    pub fn look(&mut self, sample: Sample) {
        let Some(ratio) = sample.ratio() else { return };
        self.current = self.averages.map(|(_, fast)| fast + FAST * (ratio - fast));
        self.recent = self.recent.map(|recent| recent.max(ratio));
        self.settle();
    }

    /// Share of the guest's memory that is active, 0 to 1, as policy goes by it; none before the first period
    /// has ended.
    pub fn ratio(&self) -> Option<f64> {
        self.settled
    }

    /// What of that the guest has used lately, 0 to 1: for a guest that does not wait for memory.
    pub fn recent_ratio(&self) -> Option<f64> {
        self.settled.zip(self.recent).map(|(settled, recent)| settled.min(recent))
    }

    fn settle(&mut self) {
        let settle = |estimate: f64| self.settled.unwrap_or(estimate).clamp(estimate - DEAD_BAND, estimate + DEAD_BAND);
        self.settled = self.estimate().map(settle);
    }

    fn estimate(&self) -> Option<f64> {
        let (slow, fast) = self.averages?;
        Some(slow.max(fast).max(self.current.unwrap_or(0.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn period(touched: u32) -> Sample {
        Sample { sampled: SAMPLE_PAGES, touched }
    }

    #[test]
    fn nothing_is_known_before_the_first_period_has_ended() {
        let mut estimator = Estimator::default();
        estimator.look(period(50));
        assert_eq!(estimator.ratio(), None);
        estimator.end_period(period(50));
        assert_eq!(estimator.ratio(), Some(0.5));
    }

    #[test]
    fn a_guest_that_wakes_up_is_seen_within_the_period_and_one_that_falls_asleep_after_some() {
        let mut estimator = Estimator::default();
        estimator.end_period(period(10));
        estimator.look(period(90));
        assert_eq!(estimator.ratio(), Some(0.47));
        estimator.end_period(period(90));
        estimator.end_period(period(90));
        assert!(estimator.ratio().is_some_and(|ratio| ratio > 0.65), "{estimator:?}");
        estimator.end_period(period(0));
        assert!(estimator.ratio().is_some_and(|ratio| ratio > 0.3), "{estimator:?}");
        (0..30).for_each(|_| estimator.end_period(period(0)));
        assert!(estimator.ratio().is_some_and(|ratio| ratio < 0.05), "{estimator:?}");
    }

    #[test]
    fn an_empty_sample_says_nothing_and_a_lie_no_more_than_everything() {
        let mut estimator = Estimator::default();
        estimator.end_period(Sample::default());
        assert_eq!(estimator.ratio(), None);
        estimator.end_period(Sample { sampled: 100, touched: u32::MAX });
        assert_eq!(estimator.ratio(), Some(1.0));
    }

    #[test]
    fn demand_that_has_gone_is_seen_in_one_period_and_demand_that_comes_within_it() {
        let mut estimator = Estimator::default();
        (0..10).for_each(|_| estimator.end_period(period(90)));
        estimator.end_period(period(10));
        let recent = estimator.recent_ratio().unwrap();
        assert!((0.1..0.2).contains(&recent) && estimator.ratio() > Some(0.6), "{estimator:?}");
        estimator.look(period(50));
        assert_eq!(estimator.recent_ratio(), Some(0.5));
    }

    #[test]
    fn a_guest_that_waits_half_of_its_time_would_have_touched_more() {
        let touched = |touched, waiting| period(touched).unhindered(waiting).touched;
        assert_eq!([touched(0, 0.9), touched(20, 0.0), touched(20, 0.5), touched(20, 0.9)], [0, 20, 36, 89]);
        assert_eq!([touched(20, f64::NAN), touched(20, -1.0), touched(100, 5.0)], [20, 20, 100]);
        assert_eq!(Sample::default().unhindered(0.5), Sample::default());
    }

    #[test]
    fn pressure_shortens_the_period_but_not_beyond_reason() {
        assert_eq!(period_ms(30_000, HostState::High), 30_000);
        assert_eq!(period_ms(30_000, HostState::Hard), 6_000);
        assert_eq!(period_ms(4_000, HostState::Low), 3_000);
        assert_eq!(period_ms(500, HostState::Low), 500);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The figure that sampling is judged by: within ten points of the truth for nine estimates of ten,
        /// whatever the truth.
        #[test]
        fn nine_estimates_of_ten_are_within_ten_points(truth in 0.0f64..=1.0, seed: u64) {
            let mut random = seed | 1;
            let mut draw = || {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                (random >> 11) as f64 / (1u64 << 53) as f64
            };
            let mut estimator = Estimator::default();
            let mut errors: Vec<f64> = (0..200).map(|_| {
                estimator.end_period(period((0..SAMPLE_PAGES).filter(|_| draw() < truth).count() as u32));
                (estimator.ratio().unwrap_or(f64::NAN) - truth).abs()
            }).collect();
            errors.sort_by(f64::total_cmp);
            prop_assert!(errors[179] <= 0.10, "p90 {}", errors[179]);
        }
    }
}
