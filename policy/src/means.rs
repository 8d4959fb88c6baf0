//! By what a guest could give memory now, and at which price: who gives, by what, and how fast.
//!
//! ```text
//!   what a step costs      the cheapest mix that wins it (`levers::plan`), µs a page
//!                          the cheap give first, by bands of a factor of 2
//!   how far a step goes    what the levers were seen to win while they had work to do
//!                          1/512 to 1/16 of the guest's RAM a tick
//!   by what                the same mix: what the balloon is not worth is left to eviction
//!                          ties go to the balloon
//! ```
//!
//! Of a guest of which nothing was measured, a step is a 64th of its RAM, at the lowest price, by balloon.

use crate::levers::{Lever, Offer, plan};

/// Levers among which there is a choice: the others work unasked.
pub const CHOICES: [Lever; 3] = [Lever::Balloon, Lever::Compress, Lever::Swap];
/// Bands of prices: below 2 µs, 4, 8, ... and from 128 µs on.
pub(crate) const BANDS: usize = 8;
/// A step where nothing was measured: 10 % of a guest's memory in 640 ms.
const STEP_DIVISOR: u64 = 64;
/// The shortest step and the longest: however slow a guest gives, it is asked for something; however fast, it
/// can be seen to suffer before much is gone.
const STEP_DIVISORS: [u64; 2] = [512, 16];
const PAGE_BYTES: u64 = 4096;

/// One lever on one guest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mean {
    /// What it could win now, bytes.
    pub available_bytes: u64,
    /// µs for each page that stays away.
    pub per_page_us: f64,
    /// What it was seen to win in a tick (100 ms) while it had work to do, bytes.
    pub bytes_per_tick: Option<u64>,
}

/// All of them, in the order of [`CHOICES`]. By default nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Means(pub [Mean; 3]);

impl Means {
    /// What the guest can give in a tick, bytes.
    pub(crate) fn step_bytes(&self, memory_bytes: u64) -> u64 {
        let unmeasured = memory_bytes / STEP_DIVISOR;
        let usable = self.0.iter().filter(|mean| mean.available_bytes > 0);
        let rates = usable.map(|mean| mean.bytes_per_tick.unwrap_or(unmeasured));
        let step = rates.reduce(u64::saturating_add).unwrap_or(unmeasured);
        let [slow, fast] = STEP_DIVISORS.map(|divisor| memory_bytes / divisor);
        step.clamp(slow, fast)
    }

    /// What a step costs, as a band of prices.
    pub(crate) fn band(&self, step_bytes: u64) -> usize {
        let parts = self.split(step_bytes);
        let pages: u64 = parts.iter().sum();
        if pages == 0 {
            return 0;
        }
        let us: f64 = parts.iter().zip(&self.0).map(|(&pages, mean)| pages as f64 * mean.per_page_us).sum();
        band(us / pages as f64)
    }

    /// The cheapest mix that wins `bytes`, bytes by [`CHOICES`]; what nobody offers is the balloon's, which
    /// may find more than we know of.
    pub fn mix(&self, bytes: u64) -> [u64; 3] {
        let mut parts = self.split(bytes).map(|pages| pages.saturating_mul(PAGE_BYTES));
        let offered: u64 = parts.iter().sum();
        parts[0] = parts[0].saturating_add(bytes.saturating_sub(offered));
        parts
    }

    fn split(&self, bytes: u64) -> [u64; 3] {
        let mut at = 0;
        let offers = self.0.map(|mean| {
            at += 1;
            // By bands, so that prices that waver choose the same lever every time.
            let per_page_us = band(mean.per_page_us) as f64;
            Offer { guest: 0, lever: CHOICES[at - 1], pages: mean.available_bytes / PAGE_BYTES, per_page_us }
        });
        let mut parts = [0; 3];
        for order in plan(bytes / PAGE_BYTES, &offers) {
            if let Some(at) = CHOICES.iter().position(|&lever| lever == order.lever) {
                parts[at] = order.pages;
            }
        }
        parts
    }
}

/// Not a number is the dearest.
fn band(per_page_us: f64) -> usize {
    if per_page_us.is_nan() {
        return BANDS - 1;
    }
    (per_page_us.max(1.0).log2() as usize).min(BANDS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn mean(available_mib: u64, per_page_us: f64, mib_per_tick: Option<u64>) -> Mean {
        Mean { available_bytes: available_mib * MIB, per_page_us, bytes_per_tick: mib_per_tick.map(|mib| mib * MIB) }
    }

    #[test]
    fn where_nothing_was_measured_a_step_is_a_64th_by_balloon() {
        let means = Means::default();
        assert_eq!(
            (means.step_bytes(256 * MIB), means.band(4 * MIB), means.mix(4 * MIB)),
            (4 * MIB, 0, [4 * MIB, 0, 0])
        );
    }

    #[test]
    fn a_step_is_as_long_as_the_levers_are_fast_within_reason() {
        let with = |mib| Means([mean(100, 3.0, mib), Mean::default(), Mean::default()]).step_bytes(256 * MIB);
        assert_eq!([None, Some(0), Some(7), Some(1000)].map(with), [4 * MIB, MIB / 2, 7 * MIB, 16 * MIB]);
        let both = Means([mean(100, 3.0, Some(2)), mean(100, 9.0, Some(3)), Mean::default()]);
        assert_eq!(both.step_bytes(256 * MIB), 5 * MIB);
    }

    #[test]
    fn the_cheapest_lever_gives_first_and_prices_alike_are_the_balloon_s() {
        let means = |balloon_us| Means([mean(3, balloon_us, None), mean(2, 5.0, None), mean(100, 300.0, None)]);
        assert_eq!(means(50.0).mix(4 * MIB), [2 * MIB, 2 * MIB, 0]);
        assert_eq!(means(5.9).mix(4 * MIB), [3 * MIB, MIB, 0]);
        assert_eq!(means(5.9).mix(10 * MIB), [3 * MIB, 2 * MIB, 5 * MIB]);
        assert_eq!(means(f64::NAN).mix(MIB), [0, MIB, 0]);
        assert!(
            means(3.0).band(MIB) < means(50.0).band(4 * MIB) && means(50.0).band(4 * MIB) < means(50.0).band(50 * MIB)
        );
    }

    #[test]
    fn what_nobody_offers_is_asked_of_the_balloon() {
        assert_eq!(Means([Mean::default(), mean(1, 5.0, None), Mean::default()]).mix(4 * MIB), [3 * MIB, MIB, 0]);
    }
}
