//! Whose scanner is to make a pass at full speed: those of all guests in turn while memory is short, the more
//! seldom the longer that lasts, as there may be nothing to gain. Fresh pages that must go are hurried by the
//! evictor of their own guest, whatever is said here.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::control::maintenance::{Shortage, Turns};

/// Between the beginnings of two times round; twice as long after each, in one shortage.
const INTERVAL: Duration = Duration::from_secs(5);
const INTERVAL_MAX: Duration = Duration::from_secs(160);

/// See the module's description.
#[derive(Debug)]
pub struct Hurry {
    turns: Turns,
    shortage: Shortage,
    interval: Duration,
    begun: Option<Instant>,
    next: usize,
}

impl Hurry {
    /// Nobody was hurried yet, on a machine with so many CPUs.
    pub fn new(cpus: usize) -> Hurry {
        let (turns, shortage) = (Turns::new(cpus), Shortage::default());
        Hurry { turns, shortage, interval: INTERVAL, begun: None, next: 0 }
    }

    /// Which of so many guests to hurry now.
    pub fn due(&mut self, is_short: bool, now: Instant, guests: usize) -> Range<usize> {
        let is_due = self.next >= guests && self.begun.is_some_and(|begun| now - begun >= self.interval);
        if self.shortage.begins(is_short, now) {
            (self.begun, self.next, self.interval) = (Some(now), 0, INTERVAL);
        } else if !is_short {
            self.next = guests;
        } else if is_due {
            (self.begun, self.next, self.interval) = (Some(now), 0, (self.interval * 2).min(INTERVAL_MAX));
        }
        let first = self.next.min(guests);
        self.next = first + self.turns.take(now, guests - first);
        first..self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guests that are hurried, by tick of 100 ms.
    fn hurried(guests: usize, ticks: u64, is_short: impl Fn(u64) -> bool) -> Vec<(u64, Range<usize>)> {
        let (mut hurry, start) = (Hurry::new(2), Instant::now());
        let due = |tick| (tick, hurry.due(is_short(tick), start + Duration::from_millis(100 * tick), guests));
        (0..ticks).map(due).filter(|(_, guests)| !guests.is_empty()).collect()
    }

    #[test]
    fn guests_are_hurried_in_turn_and_more_and_more_seldom() {
        let first: Vec<_> = hurried(2, 1000, |_| true).into_iter().map(|(tick, _)| tick).collect();
        assert_eq!(first, [0, 50, 150, 350, 750]);
        assert_eq!(hurried(5, 40, |_| true), [(0, 0..2), (5, 2..3), (10, 3..4), (15, 4..5)]);
    }

    #[test]
    fn nobody_is_hurried_without_need_nor_anew_because_the_host_was_not_short_for_a_moment() {
        assert_eq!(hurried(2, 1000, |_| false), []);
        let ticks = |is_short: fn(u64) -> bool| hurried(2, 400, is_short).into_iter().map(|(tick, _)| tick).collect();
        let comes_and_goes: Vec<_> = ticks(|tick| tick % 20 < 15);
        assert_eq!(comes_and_goes, [0, 50, 150, 350]);
        let comes_back: Vec<_> = ticks(|tick| !(20..300).contains(&tick));
        assert_eq!(comes_back, [0, 300, 350]);
    }
}
