//! How fast to scan: effort follows profit.
//!
//! | the last pass found                                       | speed, as a share of one CPU              |
//! |-----------------------------------------------------------|-------------------------------------------|
//! | *progress*: pages seen, merged or sent for the first time | the cap                                   |
//! | pages merged again that their guest had broken            | the idle share                            |
//! | neither                                                   | the same, then a 128th, down to the floor |
//!
//! What breaks and is merged again gains memory for a while only, so it may cost no more than idling does. A
//! guest in which there is progress in mid-pass, or whose memory in use grows, is scanned at full speed again
//! at once.
//!
//! Pure: told the CPU time that was used, it says how long to pause.

use std::time::Duration;

/// Slowest speed, as a share of one CPU: what watching a guest in which nothing changes may cost. A pass over
/// 256 MiB that finds nothing new takes some 10 ms of CPU time, so it is spread over five minutes.
const FLOOR_SHARE: f64 = 0.00003;
/// Pauses shorter than this are saved up: a wake-up has its price too.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The same in a pass that gains nothing: a wake-up with cold caches costs as much as the batch it is for.
const IDLE_PAUSE_MIN: Duration = Duration::from_secs(1);
/// No pause is longer than this, so that speeding up does not have to wait for long.
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// Pages that make progress before a slow pass becomes a fast one.
const PROGRESS_MIN: u64 = 64;
/// Rest after a pass, doubled with each pass without progress up to [`PAUSE_MAX`]: a guest with next to
/// nothing private has passes that cost next to nothing, and would go round and round.
const REST_MIN: Duration = Duration::from_millis(10);
/// One private page in so many that makes progress is enough to go on at full speed.
const PROGRESS_ONE_IN: u64 = 64;
/// One in so many that is gained at all, to go on at the idle share.
const GAIN_ONE_IN: u64 = 1024;
/// How much slower each pass without progress is than the one before.
const SLOWER: u8 = 128;
/// Most of them that are counted.
const IDLE_MAX: u32 = 16;

/// What one pass found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PassFindings {
    /// Private pages visited.
    pub(crate) private: u64,
    /// Pages merged, dropped, sent to the store or seen that had not been merged before.
    pub(crate) progress: u64,
    /// Pages merged, dropped or sent that had been merged and broken before.
    pub(crate) regained: u64,
}

impl PassFindings {
    /// Counts a page that was merged, dropped or sent.
    pub(crate) fn gain(&mut self, was_broken: bool) {
        *(if was_broken { &mut self.regained } else { &mut self.progress }) += 1;
    }

    /// Whether anything was merged, dropped, sent or seen for the first time.
    pub(crate) fn gained(self) -> bool {
        self.progress + self.regained > 0
    }

    /// Whether there is so much progress that full speed pays.
    fn is_progress(self) -> bool {
        self.progress > 0 && self.progress * PROGRESS_ONE_IN >= self.private
    }

    /// Whether so much was gained, again or for the first time, that it is worth going on.
    fn is_gain(self) -> bool {
        let gained = self.progress + self.regained;
        gained > 0 && gained * GAIN_ONE_IN >= self.private
    }
}

/// The scanner's speed.
#[derive(Debug)]
pub(crate) struct Pace {
    cap_share: f64,
    idle_share: f64,
    idle_passes: u32,
    /// Private and shared pages at the end of the last pass.
    populated: u64,
    /// A pass has ended since the last batch was accounted for.
    between_passes: bool,
    debt: Duration,
}

impl Pace {
    /// At most `cap_share` of one CPU, and `idle_share` while there is nothing to gain.
    pub(crate) fn new(cap_share: f64, idle_share: f64) -> Self {
        let cap_share = cap_share.clamp(FLOOR_SHARE, 1.0);
        Self {
            cap_share,
            idle_share: idle_share.clamp(FLOOR_SHARE, cap_share),
            idle_passes: 0,
            populated: 0,
            between_passes: false,
            debt: Duration::ZERO,
        }
    }

    /// Share of one CPU that is used now.
    pub(crate) fn share(&self) -> f64 {
        match self.idle_passes {
            0 => self.cap_share,
            passes => (self.idle_share / f64::from(SLOWER).powi(passes as i32 - 1)).max(FLOOR_SHARE),
        }
    }

    /// Whether less than full speed pays.
    pub(crate) fn is_idle(&self) -> bool {
        self.idle_passes > 0
    }

    /// Full speed from here on.
    pub(crate) fn hurry(&mut self) {
        self.idle_passes = 0;
        self.debt = Duration::ZERO;
    }

    /// CPU time was used, the pass has come so far, and so many pages are private or shared now: how long to
    /// pause, if at all yet.
    pub(crate) fn used(&mut self, cpu: Duration, so_far: &PassFindings, populated: u64) -> Option<Duration> {
        let grows = populated > self.populated + self.populated / 8 + 64;
        if self.idle_passes > 0 && (grows || so_far.progress >= PROGRESS_MIN && so_far.is_progress()) {
            self.hurry();
        } else if self.idle_passes > 1 && so_far.is_gain() {
            (self.idle_passes, self.debt) = (1, Duration::ZERO);
        }
        self.debt += cpu.mul_f64(1.0 / self.share() - 1.0);
        let pause = self.debt.min(PAUSE_MAX);
        let between_passes = std::mem::take(&mut self.between_passes);
        let worth_it = if self.idle_passes > 1 && !between_passes { IDLE_PAUSE_MIN } else { PAUSE_MIN };
        (pause >= worth_it).then(|| {
            self.debt -= pause;
            pause
        })
    }

