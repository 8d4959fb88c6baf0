//! S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi; SOSP 2023): a small queue for newcomers, a main one for those that
//! came back, and ghosts.

use std::collections::VecDeque;

use crate::pager::victims::policy::{Policy, Sees};

/// Accesses that are counted at most.
const USES_MAX: u8 = 3;

/// The queues, oldest first.
pub struct S3Fifo {
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    uses: Vec<u8>,
    /// By page: the number of its eviction, if there was one.
    left: Vec<Option<usize>>,
    evictions: usize,
    capacity: usize,
    sees: Sees,
}

impl S3Fifo {
    /// For pages below `pages`, `capacity` of which are resident. One that sees faults alone counts a return
    /// as a use.
    pub fn new(pages: usize, capacity: usize, sees: Sees) -> S3Fifo {
        S3Fifo {
            small: VecDeque::new(),
            main: VecDeque::new(),
            uses: vec![0; pages],
            left: vec![None; pages],
            evictions: 0,
            capacity,
            sees,
        }
    }

    /// The page leaves, as a ghost.
    fn leave(&mut self, page: u32) -> u32 {
        self.evictions += 1;
        self.left[page as usize] = Some(self.evictions);
        page
    }
}

impl Policy for S3Fifo {
    fn fault(&mut self, page: u32) {
        // As many ghosts as the main queue has room for: nine tenths.
        let ghosts = self.capacity * 9 / 10;
        let returned = self.left[page as usize].is_some_and(|left| self.evictions - left <= ghosts);
        self.uses[page as usize] = u8::from(returned && self.sees == Sees::Faults);
        if returned { self.main.push_back(page) } else { self.small.push_back(page) }
    }

    fn hit(&mut self, page: u32) {
        if self.sees == Sees::Hits {
            let uses = &mut self.uses[page as usize];
            *uses = (*uses + 1).min(USES_MAX);
        }
    }

    fn evict(&mut self) -> u32 {
        loop {
            let newcomer = self.small.len() * 10 >= self.capacity || self.main.is_empty();
            let queue = if newcomer { &mut self.small } else { &mut self.main };
            let page = queue.pop_front().expect("a resident page");
            let uses = &mut self.uses[page as usize];
            if *uses == 0 {
                return self.leave(page);
            }
            *uses = if newcomer { 0 } else { *uses - 1 };
            self.main.push_back(page);
        }
    }
}
