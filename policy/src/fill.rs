//! Water-filling: one amount divided by weight between lower and upper bounds, exactly.
//!
//! Guest `i` gets `clamp(level × weight_i, low_i, high_i)`; the level is the highest whose sum fits. So those who hold most for
//! their weight are the first to lose and the last to gain. The level is a fixed-point number fine enough that one step of it
//! moves nobody by more than a byte: what is left over is less than a byte a guest, and a larger weight never gets less.

/// Fraction bits of the level: more than a weight has bits (32 of shares, 11 of need).
const LEVEL_BITS: u32 = 48;

/// Divides `total` between `low` and `high`. A total beyond the bounds gives the bounds.
fn fill(total: u64, low: &[u64], high: &[u64], weights: &[u64]) -> Vec<u64> {
    let at = |level: u128| {
        low.iter().zip(high).zip(weights).map(move |((&low, &high), &weight)| {
            let wanted = level.saturating_mul(u128::from(weight)) >> LEVEL_BITS;
            (wanted.min(u128::from(high)) as u64).max(low)
        })
    };
    // Above the highest level, every weight of at least 1 is at its upper bound.
    let (mut fits, mut exceeds) = (0, (sum(high) + 1) << LEVEL_BITS);
    while exceeds - fits > 1 {
        let level = fits + (exceeds - fits) / 2;
        let needed: u128 = at(level).map(u128::from).sum();
        if needed <= u128::from(total) { fits = level } else { exceeds = level }
    }
    at(fits).collect()
}

/// Divides `total` by climbing `rungs`, each a full set of allocations and none below the one before: the highest rung that can be
/// afforded, and the rest by weight towards the next one. What even the lowest needs is given in any case.
pub(crate) fn climb<const RUNGS: usize>(total: u64, rungs: &[Vec<u64>; RUNGS], weights: &[u64]) -> Vec<u64> {
    let affordable = rungs.iter().take_while(|rung| sum(rung) <= u128::from(total)).count();
    let low = &rungs[affordable.saturating_sub(1)];
    if affordable == 0 || affordable == RUNGS { low.clone() } else { fill(total, low, &rungs[affordable], weights) }
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

    proptest! {
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
