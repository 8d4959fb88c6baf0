//! SIEVE (Zhang, Yang, Yue, Vigfusson, Rashmi; NSDI 2024): a queue whose hand spares what was accessed and
//! leaves it where it is.

use std::collections::VecDeque;

use crate::pager::victims::policy::Policy;

/// The queue, oldest first, and the hand.
pub struct Sieve {
    queue: VecDeque<u32>,
    visited: Vec<bool>,
    hand: usize,
}

impl Sieve {
    /// For pages below `pages`.
    pub fn new(pages: usize) -> Sieve {
        Sieve { queue: VecDeque::new(), visited: vec![false; pages], hand: 0 }
    }
}

impl Policy for Sieve {
    fn fault(&mut self, page: u32) {
        self.visited[page as usize] = false;
        self.queue.push_back(page);
    }

    fn hit(&mut self, page: u32) {
        self.visited[page as usize] = true;
    }

    fn evict(&mut self) -> u32 {
        loop {
            if self.hand >= self.queue.len() {
                self.hand = 0;
            }
            let page = self.queue[self.hand];
            if !std::mem::take(&mut self.visited[page as usize]) {
                return self.queue.remove(self.hand).expect("the hand is inside");
            }
            self.hand += 1;
        }
    }
}
