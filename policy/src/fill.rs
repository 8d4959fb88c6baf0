//! Water-filling: one amount divided by weight between lower and upper bounds, exactly.
//!
//! Guest `i` gets `clamp(bid_i(level), low_i, high_i)`; the level is the highest whose sum fits. So those who
//! hold most for their bid are the first to lose and the last to gain: that is min-funding revocation,
//! brought to rest. A bid is `level × weight`, or, where idle memory is taxed, less; see [`entitle`]. The
//! level is a fixed-point number fine enough that one step of it moves nobody by more than a byte: what is
//! left over is less than a byte a guest, and a larger weight never gets less.

/// Fraction bits of the level: more than a weight has bits (32 of shares, 11 of need).
const LEVEL_BITS: u32 = 48;

/// Divides `total` between `low` and `high`. A total beyond the bounds gives the bounds.
fn fill(total: u64, low: &[u64], high: &[u64], weights: &[u64]) -> Vec<u64> {
    let bid = |level: u128, index: usize| level.saturating_mul(u128::from(weights[index])) >> LEVEL_BITS;
    // Above the highest level, every weight of at least 1 is at its upper bound.
    fill_by(total, low, high, (sum(high) + 1) << LEVEL_BITS, bid)
}

/// What a guest is entitled to: its bounds, and what it bids with. Amounts are bytes of host memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bidder {
    pub low: u64,
    pub high: u64,
    pub shares: u32,
    /// What of its memory is in use.
    pub active: u64,
}

/// Divides `total` by shares with the idle memory tax (Waldspurger, OSDI 2002, section 5.2).
///
/// There, a guest with shares `S` and `P` pages, a part `f` of them active, pays `ρ = S / (P × (f + k × (1 −
/// f)))` with `k = 1 / (1 − tax)`, and memory is taken from whoever pays least until all pay the same. With
/// `A = f × P` bytes active, all paying `1 / level` means
///
/// ```text
///   P + (k − 1) × (P − A) = level × S     so     P = level × S                               up to A
///                                                P = A + (level × S − A) × (1 − tax)         beyond it
/// ```
///
/// which rises with level and with shares, so that one level serves all.
pub(crate) fn entitle(total: u64, bidders: &[Bidder], tax_percent: u8) -> Vec<u64> {
    let kept_percent = u128::from(100 - tax_percent.min(TAX_PERCENT_MAX));
    let low: Vec<u64> = bidders.iter().map(|bidder| bidder.low).collect();
    let high: Vec<u64> = bidders.iter().map(|bidder| bidder.high).collect();
    let bid = |level: u128, index: usize| {
        let Bidder { shares, active, .. } = bidders[index];
        let untaxed = level.saturating_mul(u128::from(shares.max(1))) >> LEVEL_BITS;
        let idle = untaxed.saturating_sub(u128::from(active));
        untaxed - idle + idle.saturating_mul(kept_percent) / 100
    };
    // A taxed bid of at least 1 share reaches every upper bound at a hundred times the level that an untaxed
    // one needs.
    fill_by(total, &low, &high, ((sum(&high) + 1) * 100) << LEVEL_BITS, bid)
}

/// A higher tax would ask for a level without bound.
pub(crate) const TAX_PERCENT_MAX: u8 = 99;

/// The highest level below `exceeds` at which all bids, brought within their bounds, fit.
fn fill_by(total: u64, low: &[u64], high: &[u64], mut exceeds: u128, bid: impl Fn(u128, usize) -> u128) -> Vec<u64> {
    let at = |level: u128| {
        low.iter().zip(high).enumerate().map({
            let bid = &bid;
            move |(index, (&low, &high))| (bid(level, index).min(u128::from(high)) as u64).max(low)
        })
    };
    let mut fits = 0;
    while exceeds - fits > 1 {
        let level = fits + (exceeds - fits) / 2;
        let needed: u128 = at(level).map(u128::from).sum();
        if needed <= u128::from(total) { fits = level } else { exceeds = level }
    }
    at(fits).collect()
}

/// Divides `total` by climbing `rungs`, each a full set of allocations and none below the one before: the
/// highest rung that can be afforded, and the rest by weight towards the next one. What even the lowest needs
/// is given in any case.
pub(crate) fn climb(total: u64, rungs: &[Vec<u64>], weights: &[u64]) -> Vec<u64> {
    let affordable = rungs.iter().take_while(|rung| sum(rung) <= u128::from(total)).count();
    let low = &rungs[affordable.saturating_sub(1)];
    if affordable == 0 || affordable == rungs.len() {
        low.clone()
    } else {
        fill(total, low, &rungs[affordable], weights)
    }
}

