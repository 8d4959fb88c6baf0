//! What somebody's messages may cost the host: who sends more than can be worth its CPU time is read more
//! slowly, and in the end waits in its own socket.

use std::time::{Duration, Instant};

/// Share of one CPU that understanding and obeying one VMM's messages may take: a scanner at its fastest
/// needs a tenth.
pub const VMM_SHARE: f64 = 0.25;
/// CPU time that may be spent in one go before the share counts: some hundred messages full of pages.
const BURST: Duration = Duration::from_millis(50);
/// Longest pause at a time: a VMM's statuses, or a peer's requests, wait meanwhile.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// An account of CPU time.
#[derive(Debug)]
pub struct Throttle {
    /// Share of one CPU that may be spent.
    share: f64,
    /// CPU time that was spent and not yet earned.
    debt: Duration,
    earned: Instant,
}

impl Throttle {
    /// An account that owes nothing.
    pub fn new(share: f64, now: Instant) -> Self {
        Self { share, debt: Duration::ZERO, earned: now }
    }

    /// A message took this much CPU time: how long to wait before the next is read.
    pub fn spent(&mut self, cpu: Duration, now: Instant) -> Option<Duration> {
        let earned = now.saturating_duration_since(self.earned).mul_f64(self.share);
        self.earned = now;
        self.debt = self.debt.saturating_sub(earned) + cpu;
        let over = self.debt.checked_sub(BURST).filter(|over| !over.is_zero())?;
        Some(over.div_f64(self.share).min(PAUSE_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CPU time spent in ten seconds by a VMM whose messages take `cpu` each and come as fast as they are
    /// read.
    fn spent_in_ten_seconds(cpu: Duration, between: Duration) -> Duration {
        let start = Instant::now();
        let (mut now, mut spent) = (start, Duration::ZERO);
        let mut throttle = Throttle::new(VMM_SHARE, now);
        while now < start + Duration::from_secs(10) {
            now += cpu + between;
            spent += cpu;
            now += throttle.spent(cpu, now).unwrap_or_default();
        }
        spent
    }

    #[test]
    fn a_flood_takes_a_quarter_of_a_cpu() {
        let spent = spent_in_ten_seconds(Duration::from_micros(100), Duration::ZERO);
        assert!((2.4..2.7).contains(&spent.as_secs_f64()), "{spent:?}");
    }

    #[test]
    fn a_busy_scanner_is_not_held_back() {
        // A thousand full messages a second.
        let spent = spent_in_ten_seconds(Duration::from_micros(100), Duration::from_micros(900));
        assert!(spent.as_secs_f64() > 0.99, "{spent:?}");
    }
}
