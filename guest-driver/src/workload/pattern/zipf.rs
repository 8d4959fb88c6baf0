//! `zipf`: reads and writes of skewed popularity, as caches and databases see them; half-compressible pages.
//!
//! A set whose size the host has chosen is a database: it is needed whole, and the balloon gives way to it.
//! Otherwise it is a cache, which does with what it gets.

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::page::Texture;
use crate::set::{Rule, Set};
use crate::workload::work::{STEP_PAGES, Work, space};

/// Thousandths of RAM that it takes if the host says nothing.
const PERMILLE: u32 = 500;

/// The set.
#[derive(Debug)]
pub struct Zipf {
    set: Set,
    needed: bool,
}

impl Zipf {
    /// As large a set as the host has chosen, or a cache of half of RAM.
    pub fn chosen<M: Machine>(cpu: &mut Cpu<'_, M>) -> Zipf {
        match cpu.boot().active_permille() {
            Some([permille, _]) => Zipf { needed: true, ..Zipf::new(cpu, permille) },
            None => Zipf::new(cpu, PERMILLE),
        }
    }

    /// A set that will grow to so many thousandths of RAM, if it can.
    pub fn new<M: Machine>(cpu: &mut Cpu<'_, M>, permille: u32) -> Zipf {
        let rule = Rule::Own { space: space::ZIPF, generation: 0, texture: cpu.texture(Texture::Half) };
        let pages = cpu.share(permille);
        Zipf { set: Set::new(cpu, pages, rule), needed: false }
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
        let push = if self.needed { Set::push_needed } else { Set::push };
        let grown = (0..STEP_PAGES).take_while(|_| push(&mut self.set, cpu, 1)).count();
        // What is not to be had now is not waited for at each step.
        self.needed &= grown == STEP_PAGES as usize;
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
