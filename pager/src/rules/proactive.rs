//! Proactive reclaim: how many pages to try before memory is short.
//!
//! A page that comes back was taken too early. So what is rationed are returns, not evictions: a guest may be
//! made to bring back [`RETURNS_A_MINUTE`] of its working set a minute (Lagar-Cavilla et al.,
//! *Software-Defined Far Memory in Warehouse-Scale Computers*, ASPLOS 2019), whatever they returned from;
//! pages are taken, slowly, while that allowance lasts.
//!
//! ```text
//!   allowance   + 0.2 % of the private pages a minute, for one minute at most
//!               - 1 with each page that comes back
//!   above 0     1/1024 of the private pages a second may go
//! ```

/// Part of the working set that may come back in a minute.
pub const RETURNS_A_MINUTE: f64 = 0.002;
/// A second's evictions are the private pages over this: all of them in a quarter of an hour, if none comes
/// back.
const PACE_DIVISOR: f64 = 1024.0;
/// What overdraws the allowance is forgotten after so many minutes: a guest that was short may have become
/// idle since.
const DEBT_MINUTES: f64 = 5.0;

/// The allowance of one guest.
#[derive(Debug, Default)]
pub struct Proactive {
    /// Pages that may still come back.
    allowance: f64,
    /// Pages that may go, less those that went.
    due: f64,
    returns_seen: u64,
    at_ms: u64,
}

impl Proactive {
    /// Beginning at `now_ms`, when `returns_total` pages had come back.
    pub fn new(now_ms: u64, returns_total: u64) -> Proactive {
        Proactive { allowance: 0.0, due: 0.0, returns_seen: returns_total, at_ms: now_ms }
    }

    /// Pages to evict now, of a guest with `private` pages of its own.
    pub fn evictions(&mut self, now_ms: u64, returns_total: u64, private: u64) -> u32 {
        let seconds = now_ms.saturating_sub(self.at_ms) as f64 / 1000.0;
        let returns = returns_total.saturating_sub(self.returns_seen) as f64;
        (self.at_ms, self.returns_seen) = (now_ms, returns_total);
        let a_minute = private as f64 * RETURNS_A_MINUTE;
        let allowance = self.allowance + a_minute * seconds / 60.0 - returns;
        self.allowance = allowance.clamp(-DEBT_MINUTES * a_minute, a_minute);
        if self.allowance <= 0.0 {
            self.due = 0.0;
            return 0;
        }
        // Time without being asked is not caught up with.
        self.due += private as f64 / PACE_DIVISOR * seconds.min(1.0);
        let whole = self.due.floor();
        self.due -= whole;
        whole as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guest all of whose evicted pages come back within the second with this probability, for `minutes`.
    /// Evictions and returns.
    fn run(private: u64, minutes: u64, returns: f64) -> (f64, f64) {
        let mut proactive = Proactive::new(0, 0);
        let (mut gone, mut back) = (0.0, 0.0);
        for second in 1..=minutes * 60 {
            gone += f64::from(proactive.evictions(second * 1000, back as u64, private));
            back = gone * returns;
        }
        (gone, back)
    }

    #[test]
    fn an_idle_guest_is_reclaimed_within_half_an_hour() {
        let (gone, _) = run(65_536, 30, 0.0);
        assert!(gone > 65_536.0, "{gone}");
    }

    #[test]
    fn however_many_come_back_it_is_no_more_than_allowed() {
        for returns in [0.01, 0.1, 0.5, 1.0] {
            let (gone, back) = run(65_536, 60, returns);
            let allowed = 65_536.0 * RETURNS_A_MINUTE * 60.0;
            // One second's evictions may overdraw it.
            assert!(back <= allowed + 65_536.0 / PACE_DIVISOR, "{back} of {allowed} came back");
            assert!(gone > 0.0);
        }
    }

    #[test]
    fn a_guest_that_is_short_is_left_alone_and_a_pause_is_not_caught_up_with() {
        let mut proactive = Proactive::new(0, 0);
        assert_eq!(proactive.evictions(1_000, 10_000, 65_536), 0);
        assert_eq!(proactive.evictions(60_000, 10_000, 65_536), 0);
        assert_eq!(proactive.evictions(3_600_000, 10_000, 65_536), 64);
    }
}
