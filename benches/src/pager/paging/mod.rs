//! Throughput of guests that want more memory than they have: Ballast, the kernel with zram or a swap file,
//! and the floor.
//!
//! ```text
//!   for each workload, kind of vCPU and ratio of working set to memory:
//!       ballast | tier | zram | floor       contents that lz4 takes to a third; tier: Ballast over zram
//!       ballast-file | file                 incompressible contents
//! ```
//!
//! Each run is a process of its own ([`guest`]): the same bare guest on all sides. Sides take turns, and what
//! counts is their ratio.

mod cgroup;
pub mod crowd;
mod floor;
mod guest;
mod matrix;
mod memory;
mod meter;
mod peer;
mod probe;
pub mod spec;
pub mod swap;
pub mod waits;

use std::path::Path;

use serde::Serialize;

use self::{
    matrix::{COMPRESSED, ON_DISK, RATIOS, ROUNDS, Side, TARGET_RATIO, WORKLOADS},
    probe::Probed,
    spec::{Cpu, Kind, Outcome},
};
use crate::kit::{
    error::Error,
    report::{Report, median},
    target::Target,
};

/// Tries of a run whose guest the kernel kills for want of memory: see `Cgroup`.
const TRIES: u32 = 3;

const OVER_ZRAM_MIN: f64 = 1.0;
const SCAN_OVER_ZRAM_MIN: f64 = 1.4;
const SWEEP_OVER_PLAIN_MAX: f64 = 1.3;
const FLOOR_OVER_GUPS_MAX: f64 = 1.25;

/// One side of one comparison; the median where it was run several times.
#[derive(Debug, Serialize)]
pub struct Run {
    workload: &'static str,
    cpu: Cpu,
    /// Working set over memory.
    ratio: f64,
    side: Side,
    /// Operations a second of each round; none that could not be measured.
    rates: Vec<f64>,
    /// Times that the kernel killed the guest, and it was run anew.
    killed: u32,
    /// The last round's figures.
    outcome: Option<Outcome>,
    /// Why there are none.
    error: Option<String>,
}

impl Run {
    fn rate(&self) -> f64 {
        median(self.rates.clone())
    }
}

/// All figures.
#[derive(Debug, Default, Serialize)]
pub struct Runs {
    runs: Vec<Run>,
    sweeps: Vec<Sweep>,
    touches: Vec<Probed>,
}

/// A guest that fills its memory, page after page, where there is enough of it.
#[derive(Debug, Serialize)]
struct Sweep {
    cpu: Cpu,
    ballast_seconds: Vec<f64>,
    plain_seconds: Vec<f64>,
}

/// Runs what is wanted of it; sides that need a disk are left out without `swap`.
pub fn run(swap: Option<&Path>, is_wanted: &dyn Fn(&str) -> bool, report: &Report) -> Runs {
    let mut runs = Runs::default();
    if is_wanted("sweep") {
        let sweeps = [Cpu::Hosted, Cpu::Kvm].into_iter().filter_map(|cpu| {
            let sweep = report.measured(&format!("pager: filling fresh memory {cpu:?}"), Sweep::run(cpu))?;
            sweep.say();
            Some(sweep)
        });
        runs.sweeps = sweeps.collect();
    }
    for cpu in [Cpu::Hosted, Cpu::Kvm].into_iter().filter(|_| is_wanted("touch")) {
        let probed = report.measured(&format!("pager: touch {cpu:?}"), probe::run(cpu, swap));
        runs.touches.extend(probed.unwrap_or_default());
    }
    for workload in WORKLOADS.into_iter().filter(|(name, ..)| is_wanted(name)) {
        for cpu in [Cpu::Hosted, Cpu::Kvm] {
            for ratio in RATIOS.into_iter().filter(|&ratio| swap.is_some() || !matrix::needs_disk(ratio)) {
                runs.compare(&COMPRESSED, workload, cpu, ratio, swap);
                // Numbers of `stream` compress whatever is asked for.
                if swap.is_some() && ratio >= TARGET_RATIO && workload.0 != "stream" {
                    runs.compare(&ON_DISK, workload, cpu, ratio, swap);
                }
            }
        }
    }
    runs
}

