//! How long pages stay with the kernel before they come back: pages that are away over those that come back
//! a second (Little's law).
//!
//! A page that is taken on from there wins some 350 bytes, and costs 110 µs of CPU: 65 to pack it, and 45
//! when it comes back at the pool's price. Twelve of them make room for a page, which saves the 30 µs that
//! its own way out and in takes each time it is used. So the twelve must stay some fifty times as long as
//! pages at the brink of eviction do: minutes.

/// For less than this nothing is packed, seconds. An estimate.
const LONG_SECONDS: f64 = 300.0;
/// Returns are counted for so long, ms.
const WINDOW_MS: u64 = 2_000;

/// Of one guest's pages.
#[derive(Debug, Default)]
pub struct Stay {
    begun_ms: u64,
    returns: u64,
    is_long: bool,
}

impl Stay {
    /// Whether pages stay for long, when so many have come back in all and so many are `away`.
    pub fn is_long(&mut self, now_ms: u64, returns_total: u64, away: u64) -> bool {
        let passed_ms = now_ms.saturating_sub(self.begun_ms);
        if passed_ms >= WINDOW_MS {
            let a_second = (returns_total - self.returns) as f64 * 1000.0 / passed_ms as f64;
            self.is_long = away as f64 >= a_second * LONG_SECONDS;
            (self.begun_ms, self.returns) = (now_ms, returns_total);
        }
        self.is_long
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_stay_for_long_while_few_of_them_come_back() {
        let mut stay = Stay::default();
        // Nothing is known yet.
        assert!(!stay.is_long(WINDOW_MS - 1, 0, 3000));
        assert!(stay.is_long(WINDOW_MS, 20, 3000));
        assert!(!stay.is_long(2 * WINDOW_MS, 41, 3000));
        // Until the next window ends.
        assert!(!stay.is_long(3 * WINDOW_MS - 1, 41, 3000));
        assert!(stay.is_long(3 * WINDOW_MS, 41, 3000));
    }
}
