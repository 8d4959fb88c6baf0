//! How far a guest could be squeezed now: what would be left of it if all that can go went where it can go.
//!
//! ```text
//!   floor = overhead + noise that no slot takes + pool that no slot takes
//!
//!   noise   private pages that did not compress when last tried; others count as dense as the pool is
//!   slot    a free one of a swap file; none without one, when it is full, or left alone after an error
//! ```
//!
//! A lower bound that grows as the evictor learns: who is to live on it needs room for the pages that it
//! works on besides.

use wire::PAGE_BYTES;

/// What a pool takes however little is in it: a slab of each of its 23 classes. It says nothing of how dense
/// it is.
const POOL_BYTES_ANYHOW: u64 = 23 << 14;

/// What a guest holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    pub private: u64,
    /// Part of `private`.
    pub noise: u64,
    /// Pages in the pool.
    pub compressed: u64,
    pub pool_bytes: u64,
    pub overhead_bytes: u64,
    /// Pages that the swap file would take.
    pub slots: u64,
}

impl Held {
    /// What it cannot go below, bytes.
    pub fn floor_bytes(&self) -> u64 {
        let page = PAGE_BYTES as u64;
        let noise = self.noise.min(self.private);
        let untried = self.private - noise;
        let density = self.pool_bytes.saturating_sub(POOL_BYTES_ANYHOW) as f64 / (self.compressed.max(1) * page) as f64;
        let pool_bytes = self.pool_bytes as f64 + (untried * page) as f64 * density.min(1.0);
        let stuck = noise.saturating_sub(self.slots);
        let slots = self.slots.saturating_sub(noise);
        let stored = self.compressed + untried;
        let kept = stored.saturating_sub(slots) as f64 / stored.max(1) as f64;
        self.overhead_bytes + stuck * page + (pool_bytes * kept) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const PAGES: u64 = MIB / PAGE_BYTES as u64;

    fn held() -> Held {
        Held {
            private: 100 * PAGES,
            noise: 60 * PAGES,
            compressed: 80 * PAGES,
            pool_bytes: 40 * MIB + POOL_BYTES_ANYHOW,
            overhead_bytes: 3 * MIB,
            slots: 0,
        }
    }

    #[test]
    fn without_a_swap_file_noise_stays_and_the_rest_is_as_dense_as_the_pool() {
        assert_eq!(held().floor_bytes(), (3 + 60 + 40 + 20) * MIB + POOL_BYTES_ANYHOW);
        let untried = Held { private: 100 * PAGES, overhead_bytes: 3 * MIB, pool_bytes: MIB / 8, ..Held::default() };
        assert_eq!(untried.floor_bytes(), 3 * MIB + MIB / 8, "nothing is known of its pages");
    }

    #[test]
    fn with_room_in_a_swap_file_only_the_overhead_stays_and_with_little_room_what_it_does_not_take() {
        let with = |mib: u64| Held { slots: mib * PAGES, ..held() }.floor_bytes();
        assert_eq!(with(60 + 80 + 40), 3 * MIB);
        assert_eq!(with(50), (3 + 10 + 40 + 20) * MIB + POOL_BYTES_ANYHOW);
        assert!((0..200).map(with).is_sorted_by(|less, more| less >= more));
    }
}
