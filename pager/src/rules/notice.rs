//! When to look for open pages that the guest has written to: soon while it does, seldom while it does not.
//!
//! A look costs some ten nanoseconds an open page, ten times that with cold caches or where they lie
//! scattered. It is due when the process has got anonymous memory since the last one that the table does not
//! know of, and otherwise after a pause that is sixteen times as long with each look that finds nothing,
//! unless there are few.
//!
//! Pure: it is told the time.

use std::time::{Duration, Instant};

/// So few open pages are looked at after each shortest pause.
const FEW_PAGES: u64 = 4096;
/// Anonymous memory that the table may not know of before it is looked for (1 MiB).
const UNKNOWN_BYTES: u64 = 1 << 20;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(256);

/// When the next look is due.
#[derive(Debug)]
pub(crate) struct Notice {
    last: Instant,
    pause: Duration,
    /// What the table did not know of after the last look: overhead.
    unknown_bytes: u64,
}

impl Notice {
    pub(crate) fn new(now: Instant) -> Notice {
        Notice { last: now, pause: PAUSE_MIN, unknown_bytes: 0 }
    }

    /// Whether to look now, with so many pages open and so much anonymous memory that the table does not know
    /// of.
    pub(crate) fn is_due(&self, open: u64, unknown_bytes: u64, now: Instant) -> bool {
        let pause = if open <= FEW_PAGES { PAUSE_MIN } else { self.pause };
        let since = now.saturating_duration_since(self.last);
        open > 0 && (since >= pause || unknown_bytes.saturating_sub(self.unknown_bytes) >= UNKNOWN_BYTES)
    }

    /// A look found so many, and left so much unknown.
    pub(crate) fn noted(&mut self, pages: u64, unknown_bytes: u64, now: Instant) {
        self.pause = if pages > 0 { PAUSE_MIN } else { (self.pause * 16).min(PAUSE_MAX) };
        (self.last, self.unknown_bytes) = (now, unknown_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_that_find_nothing_become_rare_and_unknown_memory_brings_the_next_forward() {
        let start = Instant::now();
        let mut notice = Notice::new(start);
        let mut now = start;
        let mut looks = 0;
        while now < start + Duration::from_secs(600) {
            now += Duration::from_millis(100);
            if notice.is_due(100_000, 0, now) {
                notice.noted(0, 0, now);
                looks += 1;
            }
        }
        assert!((3..=5).contains(&looks), "{looks} looks in ten minutes");
        now += Duration::from_secs(2);
        assert!(!notice.is_due(100_000, 0, now) && notice.is_due(100_000, 2 << 20, now));
        assert!(notice.is_due(1, 0, now) && !notice.is_due(0, 2 << 20, now));
        notice.noted(1, 2 << 20, now);
        assert!(notice.is_due(100_000, 0, now + PAUSE_MIN));
        for open in [1, 100_000] {
            assert!(!notice.is_due(open, (3 << 20) - 1, now) && notice.is_due(open, 3 << 20, now), "a MiB more");
        }
    }
}
