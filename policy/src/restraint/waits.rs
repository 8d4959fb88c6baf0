//! What a guest waited for memory lately, for what it is entitled to.
//!
//! Its pressure ([`crate::pressure`]) swings from tick to tick, and among guests that are alike an
//! entitlement that followed it would pass memory to and fro. So small waits are remembered for some seconds.
//! Large ones are not: a guest that waited much and then does not needs its memory no more.

/// Waits count for so long, s.
const REMEMBERED_SECONDS: f64 = 5.0;
/// Most of its time that is remembered.
const REMEMBERED_MAX: f64 = 0.05;

/// What is remembered of one guest.
#[derive(Clone, Debug, Default)]
pub struct Waits {
    remembered: f64,
    ratio: f64,
}

impl Waits {
    /// `seconds` after the last time the guest waits a share of `pressure` of its time.
    pub fn look(&mut self, pressure: f64, seconds: f64) {
        let forgotten = 1.0 - (-seconds.max(0.0) / REMEMBERED_SECONDS).exp();
        self.remembered += forgotten * (pressure.min(REMEMBERED_MAX) - self.remembered);
        self.ratio = pressure.max(self.remembered);
    }

    /// [`crate::Usage::waited_ratio`].
    pub fn ratio(&self) -> f64 {
        self.ratio
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_waits_are_remembered_for_seconds_and_large_ones_count_at_once_and_no_longer() {
        let mut waits = Waits::default();
        let mut look = |pressure| {
            waits.look(pressure, 0.1);
            waits.ratio()
        };
        assert_eq!(look(0.5), 0.5);
        let after: Vec<f64> = (0..100).map(|_| look(0.0)).collect();
        assert!(after[0] < 0.01, "{}", after[0]);
        (0..300).for_each(|_| _ = look(0.5));
        let after: Vec<f64> = (0..100).map(|_| look(0.0)).collect();
        assert!((0.04..=REMEMBERED_MAX).contains(&after[0]), "{}", after[0]);
        assert!((0.015..0.02).contains(&after[49]), "a third after five seconds: {}", after[49]);
    }
}