/// A sum that cannot overflow.
pub(crate) fn sum(amounts: &[u64]) -> u128 {
    amounts.iter().copied().map(u128::from).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_weights_within_bounds_get_equal_parts() {
        assert_eq!(fill(90, &[0, 0, 0], &[100, 100, 100], &[7, 7, 7]), [30, 30, 30]);
    }

    #[test]
    fn what_one_cannot_take_goes_to_the_others_by_weight() {
        assert_eq!(fill(100, &[0, 0, 0], &[10, 100, 100], &[1, 1, 2]), [10, 30, 60]);
    }

    #[test]
    fn a_total_between_two_rungs_keeps_the_lower_and_stays_below_the_upper() {
        let rungs = [vec![10, 10], vec![10, 50], vec![60, 60]];
        assert_eq!(climb(5, &rungs, &[1, 1]), [10, 10]);
        assert_eq!(climb(40, &rungs, &[1, 1]), [10, 30]);
        assert_eq!(climb(80, &rungs, &[1, 1]), [30, 50]);
        assert_eq!(climb(500, &rungs, &[1, 1]), [60, 60]);
    }

    const MIB: u64 = 1 << 20;

    fn bidder(shares: u32, active: u64) -> Bidder {
        Bidder { low: 0, high: 256 * MIB, shares, active }
    }

    #[test]
    fn without_a_tax_an_idle_guest_is_entitled_to_as_much_as_a_busy_one() {
        assert_eq!(entitle(360 * MIB, &[bidder(1, 5 * MIB), bidder(1, 240 * MIB)], 0), [180 * MIB; 2]);
    }

    /// At the level of 272 MiB a share: 5 + (272 − 5) / 4 = 71.75, and 240 + (272 − 240) / 4 = 248.
    #[test]
    fn with_the_tax_all_pay_the_same_for_what_they_hold() {
        let total = 319 * MIB + 3 * MIB / 4;
        let given = entitle(total, &[bidder(1, 5 * MIB), bidder(1, 240 * MIB)], 75);
        assert!(given[0].abs_diff(71 * MIB + 3 * MIB / 4) <= 1 && given[1].abs_diff(248 * MIB) <= 1, "{given:?}");
    }

    #[test]
    fn busy_guests_are_entitled_by_their_shares_alone() {
        let busy = [bidder(1, 256 * MIB), bidder(2, 256 * MIB), bidder(3, 256 * MIB)];
        assert_eq!(entitle(240 * MIB, &busy, 75), [40 * MIB, 80 * MIB, 120 * MIB]);
    }

    proptest! {
        #[test]
        fn entitlements_use_what_there_is_and_more_shares_activity_or_less_tax_on_it_never_take(
            guests in proptest::collection::vec((0u64..1 << 38, 0u64..1 << 38, 1u32..100_000, 0u64..1 << 39), 1..10),
            part in 0.0f64..1.0, tax in 0u8..=99, who: prop::sample::Index, more in 1u32..1000,
        ) {
            let bidders: Vec<_> =
                guests.iter().map(|&(low, room, shares, active)| Bidder { low, high: low + room, shares, active }).collect();
            let bounds = |bound: fn(&Bidder) -> u64| bidders.iter().map(bound).map(u128::from).sum::<u128>() as f64;
            let total = (bounds(|b| b.low) + part * (bounds(|b| b.high) - bounds(|b| b.low))) as u64;
            let given = entitle(total, &bidders, tax);
            prop_assert!(given.iter().zip(&bidders).all(|(given, bidder)| (bidder.low..=bidder.high).contains(given)));
            prop_assert!((0..=bidders.len() as i128).contains(&(i128::from(total) - sum(&given) as i128)));
            let who = who.index(bidders.len());
            let mut richer = bidders.clone();
            richer[who].shares += more;
            prop_assert!(entitle(total, &richer, tax)[who] >= given[who]);
            let mut busier = bidders.clone();
            busier[who].active += u64::from(more) << 20;
            prop_assert!(entitle(total, &busier, tax)[who] >= given[who]);
        }

        #[test]
        fn a_filling_uses_all_there_is_but_a_byte_a_guest(
            guests in proptest::collection::vec((0u64..1 << 40, 0u64..1 << 40, 1u64..1 << 43), 1..12), part in 0.0f64..1.0,
        ) {
            let low: Vec<u64> = guests.iter().map(|guest| guest.0).collect();
            let high: Vec<u64> = guests.iter().map(|guest| guest.0 + guest.1).collect();
            let weights: Vec<u64> = guests.iter().map(|guest| guest.2).collect();
            let total = (sum(&low) as f64 + part * (sum(&high) - sum(&low)) as f64) as u64;
            let filled = fill(total, &low, &high, &weights);
            prop_assert!(filled.iter().zip(&low).zip(&high).all(|((x, low), high)| low <= x && x <= high));
            let slack = i128::from(total) - sum(&filled) as i128;
            prop_assert!((0..=guests.len() as i128).contains(&slack), "{slack} left of {total}");
        }
    }
}
