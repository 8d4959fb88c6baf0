//! `gups`: random updates of single words all over a table (HPCC RandomAccess).
//!
//! Updates are exclusive-ors drawn from a stream of random numbers, so running the same stream again undoes
//! them: every other pass the table must be as it was at the start, word for word.

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::memory::PAGE_WORDS;
use crate::page::{Texture, is_fresh_third};
use crate::rng::{Rng, mix};
use crate::set::{Rule, Set, ZERO};
use crate::workload::work::{STEP_PAGES, Work, space};

/// Updates of a pass for each page of the table.
const UPDATES_PER_PAGE: u32 = 4;
/// Updates of a step; each may fault.
const STEP_UPDATES: u32 = 64;

#[derive(Debug)]
enum Stage {
    Growing,
    /// Updates done so far, and whether they undo those of the pass before.
    Updating {
        done: u32,
        undo: bool,
    },
    /// Position of the next page to verify.
    Verifying(u32),
}

/// The table.
#[derive(Debug)]
pub struct Gups {
    table: Set,
    stage: Stage,
    stream: Rng,
    pass: u64,
}

impl Gups {
    /// A table of so many thousandths of RAM.
    pub fn new<M: Machine>(cpu: &mut Cpu<'_, M>, permille: u32) -> Gups {
        let rule = Rule::Own { space: space::GUPS, generation: 0, texture: cpu.texture(Texture::Random) };
        let pages = cpu.share(permille);
        Gups { table: Set::new(cpu, pages, rule), stage: Stage::Growing, stream: Rng::new(0), pass: 0 }
    }

    fn initial<M: Machine>(cpu: &Cpu<'_, M>, index: u32, word: usize) -> u64 {
        let third = cpu.texture(Texture::Random) == Texture::Third;
        let word = if third && !is_fresh_third(word) { PAGE_WORDS } else { word };
        mix(cpu.boot().seed ^ cpu.address(space::GUPS, index) << 9 ^ u64::from(cpu.boot().guest) << 40 ^ word as u64)
    }

    fn updates(&self) -> u32 {
        self.table.len().saturating_mul(UPDATES_PER_PAGE)
    }

    fn restart_stream(&mut self) {
        self.stream = Rng::new(self.pass);
    }

    fn update<M: Machine>(&mut self, cpu: &mut Cpu<'_, M>) {
        let index = self.stream.below(self.table.len());
        let value = self.stream.next_u64();
        let (gfn, _) = self.table.page(cpu, index);
        let (page, word) = (cpu.ram().page(gfn), value as usize % PAGE_WORDS);
        page.set_u64(word, page.u64(word) ^ value);
    }

    fn verify<M: Machine>(&self, cpu: &mut Cpu<'_, M>, index: u32) {
        let (gfn, _) = self.table.page(cpu, index);
        let page = cpu.ram().page(gfn);
        let right = (0..PAGE_WORDS).all(|word| page.u64(word) == Self::initial(cpu, index, word));
        cpu.checked(gfn, right);
    }
}

impl<M: Machine> Work<M> for Gups {
    fn step(&mut self, cpu: &mut Cpu<'_, M>) {
        match self.stage {
            Stage::Growing => {
                for _ in 0..STEP_PAGES {
                    if !self.table.push(cpu, ZERO) {
                        self.stage = Stage::Updating { done: 0, undo: false };
                        self.restart_stream();
                        break;
                    }
                    let index = self.table.len() - 1;
                    let page = cpu.ram().page(self.table.page(cpu, index).0);
                    (0..PAGE_WORDS).for_each(|word| page.set_u64(word, Self::initial(cpu, index, word)));
                }
                if self.table.is_empty() {
                    self.stage = Stage::Growing;
                    cpu.park(5);
                }
            }
            Stage::Updating { done, undo } => {
                let end = self.updates().min(done + STEP_UPDATES);
                (done..end).for_each(|_| self.update(cpu));
                cpu.operated(u64::from(end - done));
                self.stage = Stage::Updating { done: end, undo };
                if end == self.updates() {
                    self.restart_stream();
                    self.stage = if undo { Stage::Verifying(0) } else { Stage::Updating { done: 0, undo: true } };
                }
            }
            Stage::Verifying(from) => {
                let end = self.table.len().min(from + STEP_PAGES);
                (from..end).for_each(|index| self.verify(cpu, index));
                self.stage = Stage::Verifying(end);
                if end == self.table.len() {
                    self.pass += 1;
                    self.restart_stream();
                    self.stage = Stage::Updating { done: 0, undo: false };
                }
            }
        }
    }

    fn verify_all(&mut self, cpu: &mut Cpu<'_, M>) {
        if let Stage::Updating { done, undo } = self.stage {
            // Undo what is done: of the first pass its updates so far, of the second those that are left.
            let left = if undo { self.updates() - done } else { done };
            if !undo {
                self.restart_stream();
            }
            (0..left).for_each(|_| self.update(cpu));
            self.stage = Stage::Verifying(0);
        }
        (0..self.table.len()).for_each(|index| self.verify(cpu, index));
    }

    fn release(&mut self, cpu: &mut Cpu<'_, M>) {
        self.table.release(cpu);
    }
}
