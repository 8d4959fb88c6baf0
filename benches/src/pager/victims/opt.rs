//! The page that is needed last: no policy misses less (Belady 1966).

use std::collections::BTreeSet;

use crate::pager::victims::policy::{Policy, pages};

/// Pages by next access.
pub struct Opt {
    /// By access: when its page is accessed next.
    next: Vec<usize>,
    now: usize,
    key: Vec<usize>,
    order: BTreeSet<(usize, u32)>,
}

impl Opt {
    /// Must be told every access of `trace`.
    pub fn new(trace: &[u32]) -> Opt {
        let mut next = vec![usize::MAX; trace.len()];
        let mut later = vec![usize::MAX; pages(trace)];
        for (at, &page) in trace.iter().enumerate().rev() {
            next[at] = std::mem::replace(&mut later[page as usize], at);
        }
        Opt { next, now: 0, key: vec![0; pages(trace)], order: BTreeSet::new() }
    }
}

impl Policy for Opt {
    fn fault(&mut self, page: u32) {
        let next = self.next[self.now];
        self.now += 1;
        self.key[page as usize] = next;
        self.order.insert((next, page));
    }

    fn hit(&mut self, page: u32) {
        self.order.remove(&(self.key[page as usize], page));
        self.fault(page);
    }

    fn evict(&mut self) -> u32 {
        self.order.pop_last().expect("a resident page").1
    }
}
