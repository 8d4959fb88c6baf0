//! `zipf`: reads and writes of skewed popularity, as caches and databases see them; half-compressible pages.

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::page::Texture;
use crate::set::{Rule, Set};
use crate::workload::{STEP_PAGES, Work, space};

/// The set.
#[derive(Debug)]
pub struct Zipf {
    set: Set,
}

impl Zipf {
    /// A set that will grow to so many thousandths of RAM.
    pub fn new<M: Machine>(cpu: &mut Cpu<'_, M>, permille: u32) -> Zipf {
        let rule = Rule::Own { space: space::ZIPF, generation: 0, texture: cpu.texture(Texture::Half) };
        let pages = cpu.share(permille);
        Zipf { set: Set::new(cpu, pages, rule) }
    }

    /// Grows the set to the end, unless memory or time ends first.
    pub fn fill<M: Machine>(&mut self, cpu: &mut Cpu<'_, M>) {
        while !cpu.stopping() && self.set.push(cpu, 1) {
            cpu.poll();
        }
    }

    /// One operation: nine reads to a write, more of the lower pages.
    pub fn touch<M: Machine>(&mut self, cpu: &mut Cpu<'_, M>) {
        if self.set.is_empty() {
            return;
        }
        let index = cpu.rng.zipf_below(self.set.len());
        if cpu.rng.one_in(10) {
            self.set.rewrite(cpu, index);
        } else {
            self.set.verify(cpu, index);
        }
        cpu.operated(1);
    }
}

impl<M: Machine> Work<M> for Zipf {
    fn step(&mut self, cpu: &mut Cpu<'_, M>) {
        let grown = (0..STEP_PAGES).take_while(|_| self.set.push(cpu, 1)).count();
        if grown == 0 {
            (0..STEP_PAGES).for_each(|_| self.touch(cpu));
        }
        if self.set.is_empty() {
            cpu.park(5);
        }
    }

    fn verify_all(&mut self, cpu: &mut Cpu<'_, M>) {
        self.set.verify_all(cpu);
    }

    fn release(&mut self, cpu: &mut Cpu<'_, M>) {
        self.set.release(cpu);
    }
}
