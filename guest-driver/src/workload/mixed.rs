//! `mixed`, the default: a common part and a popular set, read all the time, and on top one phase after the
//! other.
//!
//! Every guest goes through the phases in another order, so that at any time some want memory that others do
//! not need.

use core::sync::atomic::Ordering::Relaxed;

use wire::machine::Workload;

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::set::Set;
use crate::workload::cache::Cache;
use crate::workload::churn::Churn;
use crate::workload::common::Common;
use crate::workload::hog::Hog;
use crate::workload::idle::Idle;
use crate::workload::pattern::gups::Gups;
use crate::workload::pattern::stream::Stream;
use crate::workload::pattern::zipf::Zipf;
use crate::workload::work::Work;
use crate::workload::zero::Zero;

/// Length of a phase: a 20 s run sees all of them but one.
const PHASE_MS: u64 = 3000;
/// Prime, so that any stride visits every phase.
const PHASES: u64 = 7;
/// Operations on the popular set in each step.
const STEP_TOUCHES: u32 = 16;
/// Files are read a little in every phase, so that, as under any operating system, the page cache comes to
/// fill what nothing else needs: memory a balloon can have without a loss.
const STEP_FILE_PAGES: u32 = 2;
/// The files, in thousandths of RAM.
const FILES_PERMILLE: u32 = 400;

#[derive(Debug)]
enum Phase {
    Idle(Idle),
    Churn(Churn),
    Stream(Stream),
    Gups(Gups),
    Hog(Hog),
    Zero(Zero),
    Cache,
}

/// The lasting part and the phase under way.
#[derive(Debug)]
pub struct Mixed {
    common: Common,
    zipf: Zipf,
    /// Lasts too: what is cached stays cached until somebody needs the memory.
    cache: Cache,
    phase: Phase,
    number: u64,
}

impl Mixed {
    /// Builds the lasting part.
    pub fn build<M: Machine>(cpu: &mut Cpu<'_, M>) -> Mixed {
        let common = Common::build(cpu, 300, Set::push);
        let mut zipf = Zipf::new(cpu, 200);
        zipf.fill(cpu);
        let cache = Cache::new(cpu, FILES_PERMILLE);
        let number = phase_number(cpu);
        let phase = Phase::start(cpu, number);
        Mixed { common, zipf, cache, phase, number }
    }

    fn work<M: Machine>(&mut self) -> &mut dyn Work<M> {
        match &mut self.phase {
            Phase::Idle(work) => work,
            Phase::Churn(work) => work,
            Phase::Stream(work) => work,
            Phase::Gups(work) => work,
            Phase::Hog(work) => work,
            Phase::Zero(work) => work,
            Phase::Cache => &mut self.cache,
        }
    }
}

fn phase_number<M: Machine>(cpu: &Cpu<'_, M>) -> u64 {
    cpu.now_ms() / PHASE_MS
}

impl Phase {
    fn start<M: Machine>(cpu: &mut Cpu<'_, M>, number: u64) -> Phase {
        let guest = u64::from(cpu.boot().guest);
        let stride = 1 + guest / PHASES % (PHASES - 1);
        let generation = number as u16;
        let (phase, workload) = match (guest + number * stride) % PHASES {
            0 => (Phase::Churn(Churn::new(cpu, 100, generation)), Workload::Churn),
            1 => (Phase::Stream(Stream::new(cpu, 60)), Workload::Stream),
            2 => (Phase::Hog(Hog::new(cpu, 80, generation)), Workload::Hog),
            3 => (Phase::Idle(Idle { park_ms: 5 }), Workload::Idle),
            4 => (Phase::Gups(Gups::new(cpu, 60)), Workload::Gups),
            5 => (Phase::Zero(Zero::new(cpu, 50, generation)), Workload::Mixed),
            _ => (Phase::Cache, Workload::Mixed),
        };
        cpu.report().phase.store(workload as u64, Relaxed);
        phase
    }
}

impl<M: Machine> Work<M> for Mixed {
    fn step(&mut self, cpu: &mut Cpu<'_, M>) {
        let number = phase_number(cpu);
        if number != self.number {
            self.number = number;
            // The cache outlasts its phase.
            if !matches!(self.phase, Phase::Cache) {
                self.work().verify_all(cpu);
                self.work().release(cpu);
            }
            self.phase = Phase::start(cpu, number);
        }
        self.work().step(cpu);
        if !matches!(self.phase, Phase::Idle(_)) {
            self.common.step(cpu);
            (0..STEP_TOUCHES).for_each(|_| self.zipf.touch(cpu));
            self.cache.read_on(cpu, STEP_FILE_PAGES);
        }
    }

    fn verify_all(&mut self, cpu: &mut Cpu<'_, M>) {
        if !matches!(self.phase, Phase::Cache) {
            self.work().verify_all(cpu);
        }
        self.common.verify_all(cpu);
        Work::<M>::verify_all(&mut self.zipf, cpu);
        Work::<M>::verify_all(&mut self.cache, cpu);
    }

    fn release(&mut self, cpu: &mut Cpu<'_, M>) {
        if !matches!(self.phase, Phase::Cache) {
            self.work().release(cpu);
        }
        self.common.release(cpu);
        self.zipf.release(cpu);
        self.cache.release(cpu);
    }
}
