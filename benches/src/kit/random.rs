//! Repeatable random numbers: both sides of a comparison must get the same.

/// Marsaglia's xorshift64 (2003).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence with this number.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1)
    }

    /// The sequence that goes on from this word, made odd.
    pub fn after(word: u64) -> Random {
        Random(word | 1)
    }

    /// The next word.
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The next number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }

    /// The next number from 0 to 1.
    pub fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Puts them into no order (Fisher and Yates).
    pub fn shuffle(&mut self, pages: &mut [u32]) {
        for last in (1..pages.len()).rev() {
            pages.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}
