//! Random numbers without state worth mentioning: splitmix64 (Steele, Lea, Flood 2014).

/// Scrambles 64 bits, one to one.
#[inline(always)]
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// One stream of random numbers; equal seeds give equal streams.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of `seed`.
    pub const fn new(seed: u64) -> Rng {
        Rng(mix(seed))
    }

    /// The next 64 bits.
    #[inline(always)]
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, near enough to uniform; 0 when `bound` is 0.
    #[inline]
    pub fn below(&mut self, bound: u32) -> u32 {
        (((self.next_u64() >> 32) * u64::from(bound)) >> 32) as u32
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }

    /// A number below `bound` with Zipf's popularity for θ ≈ 1: number `k` is drawn in proportion to
    /// `1 / (k + 1)`, levelled within each power of two. (An exact draw takes a logarithm, for nothing a page
    /// cache would notice.)
    pub fn zipf_below(&mut self, bound: u32) -> u32 {
        let octaves = 32 - bound.leading_zeros();
        let octave = 1u32 << self.below(octaves);
        let rank = octave - 1 + self.below(octave);
        // The last octave may reach past the bound: fold it back into the rarer half.
        if rank < bound { rank } else { self.below(bound) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_stays_below_its_bound_and_prefers_the_first() {
        let mut rng = Rng::new(7);
        for bound in [1, 2, 3, 1000, 65_536] {
            let mut first = 0;
            for _ in 0..10_000 {
                let rank = rng.zipf_below(bound);
                assert!(rank < bound);
                first += u32::from(rank == 0);
            }
            assert!(first >= 10_000 / 20, "{first} of 10000 for bound {bound}");
        }
    }

    #[test]
    fn below_zero_is_zero() {
        assert_eq!(Rng::new(1).below(0), 0);
    }
}
