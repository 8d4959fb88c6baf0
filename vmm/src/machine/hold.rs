//! Whether the vCPUs are to run, and whether they are held back all the same.
//!
//! ```text
//!   stands ──set_runs(true)──► runs ──begin──► held back ──end, when the time is over──► runs
//!      ▲                         │                 │
//!      └─────set_runs(false)─────┴─────────────────┘   what was begun still ends with its time
//! ```

use std::time::{Duration, Instant};

/// Longest a guest is held back at a time: its clock must not stand still longer than a scheduler's slice.
const HOLD_MAX: Duration = Duration::from_millis(100);

/// See the module's description. It decides; its owner tells the vCPUs, under the lock that this lies behind.
#[derive(Debug, Default)]
pub(super) struct Hold {
    runs: bool,
    /// When the hold began, and when it is over.
    span: Option<(Instant, Instant)>,
    ns_total: u64,
}

impl Hold {
    /// Whether the vCPUs are to run, from now on.
    pub fn set_runs(&mut self, runs: bool) {
        self.runs = runs;
    }

    /// Whether the vCPUs are to run, held back or not.
    pub fn runs(&self) -> bool {
        self.runs
    }

    /// Begins a hold of `time`, cut to [`HOLD_MAX`]: whether the vCPUs are to be stopped for it. Those that
    /// stand, or are held back already, are not.
    pub fn begin(&mut self, time: Duration, now: Instant) -> bool {
        let begins = self.runs && self.span.is_none();
        if begins {
            self.span = Some((now, now + time.min(HOLD_MAX)));
        }
        begins
    }

    /// Ends a hold whose time is over: whether the vCPUs are to go on.
    pub fn end(&mut self, now: Instant) -> bool {
        let Some((since, _)) = self.span.take_if(|(_, until)| now >= *until) else { return false };
        self.ns_total += now.saturating_duration_since(since).as_nanos() as u64;
        self.runs
    }

    /// Time that holds took, ns.
    pub fn ns_total(&self) -> u64 {
        self.ns_total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_hold_ends_with_its_time_and_counts_what_it_took() {
        let (mut hold, start) = (Hold::default(), Instant::now());
        hold.set_runs(true);
        assert!(hold.begin(10 * MS, start));
        assert!(!hold.begin(50 * MS, start + MS), "it is held back already");
        assert!(!hold.end(start + 9 * MS));
        assert!(hold.end(start + 12 * MS));
        assert!(!hold.end(start + 13 * MS), "it has ended");
        assert_eq!(hold.ns_total(), 12_000_000);
    }

    #[test]
    fn no_hold_is_longer_than_its_bound() {
        let (mut hold, start) = (Hold::default(), Instant::now());
        hold.set_runs(true);
        assert!(hold.begin(Duration::from_secs(3600), start));
        assert!(hold.end(start + HOLD_MAX));
    }

    #[test]
    fn a_guest_that_stands_is_not_held_back_and_one_that_was_paused_meanwhile_does_not_go_on() {
        let (mut hold, start) = (Hold::default(), Instant::now());
        assert!(!hold.begin(10 * MS, start));
        hold.set_runs(true);
        assert!(hold.begin(10 * MS, start));
        hold.set_runs(false);
        assert!(!hold.end(start + 10 * MS));
        assert_eq!(hold.ns_total(), 10_000_000);
    }
}
