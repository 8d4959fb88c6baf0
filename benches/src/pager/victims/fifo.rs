//! First in, first out.

use std::collections::VecDeque;

use crate::pager::victims::policy::Policy;

/// The queue, oldest first.
#[derive(Default)]
pub struct Fifo(VecDeque<u32>);

impl Policy for Fifo {
    fn fault(&mut self, page: u32) {
        self.0.push_back(page);
    }

    fn evict(&mut self) -> u32 {
        self.0.pop_front().expect("a resident page")
    }
}
