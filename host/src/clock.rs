//! The clock that patience is measured by: it goes only while the host runs and has read what was waiting.
//!
//! ```text
//!   on the wall    ──┬──┬──┬──┬──────── stopped ────────┬──┬──┬──┬──┬──┬──►
//!   this clock     ──┬──┬──┬──┬─────────────────────────·──·──·──·──┬──┬──►
//!                    tick                               settling
//! ```
//!
//! A host that was stopped (a signal, a debugger, a suspended machine, swap) finds VMMs that were silent for
//! as long: it was not there to hear them. So a tick that comes late adds nothing, and nor do the few after
//! it, in which the readers of all sockets get to run. On a machine so busy that every tick is late, one of
//! five counts, and patience is longer.

use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use control::STATUS_INTERVAL;
use nix::time::{ClockId, clock_gettime};

use crate::sync::lock;

/// A tick that comes later than this after the last, five intervals, tells of a stop.
const STEP_MAX: Duration = Duration::from_millis(500);
/// Ticks after a stop that do not count: readers wake within one; a VMM whose messages are held back gets at
/// them within a second.
const SETTLING_TICKS: u32 = 4;

/// See the module's description.
#[derive(Debug)]
pub struct Clock {
    state: Mutex<ClockState>,
}

#[derive(Debug)]
struct ClockState {
    /// What this clock shows: comparable with itself only.
    shown: Instant,
    ticked: Instant,
    settling: u32,
    /// Whether the next tick counts, late or not.
    settled: bool,
}

impl Clock {
    /// A clock that was just set.
    pub fn new(now: Instant) -> Clock {
        Clock { state: Mutex::new(ClockState { shown: now, ticked: now, settling: 0, settled: false }) }
    }

    /// What it shows.
    pub fn now(&self) -> Instant {
        self.state().shown
    }

    /// To be called every [`STATUS_INTERVAL`], with the time on the wall. What it shows then.
    pub fn tick(&self, now: Instant) -> Instant {
        let mut state = self.state();
        let step = now.saturating_duration_since(state.ticked);
        state.ticked = now;
        if state.settling > 0 {
            state.settling -= 1;
            state.settled = state.settling == 0;
        } else if step > STEP_MAX && !state.settled {
            state.settling = SETTLING_TICKS;
        } else {
            state.shown += step.min(STEP_MAX);
            state.settled = false;
        }
        state.shown
    }

    /// Waits until it has gone on by so much.
    pub async fn sleep(&self, time: Duration) {
        let until = self.now() + time;
        while self.now() < until {
            tokio::time::sleep(STATUS_INTERVAL).await;
        }
    }

    /// What `future` comes to, unless it takes longer than `time`.
    pub async fn timeout<T>(&self, time: Duration, future: impl Future<Output = T>) -> Option<T> {
        let future = pin!(future);
        tokio::select! {
            biased;
            done = future => Some(done),
            () = self.sleep(time) => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, ClockState> {
        lock(&self.state)
    }
}

/// CPU time of the calling thread: unlike the clock on the wall, it does not grow while others have the CPU.
pub(crate) fn thread_cpu_time() -> Duration {
    // The clock exists on every Linux; without it samples would only come as often as they may.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a clock shows after these steps between ticks, ms.
    fn shown_ms(steps_ms: &[u64]) -> u64 {
        let start = Instant::now();
        let (clock, mut now) = (Clock::new(start), start);
        for &step_ms in steps_ms {
            now += Duration::from_millis(step_ms);
            clock.tick(now);
        }
        (clock.now() - start).as_millis() as u64
    }

    #[test]
    fn time_counts_while_the_host_runs() {
        assert_eq!(shown_ms(&[100; 300]), 30_000);
        assert_eq!(shown_ms(&[100, 130, 480, 90]), 800);
    }

    #[test]
    fn a_stop_does_not_count_nor_do_the_moments_in_which_what_waited_is_read() {
        assert_eq!(shown_ms(&[100, 100, 45_000, 100, 100, 100, 100]), 200);
        assert_eq!(shown_ms(&[100, 100, 45_000, 100, 100, 100, 100, 100]), 300);
        // Stopped again and again: of each stop that falls on the one tick that counts, no more than a step
        // does.
        assert_eq!(shown_ms(&[45_000, 100, 45_000, 100, 100]), 0);
        assert!(shown_ms(&[45_000; 60]) <= 5_000);
    }

    #[test]
    fn on_a_machine_that_is_always_late_patience_is_longer_but_ends() {
        let shown = shown_ms(&[1_000; 300]);
        assert!((20_000..60_000).contains(&shown), "{shown}");
    }
}
