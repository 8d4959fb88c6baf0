//! Throughput of guests that want more memory than they have: Ballast, the kernel with zram or a swap file, and the floor.
//!
//! ```text
//!   for each workload, kind of vCPU and ratio of working set to memory:
//!       ballast | zram | floor              contents that lz4 takes to a third
//!       ballast-file | file                 incompressible contents
//! ```
//!
//! Each run is a process of its own ([`guest`]): the same bare guest on all sides. Sides take turns, and what counts is their ratio.

mod cgroup;
pub mod crowd;
mod floor;
pub mod guest;
mod matrix;
mod memory;
mod meter;
mod peer;
mod probe;
pub mod swap;

use std::path::Path;

use serde::Serialize;

use self::{
    guest::{Cpu, Kind, Outcome},
    matrix::{COMPRESSED, ON_DISK, RATIOS, ROUNDS, Side, TARGET_RATIO, WORKLOADS},
    probe::Probed,
};
use crate::{error::Error, target::Target};

/// Tries of a run whose guest the kernel kills for want of memory: see `Cgroup`.
const TRIES: u32 = 3;

const OVER_ZRAM_MIN: f64 = 1.0;
const SWEEP_OVER_PLAIN_MAX: f64 = 1.3;
const GUPS_OVER_ZRAM_MIN: f64 = 0.8;
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
        median(&self.rates)
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
pub fn run(swap: Option<&Path>, is_wanted: impl Fn(&str) -> bool) -> Runs {
    let mut runs = Runs::default();
    if is_wanted("sweep") {
        runs.sweeps = [Cpu::Hosted, Cpu::Kvm].map(Sweep::run).into_iter().filter_map(Sweep::said).collect();
    }
    for cpu in [Cpu::Hosted, Cpu::Kvm].into_iter().filter(|_| is_wanted("touch")) {
        match probe::run(cpu, swap) {
            Ok(probed) => runs.touches.extend(probed),
            Err(error) => println!("pager: touch {cpu:?}: not measured: {error}"),
        }
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

    /// What became of the targets.
    pub fn targets(&self) -> Vec<Target> {
        let over_zram = |workload, cpu| {
            self.rate(workload, cpu, TARGET_RATIO, Side::Ballast) / self.rate(workload, cpu, TARGET_RATIO, Side::Zram)
        };
        let gups = |side| self.rate("gups", Cpu::Kvm, TARGET_RATIO, side);
        let corrupt: u64 =
            self.runs.iter().filter_map(|run| run.outcome.as_ref()).map(|outcome| outcome.corrupt_pages).sum();
        let sweeps = self.sweeps.iter().map(|sweep| {
            let name = format!("pager-sweep-{}-over-plain", if sweep.cpu == Cpu::Kvm { "kvm" } else { "hosted" });
            Target::at_most(name, median(&sweep.ballast_seconds) / median(&sweep.plain_seconds), SWEEP_OVER_PLAIN_MAX)
        });
        let throughput = [
            Target::at_least("pager-2x-scan-kvm-over-zram".into(), over_zram("scan", Cpu::Kvm), OVER_ZRAM_MIN),
            Target::at_least("pager-2x-zipf-kvm-over-zram".into(), over_zram("zipf", Cpu::Kvm), OVER_ZRAM_MIN),
            Target::at_least(
                "pager-2x-gups-hosted-over-zram".into(),
                over_zram("gups", Cpu::Hosted),
                GUPS_OVER_ZRAM_MIN,
            ),
            Target::at_most(
                "pager-2x-gups-kvm-floor-over-ballast".into(),
                gups(Side::Floor) / gups(Side::Ballast),
                FLOOR_OVER_GUPS_MAX,
            ),
            Target::at_most("pager-corrupt-pages".into(), corrupt as f64, 0.0),
        ];
        probe::targets(&self.touches).into_iter().chain(sweeps).chain(throughput).collect()
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

    fn said(sweep: Result<Sweep, Error>) -> Option<Sweep> {
        match &sweep {
            Ok(sweep) => println!(
                "pager: filling fresh memory {:?}: {:.3} s, on plain anonymous memory {:.3} s",
                sweep.cpu,
                median(&sweep.ballast_seconds),
                median(&sweep.plain_seconds)
            ),
            Err(error) => println!("pager: filling fresh memory: not measured: {error}"),
        }
        sweep.ok()
    }
}

/// Not a number, if there are none: what was not measured meets no target.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
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