    /// A pass is over, and leaves so many pages private or shared.
    pub(crate) fn pass_ended(&mut self, found: PassFindings, populated: u64) {
        self.idle_passes = match found {
            _ if found.is_progress() => 0,
            _ if found.is_gain() => 1,
            _ => (self.idle_passes + 1).min(IDLE_MAX),
        };
        self.debt += REST_MIN.saturating_mul(1 << self.idle_passes).min(PAUSE_MAX);
        self.populated = populated;
        self.between_passes = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH_CPU: Duration = Duration::from_micros(50);

    /// Share of CPU over one pass of 512 batches.
    fn pass(pace: &mut Pace, found: PassFindings) -> f64 {
        let (mut cpu, mut paused) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..512 {
            cpu += BATCH_CPU;
            paused += pace.used(BATCH_CPU, &found, found.private).unwrap_or_default();
        }
        pace.pass_ended(found, found.private);
        cpu.as_secs_f64() / (cpu + paused).as_secs_f64()
    }

    #[test]
    fn passes_with_progress_stay_just_below_the_cap() {
        let mut pace = Pace::new(0.2, 0.05);
        let found = PassFindings { private: 65_536, progress: 65_536, regained: 0 };
        for _ in 0..10 {
            let share = pass(&mut pace, found);
            assert!((0.15..=0.21).contains(&share), "{share}");
        }
    }

    #[test]
    fn without_progress_the_speed_falls_to_the_floor_and_hurrying_restores_it() {
        let mut pace = Pace::new(0.2, 0.05);
        let found = PassFindings { private: 65_536, progress: 0, regained: 0 };
        for _ in 0..10 {
            pass(&mut pace, found);
        }
        let share = pass(&mut pace, found);
        assert!(share <= 0.001, "{share}");
        pace.hurry();
        assert!(pace.share() > 0.19);
    }

    #[test]
    fn with_nothing_to_gain_the_idle_share_is_kept_from_the_first_pass_on() {
        let mut pace = Pace::new(0.2, 0.05);
        let found = PassFindings { private: 65_536, progress: 0, regained: 0 };
        pass(&mut pace, found);
        for most in [0.0501, 0.0251, 0.0126] {
            let share = pass(&mut pace, found);
            assert!(share <= most, "{share} of {most}");
        }
        let mut frugal = Pace::new(0.2, 0.001);
        (0..10).for_each(|_| frugal.pass_ended(found, found.private));
        assert!(frugal.share() <= 0.001, "the floor is no more than what is allowed");
    }

    #[test]
    fn growth_and_progress_speed_up_in_mid_pass() {
        let slow = || {
            let mut pace = Pace::new(0.2, 0.05);
            (0..12).for_each(|_| pace.pass_ended(PassFindings { private: 1000, progress: 0, regained: 0 }, 1000));
            assert!(pace.share() < 0.001);
            pace
        };
        let quiet = PassFindings { private: 1000, progress: 0, regained: 0 };
        let (mut same, mut grown, mut busy) = (slow(), slow(), slow());
        same.used(BATCH_CPU, &quiet, 1100);
        assert!(same.share() < 0.001);
        grown.used(BATCH_CPU, &quiet, 1300);
        assert!(grown.share() > 0.19);
        busy.used(BATCH_CPU, &PassFindings { private: 1000, progress: PROGRESS_MIN, regained: 0 }, 1000);
        assert!(busy.share() > 0.19);
    }

    #[test]
    fn what_was_broken_is_merged_again_at_the_idle_share() {
        let mut pace = Pace::new(0.2, 0.05);
        let again = PassFindings { private: 65_536, progress: 0, regained: 30_000 };
        pass(&mut pace, again);
        for _ in 0..10 {
            let share = pass(&mut pace, again);
            assert!((0.04..=0.0501).contains(&share), "{share}");
        }
    }

    #[test]
    fn a_guest_that_is_empty_at_first_is_looked_at_again_soon() {
        let (mut pace, empty) = (Pace::new(0.2, 0.05), PassFindings::default());
        let mut slept = Duration::ZERO;
        for _ in 0..5 {
            pace.pass_ended(empty, 0);
            let pause = pace.used(Duration::from_micros(1), &empty, 0).expect("a rest after each pass");
            assert!(pause <= slept * 2 + REST_MIN * 3, "{pause:?} after {slept:?}");
            slept += pause;
        }
        assert!(slept < Duration::from_secs(1), "{slept:?}");
    }

    #[test]
    fn an_empty_guest_costs_next_to_nothing() {
        let (mut pace, empty) = (Pace::new(0.2, 0.05), PassFindings::default());
        for _ in 0..10 {
            pace.pass_ended(empty, 0);
            pace.used(Duration::ZERO, &empty, 0);
        }
        pace.pass_ended(empty, 0);
        assert_eq!(pace.used(Duration::from_micros(1), &empty, 0), Some(PAUSE_MAX));
    }
}
