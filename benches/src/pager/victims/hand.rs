//! A hand over all of memory and lives that a return earns: the pager's policy, its parts, and the clock.

use crate::pager::victims::policy::Policy;

/// Where the hand goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By address.
    Addresses,
    /// As the pager's.
    Blocks,
}

/// The hand, and what the page-state table would remember.
pub struct Hand {
    hand: pager::rules::victims::Hand,
    order: Order,
    at: u32,
    /// By page: its lives, if it is resident.
    lives: Vec<Option<u8>>,
    /// By page: the number of its eviction, if there was one.
    left: Vec<Option<u64>>,
    evictions: u64,
    resident: u64,
    /// Lives by pages evicted meanwhile and pages resident.
    earns: fn(u64, u64) -> u8,
}

impl Hand {
    /// For pages below `pages`.
    pub fn new(pages: usize, order: Order, earns: fn(u64, u64) -> u8) -> Hand {
        Hand {
            hand: pager::rules::victims::Hand::new(pages as u32, 7),
            order,
            at: 0,
            lives: vec![None; pages],
            left: vec![None; pages],
            evictions: 0,
            resident: 0,
            earns,
        }
    }

    fn step(&mut self) -> u32 {
        self.at = (self.at + 1) % self.lives.len() as u32;
        if self.order == Order::Blocks { self.hand.step().0 } else { self.at }
    }
}

impl Policy for Hand {
    fn fault(&mut self, page: u32) {
        let away = self.left[page as usize].map_or(u64::MAX / 64, |left| self.evictions - left);
        self.lives[page as usize] = Some((self.earns)(away, self.resident));
        self.resident += 1;
    }

    fn evict(&mut self) -> u32 {
        loop {
            let page = self.step();
            match self.lives[page as usize] {
                None => {}
                Some(0) => {
                    self.lives[page as usize] = None;
                    (self.evictions, self.resident) = (self.evictions + 1, self.resident - 1);
                    self.left[page as usize] = Some(self.evictions);
                    return page;
                }
                Some(lives) => self.lives[page as usize] = Some(lives - 1),
            }
        }
    }
}
