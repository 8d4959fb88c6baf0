//! `tide`: fills its memory once, and from then on uses a known part of it: so much until the tide turns, so
//! much afterwards.
//!
//! What policy is measured with: how much of the guest is active is known, evenly used, and changes at a
//! known time. Only what is done after filling counts as operations. The set is needed whole: the balloon
//! gives way to it.

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::page::Texture;
use crate::set::{Rule, Set};
use crate::workload::work::{STEP_PAGES, Work, space};

/// When the tide turns, on the guest's own clock: a guest of a GiB has filled its memory by then, and been
/// asked for some of it.
pub const TURN_MS: u64 = 30_000;
/// The rest is for the guest's own books, and for what it reads in passing.
const FILL_PERMILLE: u32 = 940;
/// Parts of RAM used before and after, where the host says nothing.
const ACTIVE_PERMILLE: [u32; 2] = [100, 900];

/// The pages, the first of which are in use.
#[derive(Debug)]
pub struct Tide {
    set: Set,
    filled: bool,
}

impl Tide {
    /// Filled a step at a time.
    pub fn new<M: Machine>(cpu: &mut Cpu<'_, M>) -> Tide {
        let rule = Rule::Own { space: space::TIDE, generation: 0, texture: Texture::Half };
        let pages = cpu.share(FILL_PERMILLE);
        Tide { set: Set::new(cpu, pages, rule), filled: false }
    }

    /// Pages in use now.
    fn active<M: Machine>(&self, cpu: &Cpu<'_, M>) -> u32 {
        let [before, after] = cpu.boot().active_permille().unwrap_or(ACTIVE_PERMILLE);
        cpu.share(if cpu.now_ms() < TURN_MS { before } else { after }).min(self.set.len())
    }
}

impl<M: Machine> Work<M> for Tide {
    fn step(&mut self, cpu: &mut Cpu<'_, M>) {
        // What the balloon gives back later is filled, too, a page a step.
        if self.filled {
            self.set.push(cpu, 1);
        } else if (0..STEP_PAGES).all(|_| self.set.push_needed(cpu, 1)) {
            return;
        }
        self.filled = true;
        let active = self.active(cpu);
        if active == 0 {
            cpu.operated(1);
            return cpu.park(100);
        }
        for _ in 0..STEP_PAGES {
            let index = cpu.rng.below(active);
            if cpu.rng.one_in(10) {
                self.set.rewrite(cpu, index)
            } else {
                self.set.verify(cpu, index)
            }
            cpu.operated(1);
        }
    }

    fn verify_all(&mut self, cpu: &mut Cpu<'_, M>) {
        self.set.verify_all(cpu);
    }

    fn release(&mut self, cpu: &mut Cpu<'_, M>) {
        self.set.release(cpu);
    }
}
