//! `idle`: nothing, for as long as nobody asks for anything.

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::workload::work::Work;

/// Parks.
#[derive(Debug)]
pub struct Idle {
    /// How long at a time.
    pub park_ms: u32,
}

impl<M: Machine> Work<M> for Idle {
    fn step(&mut self, cpu: &mut Cpu<'_, M>) {
        cpu.park(self.park_ms);
        cpu.operated(1);
    }

    fn verify_all(&mut self, _: &mut Cpu<'_, M>) {}

    fn release(&mut self, _: &mut Cpu<'_, M>) {}
}
