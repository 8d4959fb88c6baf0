//! Which pages go: how long a page is spared, and in what order the hand goes round.
//!
//! There are no accessed bits to read, so a page's signs of life are its returns: what the guest needs is
//! faulted back in, and the sooner the more often it is needed. How many other pages went while it was *away*
//! says how far it is beyond what fits; the nearer, the more *lives* it gets. Each pass of the hand takes
//! one, and a page without any goes.
//!
//! ```text
//!   away, over the pages resident    < 1/32   < 1/16   < 1/8   < 1/4   < 1/2   more, or never
//!   lives                              12       8        5       3       1       0
//!
//!   hand    a block of 32 pages, in order; then another block, in an order of its own each time round
//! ```
//!
//! Every page that is away is its own ghost: the page-state table remembers when it left, so ghosts cost
//! nothing and never run out.
//!
//! The hand goes by blocks because neighbours that leave together can come back together, and at random
//! because an order that a guest's own can fall into step with is the worst there is: a guest that sweeps
//! through more than fits, as streams and LRU lists do, would find each page gone just before it comes to it.
//! `docs/benchmarks.md` compares hit ratios with those of other policies.

use wire::Gfn;

/// Most lives.
pub const LIVES_MAX: u8 = 15;
/// What a page has that its guest has just written to and that was not away: it is spared once.
pub const LIVES_WRITTEN: u8 = 1;
/// What a page gets that does not compress, and would have to be written to the disk: a page kept away by the
/// disk costs some ten times what one kept away by the pool does (674 µs against 67, `docs/decisions.md`), so
/// it stays for as many rounds of the hand.
pub const LIVES_NOISE: u8 = 8;
/// Pages that the hand takes in a row.
const BLOCK_PAGES: u32 = 32;
/// Lives by how long a page was away: less than `resident / divisor` pages went meanwhile.
const LIVES: [(u64, u8); 5] = [(32, 12), (16, 8), (8, 5), (4, 3), (2, 1)];

/// Passes of the hand that a page survives which returns after `away` pages went, to a guest with `resident`
/// pages.
pub fn lives(away: u64, resident: u64) -> u8 {
    LIVES.iter().find(|(divisor, _)| away * divisor < resident).map_or(0, |&(_, lives)| lives)
}

/// Goes round all pages, over and over: every page once before any comes again.
pub struct Hand {
    pages: u32,
    random: u64,
    /// The block under way, its number in this round, and what separates blocks that follow each other.
    block: u32,
    round: u32,
    stride: u32,
    /// Pages of the block that were passed.
    passed: u32,
}

impl Hand {
    /// A hand over `pages` pages, at least one; equal seeds go the same way.
    pub fn new(pages: u32, seed: u64) -> Hand {
        let mut hand = Hand { pages, random: seed, block: 0, round: 0, stride: 1, passed: 0 };
        hand.begin_round();
        hand
    }

    /// The next page.
    pub fn step(&mut self) -> Gfn {
        let page = self.block * BLOCK_PAGES + self.passed;
        self.passed += 1;
        if self.passed == BLOCK_PAGES || page + 1 == self.pages {
            self.next_block();
        }
        Gfn(page)
    }

    fn next_block(&mut self) {
        let blocks = self.pages.div_ceil(BLOCK_PAGES);
        (self.passed, self.round) = (0, self.round + 1);
        self.block = ((u64::from(self.block) + u64::from(self.stride)) % u64::from(blocks)) as u32;
        if self.round == blocks {
            self.begin_round();
        }
    }

    /// `start + k * stride` comes to every block once if the stride has no factor in common with their
    /// number.
    fn begin_round(&mut self) {
        let blocks = self.pages.div_ceil(BLOCK_PAGES);
        self.round = 0;
        // Elsewhere than the round before, so that the two differ.
        self.block = (self.block + 1 + self.below(blocks - 1)) % blocks;
        // Of all numbers, three in five are coprime to a given one on average; 1 always is.
        self.stride = (0..64).map(|_| 1 + self.below(blocks)).find(|&stride| gcd(stride, blocks) == 1).unwrap_or(1);
    }

    /// A number below `bound`: splitmix64 (Steele, Lea, Flood 2014).
    fn below(&mut self, bound: u32) -> u32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(word ^ word >> 31) * u128::from(bound)) >> 64) as u32
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_page_is_passed_once_a_round_and_rounds_differ(pages in 1u32..5000, seed: u64) {
            let mut hand = Hand::new(pages, seed);
            let rounds = [0, 1].map(|_| (0..pages).map(|_| hand.step().0).collect::<Vec<_>>());
            for round in &rounds {
                prop_assert_eq!(round.iter().copied().collect::<HashSet<_>>().len(), pages as usize);
                prop_assert!(round.iter().all(|&page| page < pages));
            }
            prop_assert!(pages <= 100 * BLOCK_PAGES || rounds[0] != rounds[1]);
        }

        #[test]
        fn a_page_that_was_away_for_less_lives_longer(away in 0u64..10_000, more in 0u64..10_000, resident in 0u64..10_000) {
            prop_assert!(lives(away, resident) >= lives(away + more, resident));
            prop_assert!(lives(away, resident) <= LIVES_MAX);
        }
    }

    #[test]
    fn blocks_are_whole_so_that_neighbours_leave_together() {
        let mut hand = Hand::new(1000 * BLOCK_PAGES, 7);
        for _ in 0..1000 {
            let first = hand.step().0;
            assert!(first.is_multiple_of(BLOCK_PAGES));
            assert!((1..BLOCK_PAGES).all(|i| hand.step().0 == first + i));
        }
    }
}
