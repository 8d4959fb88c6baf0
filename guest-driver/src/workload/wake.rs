//! `wake`: memory that is filled and left alone until it has been reclaimed, then `hog`, in all guests at
//! once.
//!
//! What a host that promised too much is afraid of: nobody has touched anything for a while, and then
//! everybody wants everything. Only what is done after waking counts as operations.

use core::sync::atomic::Ordering::Relaxed;

use wire::machine::Workload;

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::page::Texture;
use crate::set::{Rule, Set};
use crate::workload::hog::Hog;
use crate::workload::work::{STEP_PAGES, Work, space};

/// When guests wake, on their own clocks: a machine with a CPU for eight of them has filled and reclaimed
/// their memory by then.
const WAKE_MS: u64 = 20_000;
/// What they fill before, in thousandths of RAM.
const ASLEEP_PERMILLE: u32 = 400;

/// The pages nobody touches, then the hog's.
#[derive(Debug)]
pub struct Wake {
    asleep: Set,
    hog: Option<Hog>,
}

impl Wake {
    /// Filled a step at a time.
    pub fn new<M: Machine>(cpu: &mut Cpu<'_, M>) -> Wake {
        let rule = Rule::Own { space: space::WAKE, generation: 0, texture: Texture::Half };
        let pages = cpu.share(ASLEEP_PERMILLE);
        cpu.report().phase.store(Workload::Idle as u64, Relaxed);
        Wake { asleep: Set::new(cpu, pages, rule), hog: None }
    }
}

impl<M: Machine> Work<M> for Wake {
    fn step(&mut self, cpu: &mut Cpu<'_, M>) {
        if let Some(hog) = &mut self.hog {
            return hog.step(cpu);
        }
        if cpu.now_ms() >= WAKE_MS {
            self.asleep.verify_all(cpu);
            self.asleep.release(cpu);
            cpu.report().phase.store(Workload::Hog as u64, Relaxed);
            self.hog = Some(Hog::new(cpu, 1000, 0));
            return;
        }
        for _ in 0..STEP_PAGES {
            if !self.asleep.push(cpu, 1) {
                return cpu.park(10);
            }
        }
    }

    fn verify_all(&mut self, cpu: &mut Cpu<'_, M>) {
        self.asleep.verify_all(cpu);
        if let Some(hog) = &mut self.hog {
            hog.verify_all(cpu);
        }
    }

    fn release(&mut self, cpu: &mut Cpu<'_, M>) {
        self.asleep.release(cpu);
        if let Some(hog) = &mut self.hog {
            hog.release(cpu);
        }
    }
}
