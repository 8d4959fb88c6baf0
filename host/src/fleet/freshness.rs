//! How old a guest's figures are. A VMM that has stopped says nothing more, and what it said last looks as it
//! did before.
//!
//! ```text
//!   VMM started ---- first status ---- status ---- ... ---- status           now
//!     |  no age: there are no figures     |  age of the status  <---------->  more than 2 s: old, not up
//!     '-- start time                      '-- the guest's own figures in it: an age of their own
//! ```

use std::time::{Duration, Instant, SystemTime};

use control::GuestStatus;

/// Age from which figures are old: twenty statuses missed.
pub const OLD_AFTER: Duration = Duration::from_secs(2);

/// How fresh a guest's figures are at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Freshness {
    /// When its VMM was started.
    pub started: Option<SystemTime>,
    /// Since its last status; none before the first.
    pub status_age: Option<Duration>,
    /// Since the guest itself last said how much memory it has; none before the first time.
    pub own_age: Option<Duration>,
}

impl Freshness {
    /// Whether there are figures, and they are not old.
    pub fn is_up(&self) -> bool {
        self.status_age.is_some_and(|age| age <= OLD_AFTER)
    }

    /// Whether there are figures, and they are old.
    pub fn is_old(&self) -> bool {
        self.status_age.is_some_and(|age| age > OLD_AFTER)
    }

    /// Seconds since 1970 at which its VMM was started.
    pub fn started_seconds(&self) -> Option<f64> {
        Some(self.started?.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64())
    }
}

/// When one life of a guest began, and when it was heard of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    started: SystemTime,
    status: Option<Instant>,
    own: Option<Instant>,
    statistics_total: u64,
}

impl Heard {
    /// Its VMM starts now.
    pub(crate) fn nothing_yet() -> Heard {
        Heard { started: SystemTime::now(), status: None, own: None, statistics_total: 0 }
    }

    /// A status came.
    pub(crate) fn status(&mut self, status: &GuestStatus, now: Instant) {
        self.status = Some(now);
        let statistics_total = status.balloon.statistics_total;
        if std::mem::replace(&mut self.statistics_total, statistics_total) != statistics_total {
            self.own = Some(now);
        }
    }

    /// How old everything is.
    pub(crate) fn freshness(&self, now: Instant) -> Freshness {
        let age = |then: Option<Instant>| then.map(|then| now.saturating_duration_since(then));
        Freshness { started: Some(self.started), status_age: age(self.status), own_age: age(self.own) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_grow_old_and_a_guests_own_by_themselves() {
        let (mut heard, start) = (Heard::nothing_yet(), Instant::now());
        let fresh = heard.freshness(start);
        assert!(!fresh.is_up() && !fresh.is_old() && fresh.started_seconds() > Some(1.7e9), "{fresh:?}");
        let mut status = GuestStatus::default();
        status.balloon.statistics_total = 1;
        heard.status(&status, start);
        heard.status(&status, start + OLD_AFTER);
        let fresh = heard.freshness(start + OLD_AFTER);
        assert_eq!((fresh.status_age, fresh.own_age), (Some(Duration::ZERO), Some(OLD_AFTER)));
        assert!(fresh.is_up() && !fresh.is_old());
        let fresh = heard.freshness(start + 3 * OLD_AFTER);
        assert!(fresh.is_old() && !fresh.is_up());
    }
}
