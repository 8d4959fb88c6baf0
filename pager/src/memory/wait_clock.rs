//! How long faults have waited for memory, as far as anybody could have given them some.
//!
//! ```text
//!   evictor ── tick, every few ms while a fault waits ──► goes on by what passed, STEP_MAX at most
//!   host    ── said lately that it is there? ──no───────► stands still
//! ```
//!
//! A process that was stopped, or whose host was, does not find that its guest has starved meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A tick that comes later tells of a stop, or of a time in which nothing waited: twenty of the evictor's
/// intervals while faults wait.
const STEP_MAX_MS: u64 = 50;
/// The host says every second that it is there: one that was not heard for so long is stopped, or far too
/// busy to give memory.
const ATTENDED_MS: u64 = 3_000;
/// Nobody said anything yet.
const NEVER: u64 = u64::MAX;

/// See the module's description. Only the evictor ticks.
#[derive(Debug)]
pub(crate) struct WaitClock {
    start: Instant,
    shown_ms: AtomicU64,
    ticked_ms: AtomicU64,
    attended_ms: AtomicU64,
}

impl WaitClock {
    /// Nobody has waited yet. As long as no host was heard, there is none to wait for.
    pub(crate) fn new(start: Instant) -> WaitClock {
        let zero = || AtomicU64::new(0);
        WaitClock { start, shown_ms: zero(), ticked_ms: zero(), attended_ms: AtomicU64::new(NEVER) }
    }

    /// The host is there.
    pub(crate) fn attended(&self, now: Instant) {
        // Relaxed, here and below: each is a number for itself, and a tick more or less is nothing.
        self.attended_ms.store(self.ms(now), Ordering::Relaxed);
    }

    /// Time passes.
    pub(crate) fn tick(&self, now: Instant) {
        let now_ms = self.ms(now);
        let step_ms = now_ms.saturating_sub(self.ticked_ms.load(Ordering::Relaxed));
        self.ticked_ms.store(now_ms, Ordering::Relaxed);
        let attended_ms = self.attended_ms.load(Ordering::Relaxed);
        if attended_ms == NEVER || now_ms.saturating_sub(attended_ms) < ATTENDED_MS {
            self.shown_ms.store(self.shown() + step_ms.min(STEP_MAX_MS), Ordering::Relaxed);
        }
    }

    /// What it shows, ms; a beginning for [`WaitClock::lasted`].
    pub(crate) fn shown(&self) -> u64 {
        self.shown_ms.load(Ordering::Relaxed)
    }

    /// How long it has gone since it showed that.
    pub(crate) fn lasted(&self, since_ms: u64) -> Duration {
        Duration::from_millis(self.shown().saturating_sub(since_ms))
    }

    fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_in_which_the_evictor_ran_and_the_host_was_there_counts() {
        let start = Instant::now();
        let (clock, at) = (WaitClock::new(start), |ms| start + Duration::from_millis(ms));
        let wait = |from: u64, to: u64| (from..=to).step_by(2).for_each(|ms| clock.tick(at(ms)));
        wait(2, 1_000);
        assert_eq!(clock.lasted(0), Duration::from_secs(1), "nobody is waited for without a host");
        // The process was stopped.
        clock.tick(at(46_000));
        assert_eq!(clock.lasted(0), Duration::from_millis(1_050));
        clock.attended(at(46_000));
        wait(46_002, 48_000);
        assert_eq!(clock.lasted(1_050), Duration::from_secs(2));
        // The host was.
        wait(48_002, 90_000);
        assert!(clock.lasted(1_050) <= Duration::from_secs(3));
        clock.attended(at(90_000));
        wait(90_002, 91_000);
        assert!(clock.lasted(1_050) >= Duration::from_millis(3_900));
    }
}