impl Runs {
    fn compare(
        &mut self,
        sides: &[Side],
        workload: (&'static str, wire::machine::Workload, f64, f64),
        cpu: Cpu,
        ratio: f64,
        swap: Option<&Path>,
    ) {
        let rounds = if ratio == TARGET_RATIO && sides == COMPRESSED { ROUNDS } else { 1 };
        let mut new: Vec<_> = sides
            .iter()
            .map(|&side| Run {
                workload: workload.0,
                cpu,
                ratio,
                side,
                rates: Vec::new(),
                killed: 0,
                outcome: None,
                error: None,
            })
            .collect();
        for _ in 0..rounds {
            // The floor holds as many pages as Ballast did just before.
            let mut resident = 0;
            for run in &mut new {
                let mut spec = matrix::spec(run.side, cpu, workload, ratio, swap);
                spec.resident_pages = resident;
                let one = || match run.side {
                    Side::Ballast | Side::BallastFile | Side::Floor => peer::alone(&spec),
                    Side::Tier => peer::with_tier(&spec, &matrix::peer(run.side, ratio, swap)),
                    Side::Zram | Side::File => peer::in_cgroup(&spec, &matrix::peer(run.side, ratio, swap)),
                };
                let mut outcome = one();
                while matches!(outcome, Err(Error::GuestEnded(_))) && run.killed + 1 < TRIES {
                    run.killed += 1;
                    outcome = one();
                }
                match outcome {
                    Ok(outcome) => {
                        resident = outcome.ballast.as_ref().map_or(resident, |pager| pager.private_pages as u32);
                        run.rates.push(outcome.rate());
                        run.outcome = Some(outcome);
                    }
                    Err(error) => run.error = Some(error.to_string()),
                }
            }
        }
        new.iter().for_each(say);
        self.runs.extend(new);
    }

    fn rate(&self, workload: &str, cpu: Cpu, ratio: f64, side: Side) -> f64 {
        let wanted = |run: &&Run| (run.workload, run.cpu, run.ratio, run.side) == (workload, cpu, ratio, side);
        self.runs.iter().find(wanted).map_or(f64::NAN, Run::rate)
    }

    /// What became of the targets of what was wanted.
    pub fn targets(&self, is_wanted: &dyn Fn(&str) -> bool) -> Vec<Target> {
        let over_zram = |workload, cpu| {
            self.rate(workload, cpu, TARGET_RATIO, Side::Tier) / self.rate(workload, cpu, TARGET_RATIO, Side::Zram)
        };
        let gups = |side| self.rate("gups", Cpu::Kvm, TARGET_RATIO, side);
        let sweep = |name: &str, cpu| {
            let sweep = self.sweeps.iter().find(|sweep| sweep.cpu == cpu);
            let ratio = sweep.map(|Sweep { ballast_seconds, plain_seconds, .. }| {
                median(ballast_seconds.clone()) / median(plain_seconds.clone())
            });
            Target::at_most(name.into(), ratio.unwrap_or(f64::NAN), SWEEP_OVER_PLAIN_MAX)
        };
        let mut targets = Vec::new();
        if is_wanted("touch") {
            targets.extend(probe::targets(&self.touches));
        }
        if is_wanted("sweep") {
            targets.push(sweep("pager-sweep-hosted-over-plain", Cpu::Hosted));
            targets.push(sweep("pager-sweep-kvm-over-plain", Cpu::Kvm));
        }
        if is_wanted("scan") {
            let ratio = over_zram("scan", Cpu::Kvm);
            targets.push(Target::at_least("pager-2x-scan-kvm-over-zram".into(), ratio, SCAN_OVER_ZRAM_MIN));
        }
        if is_wanted("zipf") {
            let ratio = over_zram("zipf", Cpu::Kvm);
            targets.push(Target::at_least("pager-2x-zipf-kvm-over-zram".into(), ratio, OVER_ZRAM_MIN));
        }
        if is_wanted("gups") {
            let (ratio, floor) = (over_zram("gups", Cpu::Kvm), gups(Side::Floor) / gups(Side::Ballast));
            targets.push(Target::at_least("pager-2x-gups-kvm-over-zram".into(), ratio, OVER_ZRAM_MIN));
            targets.push(Target::at_most("pager-2x-gups-kvm-floor-over-ballast".into(), floor, FLOOR_OVER_GUPS_MAX));
        }
        if WORKLOADS.iter().any(|(name, ..)| is_wanted(name)) {
            targets.push(Target::at_most("pager-corrupt-pages".into(), self.corrupt_pages(), 0.0));
        }
        targets
    }

    /// Of all runs; not a number if not one of them came to its end.
    fn corrupt_pages(&self) -> f64 {
        let outcomes = self.runs.iter().filter_map(|run| run.outcome.as_ref());
        outcomes.map(|outcome| outcome.corrupt_pages as f64).reduce(|sum, pages| sum + pages).unwrap_or(f64::NAN)
    }
}

impl Sweep {
    fn run(cpu: Cpu) -> Result<Sweep, Error> {
        let mut sweep = Sweep { cpu, ballast_seconds: Vec::new(), plain_seconds: Vec::new() };
        for _ in 0..ROUNDS {
            let fill = |kind| peer::alone(&matrix::ample(kind, cpu)).map(|outcome| outcome.fill_seconds);
            sweep.plain_seconds.push(fill(Kind::Plain)?);
            sweep.ballast_seconds.push(fill(Kind::Ballast)?);
        }
        Ok(sweep)
    }

