//! Any resident page.

use crate::kit::random::Random;
use crate::pager::victims::policy::Policy;

/// The pages, and the dice.
pub struct AnyPage {
    held: Vec<u32>,
    random: Random,
}

impl AnyPage {
    /// No page yet.
    pub fn new() -> AnyPage {
        AnyPage { held: Vec::new(), random: Random::new(3) }
    }
}

impl Policy for AnyPage {
    fn fault(&mut self, page: u32) {
        self.held.push(page);
    }

    fn evict(&mut self) -> u32 {
        let any = self.random.below(self.held.len() as u64);
        self.held.swap_remove(any as usize)
    }
}
