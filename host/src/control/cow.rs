//! The copy-on-write reserve: memory that shared pages would take if their guests wrote to them.
//!
//! All of it at once is possible, so that is one figure (*full*). What is likely before the host has reacted
//! is another (*expected*): the most breaks a second that were seen lately, for as long as it takes to find
//! memory elsewhere. No guest exceeds its allocation by breaking shares, since each break takes a credit
//! first: the reserve says how much would be *waited for*.

use std::collections::VecDeque;
use std::time::Duration;

use wire::PAGE_BYTES;

/// How long breaks go on before other memory makes up for them: two ticks to notice and to grant, the rest
/// for balloons and evictors of other guests to give way, and for the frames' grace to be over. An estimate.
const REACTION: Duration = Duration::from_secs(2);
/// How far back the highest rate is looked for.
const WINDOW: usize = 60;
/// Breaks are counted over this long.
const SAMPLE: Duration = Duration::from_secs(1);

/// A guest's breaks in the last minute.
#[derive(Clone, Debug, Default)]
pub struct Breaks {
    total: u64,
    elapsed: Duration,
    /// Per second, newest last.
    rates: VecDeque<f64>,
}

impl Breaks {
    /// The guest has had so many breaks, `elapsed` after the last time.
    pub fn update(&mut self, total: u64, elapsed: Duration) {
        self.elapsed += elapsed;
        if self.elapsed < SAMPLE {
            return;
        }
        let rate = total.saturating_sub(self.total) as f64 / self.elapsed.as_secs_f64();
        self.rates.push_back(rate);
        if self.rates.len() > WINDOW {
            self.rates.pop_front();
        }
        (self.total, self.elapsed) = (total, Duration::ZERO);
    }

    /// What breaks are expected to take before the host has reacted, bytes: no more than all shared pages.
    pub fn expected_bytes(&self, shared_pages: u64) -> u64 {
        let most = self.rates.iter().copied().fold(0.0, f64::max);
        let pages = (most * REACTION.as_secs_f64()).ceil() as u64;
        pages.min(shared_pages) * PAGE_BYTES as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[test]
    fn the_highest_rate_of_the_last_minute_counts() {
        let mut breaks = Breaks::default();
        let mut total = 0;
        let mut second = |breaks: &mut Breaks, count: u64| {
            for _ in 0..10 {
                total += count / 10;
                breaks.update(total, TICK);
            }
        };
        second(&mut breaks, 100);
        second(&mut breaks, 1000);
        assert_eq!(breaks.expected_bytes(u64::MAX / 4096), 2000 * 4096);
        assert_eq!(breaks.expected_bytes(300), 300 * 4096, "no more than what is shared");
        for _ in 0..59 {
            second(&mut breaks, 10);
        }
        assert_eq!(breaks.expected_bytes(100_000), 2000 * 4096);
        second(&mut breaks, 10);
        assert_eq!(breaks.expected_bytes(100_000), 20 * 4096);
    }

    #[test]
    fn without_breaks_nothing_is_expected() {
        assert_eq!(Breaks::default().expected_bytes(1000), 0);
    }
}
