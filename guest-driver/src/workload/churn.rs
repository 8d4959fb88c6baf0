//! `churn`: batches of pages are allocated and zeroed, as an operating system does, partly written, verified,
//! and freed.

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::page::Texture;
use crate::set::{Rule, Set, ZERO};
use crate::workload::work::{STEP_PAGES, Work, space};

#[derive(Debug)]
enum Stage {
    /// Until the batch is complete or memory is out.
    Allocating,
    /// Position of the next page to verify.
    Verifying(u32),
    Freeing,
}

/// One batch after the other.
#[derive(Debug)]
pub struct Churn {
    batch: Set,
    stage: Stage,
    round: u32,
}

impl Churn {
    /// Batches of so many thousandths of RAM.
    pub fn new<M: Machine>(cpu: &mut Cpu<'_, M>, permille: u32, generation: u16) -> Churn {
        let rule = Rule::Own { space: space::CHURN, generation, texture: Texture::Text };
        let pages = cpu.share(permille);
        Churn { batch: Set::new(cpu, pages, rule), stage: Stage::Allocating, round: 1 }
    }
}

impl<M: Machine> Work<M> for Churn {
    fn step(&mut self, cpu: &mut Cpu<'_, M>) {
        match self.stage {
            Stage::Allocating => {
                for _ in 0..STEP_PAGES {
                    if !self.batch.push(cpu, ZERO) {
                        self.stage = Stage::Verifying(0);
                        break;
                    }
                    // Every other page is used for something; the others stay zero, as in any program's heap.
                    let index = self.batch.len() - 1;
                    if index.is_multiple_of(2) {
                        self.batch.write(cpu, index, self.round);
                    }
                    cpu.operated(1);
                }
                if self.batch.is_empty() {
                    cpu.park(5);
                }
            }
            Stage::Verifying(from) => {
                let end = self.batch.len().min(from + STEP_PAGES);
                (from..end).for_each(|index| self.batch.verify(cpu, index));
                self.stage = if end == self.batch.len() { Stage::Freeing } else { Stage::Verifying(end) };
            }
            Stage::Freeing => {
                (0..STEP_PAGES).for_each(|_| self.batch.pop(cpu));
                if self.batch.is_empty() {
                    self.stage = Stage::Allocating;
                    self.round = (self.round + 1).max(1);
                }
            }
        }
    }

    fn verify_all(&mut self, cpu: &mut Cpu<'_, M>) {
        self.batch.verify_all(cpu);
    }

    fn release(&mut self, cpu: &mut Cpu<'_, M>) {
        self.batch.release(cpu);
    }
}
