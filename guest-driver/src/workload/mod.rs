//! What guests do. Each workload works in short steps ([`work`]), so that stop and balloon are never far
//! away.

pub mod cache;
pub mod churn;
pub mod clock;
pub mod common;
pub mod hog;
pub mod idle;
pub mod image;
pub mod mixed;
pub mod pattern;
pub mod tide;
pub mod wake;
pub mod work;
pub mod zero;

use wire::machine::Workload;

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::set::Set;

use churn::Churn;
use clock::Clock;
use common::Common;
use hog::Hog;
use idle::Idle;
use mixed::Mixed;
use pattern::gups::Gups;
use pattern::probe::Probe;
use pattern::scan::Scan;
use pattern::serve::Serve;
use pattern::stream::Stream;
use pattern::zipf::Zipf;
use tide::Tide;
use wake::Wake;
use work::Work;

/// Builds a workload, works until the stop, then verifies everything.
pub fn run<'a, M: Machine>(cpu: &mut Cpu<'a, M>, workload: Workload, built: impl FnOnce(&mut Cpu<'a, M>)) {
    // Only what all guests have in common must be built in turn; the others grow as they go.
    macro_rules! drive {
        ($work:expr) => {{
            let mut work = $work;
            built(cpu);
            drive(cpu, &mut work);
        }};
    }
    match workload {
        Workload::Idle | Workload::Image => drive!(Idle { park_ms: 100 }),
        Workload::Identical => drive!(Common::build(cpu, 600, Set::push)),
        Workload::Zipf => drive!(Zipf::chosen(cpu)),
        Workload::Churn => drive!(Churn::new(cpu, 400, 0)),
        Workload::Stream => drive!(Stream::new(cpu, 500)),
        Workload::Gups => drive!(Gups::new(cpu, 500)),
        Workload::Hog => drive!(Hog::new(cpu, 1000, 0)),
        Workload::Mixed => drive!(Mixed::build(cpu)),
        Workload::Wake => drive!(Wake::new(cpu)),
        Workload::Tide => drive!(Tide::new(cpu)),
        Workload::Scan => drive!(Scan::new(cpu, 500)),
        Workload::Probe => drive!(Probe::new(cpu, 500)),
        Workload::Clock => drive!(Clock::new(cpu)),
        Workload::Serve => drive!(Serve::build(cpu)),
    }
}

fn drive<M: Machine>(cpu: &mut Cpu<'_, M>, work: &mut impl Work<M>) {
    while !cpu.stopping() {
        cpu.poll();
        work.step(cpu);
    }
    work.verify_all(cpu);
}

#[cfg(test)]
mod tests;
