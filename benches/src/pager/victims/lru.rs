//! Least recently used.

use std::collections::BTreeSet;

use crate::pager::victims::policy::Policy;

/// Pages by last access.
pub struct Lru {
    last: Vec<u64>,
    order: BTreeSet<(u64, u32)>,
    now: u64,
}

impl Lru {
    /// For pages below `pages`.
    pub fn new(pages: usize) -> Lru {
        Lru { last: vec![0; pages], order: BTreeSet::new(), now: 0 }
    }
}

impl Policy for Lru {
    fn fault(&mut self, page: u32) {
        self.now += 1;
        self.last[page as usize] = self.now;
        self.order.insert((self.now, page));
    }

    fn hit(&mut self, page: u32) {
        self.order.remove(&(self.last[page as usize], page));
        self.fault(page);
    }

    fn evict(&mut self) -> u32 {
        self.order.pop_first().expect("a resident page").1
    }
}
