//! `zero`: a buffer that is written, then zeroed and kept: the pages a host gets back for nothing.

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::page::Texture;
use crate::set::{Rule, Set, ZERO};
use crate::workload::work::{STEP_PAGES, Work, space};

/// The buffer, and how many of its pages are zeroed.
#[derive(Debug)]
pub struct Zero {
    set: Set,
    zeroed: u32,
}

impl Zero {
    /// A buffer of so many thousandths of RAM.
    pub fn new<M: Machine>(cpu: &mut Cpu<'_, M>, permille: u32, generation: u16) -> Zero {
        let rule = Rule::Own { space: space::ZERO, generation, texture: Texture::Text };
        let pages = cpu.share(permille);
        Zero { set: Set::new(cpu, pages, rule), zeroed: 0 }
    }
}

impl<M: Machine> Work<M> for Zero {
    fn step(&mut self, cpu: &mut Cpu<'_, M>) {
        let written = match self.zeroed {
            0 => (0..STEP_PAGES).take_while(|_| self.set.push(cpu, 1)).count() as u32,
            _ => 0,
        };
        if written == 0 {
            let end = self.set.len().min(self.zeroed + STEP_PAGES);
            for index in self.zeroed..end {
                self.set.verify(cpu, index);
                self.set.write(cpu, index, ZERO);
            }
            self.zeroed = end;
            self.set.verify_any(cpu);
        }
        cpu.operated(1);
        if self.zeroed == self.set.len() {
            // Kept, hardly looked at.
            cpu.park(1);
        }
    }

    fn verify_all(&mut self, cpu: &mut Cpu<'_, M>) {
        self.set.verify_all(cpu);
    }

    fn release(&mut self, cpu: &mut Cpu<'_, M>) {
        self.set.release(cpu);
    }
}
