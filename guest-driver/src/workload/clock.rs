//! `clock`: half of its memory is filled once, and from then on it does nothing but read its clock: a gap
//! between two readings is time that somebody took.
//!
//! What operating systems do to programs that would need every cycle is called noise, and is measured like
//! this (Petrini, Kerbyson and Pakin, SC 2003). The memory is there to be scanned, sampled and reclaimed
//! meanwhile.

use wire::machine::{METER_BASE, METER_WAIT};

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::page::Texture;
use crate::set::{Rule, Set};
use crate::workload::work::{STEP_PAGES, Work, space};

/// Thousandths of RAM that are filled.
const FILL_PERMILLE: u32 = 500;
/// Readings in a step: some ten microseconds.
const STEP_READINGS: u32 = 256;
/// A gap of more ticks than this is written down: some microseconds, more than the loop with all that is
/// between two steps of it.
const GAP_TICKS: u64 = 10_000;

/// The pages, and the last reading.
#[derive(Debug)]
pub struct Clock {
    set: Set,
    last: Option<u64>,
}

impl Clock {
    /// Filled a step at a time.
    pub fn new<M: Machine>(cpu: &mut Cpu<'_, M>) -> Clock {
        let pages = cpu.share(FILL_PERMILLE);
        let rule = Rule::Own { space: space::CLOCK, generation: 0, texture: Texture::Half };
        Clock { set: Set::new(cpu, pages, rule), last: None }
    }
}

impl<M: Machine> Work<M> for Clock {
    fn step(&mut self, cpu: &mut Cpu<'_, M>) {
        if self.last.is_none() && (0..STEP_PAGES).all(|_| self.set.push(cpu, 1)) {
            return;
        }
        let mut last = self.last.unwrap_or_else(|| cpu.ticks());
        for _ in 0..STEP_READINGS {
            let mut now = cpu.ticks();
            let gap = now.wrapping_sub(last);
            if gap > GAP_TICKS {
                cpu.mmio_write(METER_BASE + METER_WAIT, u32::try_from(gap).unwrap_or(u32::MAX));
                // Writing it down is no gap.
                now = cpu.ticks();
            }
            last = now;
        }
        self.last = Some(last);
        cpu.operated(1);
    }

    fn verify_all(&mut self, cpu: &mut Cpu<'_, M>) {
        self.set.verify_all(cpu);
    }

    fn release(&mut self, cpu: &mut Cpu<'_, M>) {
        self.set.release(cpu);
    }
}