    fn say(&self) {
        println!(
            "pager: filling fresh memory {:?}: {:.3} s, on plain anonymous memory {:.3} s",
            self.cpu,
            median(self.ballast_seconds.clone()),
            median(self.plain_seconds.clone())
        );
    }
}

fn say(run: &Run) {
    let Run { workload, cpu, ratio, side, .. } = run;
    let Some(outcome) = &run.outcome else {
        let why = run.error.as_deref().unwrap_or("it did not run");
        println!("pager: {workload} {cpu:?} {ratio}x {side:?}: not measured: {why}");
        return;
    };
    let mut text = format!("{:.0} op/s, {:.2} us of CPU each", run.rate(), outcome.cpu_us());
    if outcome.held_bytes > 0.0 {
        text += &format!("; {:.1} MiB held", outcome.held_bytes / f64::from(1 << 20));
    }
    if run.killed > 0 {
        text += &format!("; killed {} times for want of memory", run.killed);
    }
    if let Some(pager) = &outcome.ballast {
        text += &format!(
            "; {} faults, {} in at {:.1} us, {} out at {:.1} us, {} private, {} compressed in {} MiB, {} swapped",
            pager.faults,
            pager.promotions,
            pager.in_cpu_us,
            pager.evictions,
            pager.out_cpu_us,
            pager.private_pages,
            pager.compressed_pages,
            pager.pool_bytes >> 20,
            pager.swapped_pages
        );
    }
    println!("pager: {workload} {cpu:?} {ratio}x {side:?}: {text}");
}

/// The process of one guest: `spec` is JSON.
pub fn guest(spec: &str) -> Result<(), Error> {
    let spec = serde_json::from_str(spec).map_err(std::io::Error::from).map_err(Error::system("reading a plan"))?;
    guest::run(&spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_and_was_not_measured_misses_its_targets() {
        let targets = |is_wanted: &dyn Fn(&str) -> bool| Runs::default().targets(is_wanted);
        let all = targets(&|_| true);
        assert!(all.len() == 11 && all.iter().all(|target| !target.is_met()), "{all:?}");
        assert_eq!(targets(&|part| part == "sweep").len(), 2);
    }
}
