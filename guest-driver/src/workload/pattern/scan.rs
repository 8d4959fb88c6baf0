//! `scan`: reads all of its pages in order and checks them, again and again: the least a reclaimer can do for
//! anybody who needs a page once a round.

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::page::Texture;
use crate::set::{Rule, Set};
use crate::workload::work::{STEP_PAGES, Work, space};

/// The pages and the scan's position.
#[derive(Debug)]
pub struct Scan {
    set: Set,
    next: u32,
}

impl Scan {
    /// A set that will grow to so many thousandths of RAM.
    pub fn new<M: Machine>(cpu: &mut Cpu<'_, M>, permille: u32) -> Scan {
        let rule = Rule::Own { space: space::SCAN, generation: 0, texture: cpu.texture(Texture::Half) };
        let pages = cpu.share(permille);
        Scan { set: Set::new(cpu, pages, rule), next: 0 }
    }
}

impl<M: Machine> Work<M> for Scan {
    fn step(&mut self, cpu: &mut Cpu<'_, M>) {
        // A round starts with taking what has become free since the last.
        if self.next == 0 && (0..STEP_PAGES).take_while(|_| self.set.push(cpu, 1)).count() > 0 {
            return;
        }
        if self.set.is_empty() {
            cpu.park(5);
            return;
        }
        let end = self.set.len().min(self.next + STEP_PAGES);
        (self.next..end).for_each(|index| self.set.verify(cpu, index));
        cpu.operated(u64::from(end - self.next));
        self.next = end % self.set.len();
    }

    fn verify_all(&mut self, cpu: &mut Cpu<'_, M>) {
        self.set.verify_all(cpu);
    }

    fn release(&mut self, cpu: &mut Cpu<'_, M>) {
        self.set.release(cpu);
    }
}
