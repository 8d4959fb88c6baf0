//! `hog`: takes all it can get, incompressible, and sweeps over it, verifying and rewriting every page.

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::page::Texture;
use crate::set::{Rule, Set};
use crate::workload::work::{STEP_PAGES, Work, space};

/// The pages and the sweep's position.
#[derive(Debug)]
pub struct Hog {
    set: Set,
    next: u32,
}

impl Hog {
    /// At most so many thousandths of RAM.
    pub fn new<M: Machine>(cpu: &mut Cpu<'_, M>, permille: u32, generation: u16) -> Hog {
        let rule = Rule::Own { space: space::HOG, generation, texture: Texture::Random };
        let pages = cpu.share(permille);
        Hog { set: Set::new(cpu, pages, rule), next: 0 }
    }
}

impl<M: Machine> Work<M> for Hog {
    fn step(&mut self, cpu: &mut Cpu<'_, M>) {
        for _ in 0..STEP_PAGES {
            // A sweep starts with taking what has become free since the last.
            if self.next == 0 && self.set.push(cpu, 1) {
                cpu.operated(1);
                continue;
            }
            if self.set.is_empty() {
                cpu.park(5);
                return;
            }
            self.set.rewrite(cpu, self.next);
            self.next = (self.next + 1) % self.set.len();
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
