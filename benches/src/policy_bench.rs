//! `policy`: who gets memory when it is short, on real guests. Each scenario is named after the figure it is to reproduce; what is measured and how:
//! `docs/benchmarks.md`.
//!
//! Guests are `tide` and `zipf`, whose active memory is known, without dedup, so that memory moves by policy alone. Scenarios run one
//! after the other; runs that are compared run one after the other, too, as they fill both CPUs.

use std::{fs, path::PathBuf};

use clap::ValueEnum;
use policy::active::{Estimator, Sample};
use serde::Serialize;

use crate::{
    error::Error,
    policy_density, policy_noise,
    policy_run::{Course, Figures, Run},
    target::Target,
};

const MIB: f64 = 1024.0 * 1024.0;
/// When the tide turns, seconds after the guests' start: `tide` in the guest's own words.
const TURN: f64 = 30.0;

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub enum Scenario {
    /// Three busy guests with shares 1:2:3.
    #[value(name = "P1-shares")]
    Shares,
    /// One guest idle, one that could use its memory.
    #[value(name = "P2-idle-tax")]
    IdleTax,
    /// Five guests of mixed work in 1/1.6 of their memory.
    #[value(name = "P3-mixed")]
    Mixed,
    /// Two guests with reservations beside two that take all they can get.
    #[value(name = "P4-neighbours")]
    Neighbours,
    /// One guest's demand grows while another's shrinks.
    #[value(name = "P5-demand-moves")]
    DemandMoves,
    /// Estimated against true active memory.
    #[value(name = "P6-sampling")]
    Sampling,
    /// How many guests under constant load fit, against KSM and zram.
    #[value(name = "P7-density")]
    Density,
    /// What everything in the background costs a guest that has all it needs.
    #[value(name = "P8-noise")]
    Noise,
    /// An allocate/free loop whose free pages are taken when they are reported.
    #[value(name = "P9-reporting")]
    Reporting,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `ballast` program.
    pub program: PathBuf,
    /// Scenarios; all without any.
    pub scenarios: Vec<Scenario>,
    /// Directory on a disk, for P3's swap files.
    pub swap: PathBuf,
    /// What P7's guests are to fit into, MiB.
    pub density_budget_mib: u32,
    /// Where the figures go.
    pub json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Found {
    scenario: Scenario,
    targets: Vec<Target>,
}

/// Runs scenarios; prints targets.
pub fn run(plan: &Plan) -> Result<(), Error> {
    let all = Scenario::value_variants();
    let scenarios = if plan.scenarios.is_empty() { all } else { &plan.scenarios };
    let mut found = Vec::new();
    for &scenario in scenarios {
        let targets = match scenario {
            Scenario::Shares => shares(plan),
            Scenario::IdleTax => idle_tax(plan),
            Scenario::Mixed => mixed(plan),
            Scenario::Neighbours => neighbours(plan),
            Scenario::DemandMoves => demand_moves(plan),
            Scenario::Sampling => sampling(plan),
            Scenario::Density => Ok(vec![policy_density::measure(&plan.program, plan.density_budget_mib)]),
            Scenario::Noise => policy_noise::measure(plan),
            Scenario::Reporting => reporting(plan),
        };
        // One that fails is no reason not to measure the others.
        let targets = targets.unwrap_or_else(|error| {
            let name = scenario.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
            println!("policy: {name}: not measured: {error}");
            vec![Target::at_least(format!("{name}-measured"), 0.0, 1.0)]
        });
        targets.iter().for_each(|target| println!("{target}"));
        found.push(Found { scenario, targets });
    }
    let targets = || found.iter().flat_map(|found| &found.targets);
    println!("summary: {} of {} targets met", targets().filter(|target| target.is_met()).count(), targets().count());
    let Some(path) = &plan.json else { return Ok(()) };
    let text = serde_json::to_vec_pretty(&found).map_err(std::io::Error::from);
    text.and_then(|text| fs::write(path, text)).map_err(|source| Error::File { path: path.clone(), source })
}

fn allocation(figures: &Figures) -> f64 {
    figures.allocation_bytes
}

/// P1: allocations at the end within 5 % of 1:2:3.
fn shares(plan: &Plan) -> Result<Vec<Target>, Error> {
    let swap = plan.swap.to_string_lossy();
    let run = Run {
        program: &plan.program,
        memory_mib: 256,
        budget_mib: 360,
        seconds: 60,
        guests: vec![
            "shares=1000,workload=tide,active=90%",
            "shares=2000,workload=tide,active=90%",
            "shares=3000,workload=tide,active=90%",
        ],
        arguments: vec!["--dedup", "off", "--swap", &swap, "--sample-period", "15s"],
    };
    let course = run.watch()?;
    let mean: Vec<f64> = (0..3).map(|guest| course.mean(guest, 45.0, 59.0, allocation)).collect();
    let sum: f64 = mean.iter().sum();
    println!("policy: P1 allocations {:.1}, {:.1}, {:.1} MiB", mean[0] / MIB, mean[1] / MIB, mean[2] / MIB);
    let off = |(guest, mean): (usize, &f64)| (mean / (sum * (guest + 1) as f64 / 6.0) - 1.0).abs();
    let worst = mean.iter().enumerate().map(off).fold(0.0, f64::max);
    Ok(vec![Target::at_most("P1-allocations-off-their-shares".into(), if sum > 0.0 { worst } else { f64::NAN }, 0.05)])
}

/// P2: with the tax, the busy guest does 30 % more; and when the idle one wakes, it is served.
fn idle_tax(plan: &Plan) -> Result<Vec<Target>, Error> {
    let swap = plan.swap.to_string_lossy();
    let with = |tax: &'static str| -> Result<Course, Error> {
        let run = Run {
            program: &plan.program,
            memory_mib: 256,
            budget_mib: 360,
            seconds: 60,
            guests: vec!["workload=tide,active=0%-90%", "workload=zipf,active=94%"],
            arguments: vec!["--dedup", "off", "--swap", &swap, "--sample-period", "15s", "--idle-tax", tax],
        };
        run.watch()
    };
    let (untaxed, taxed) = (with("0%")?, with("75%")?);
    let pace = |course: &Course| course.pace(1, TURN - 8.0, TURN - 0.5);
    let busy = |course: &Course| course.mean(1, TURN - 5.0, TURN - 0.5, allocation);
    let equilibrium = taxed.settles(1, 0.0, TURN - 0.5, busy(&taxed) * 0.95, allocation);
    println!(
        "policy: P2 busy guest: {:.0} operations per second of CPU or waiting in {:.0} MiB untaxed, {:.0} in {:.0} MiB taxed; equilibrium {equilibrium:.1} s after \
         the start",
        pace(&untaxed),
        busy(&untaxed) / MIB,
        pace(&taxed),
        busy(&taxed) / MIB,
    );
    for (course, tax) in [(&untaxed, 0), (&taxed, 75)] {
        let pace = |from, to| course.pace(0, from, to);
        let end = course.mean(0, 55.0, 59.0, allocation);
        println!(
            "policy: P2 tax {tax} %: the guest that wakes does {:.0} operations per second of CPU or waiting in its first 2 s, {:.0} in the last 10; it has what it is \
             going to have, {:.0} MiB, after {:.1} s",
            pace(TURN, TURN + 2.5),
            pace(49.0, 59.0),
            end / MIB,
            course.settles(0, TURN, 59.0, 0.95 * end, allocation),
        );
    }
    Ok(vec![Target::at_least("P2-busy-throughput-taxed-over-untaxed".into(), pace(&taxed) / pace(&untaxed), 1.3)])
}

/// P3: nearly nothing is swapped once the start is over: neither kept on the disk, nor written to it to be read back.
fn mixed(plan: &Plan) -> Result<Vec<Target>, Error> {
    let swap = plan.swap.to_string_lossy();
    let run = Run {
        program: &plan.program,
        memory_mib: 256,
        budget_mib: 800,
        seconds: 60,
        guests: vec!["workload=mixed"; 5],
        arguments: vec!["--swap", &swap],
    };
    let course = run.watch()?;
    let written = |guest| course.rate(guest, 20.0, 59.0, |figures| figures.swapped_out_pages) * 39.0 * 4096.0 / MIB;
    let held = course.most(20.0, 59.0, |figures| figures.swapped_bytes) / MIB;
    Ok(vec![
        Target::at_most("P3-most-mib-in-swap-after-start-up".into(), held, 20.0),
        Target::at_most("P3-mib-written-to-swap-after-start-up".into(), (0..5).map(written).sum(), 20.0),
    ])
}

/// P4: what guests get done in the time that they have a CPU or wait for memory, beside neighbours that want everything and alone.
fn neighbours(plan: &Plan) -> Result<Vec<Target>, Error> {
    let swap = plan.swap.to_string_lossy();
    let with = |others: [&'static str; 2]| -> Result<Course, Error> {
        let benchmark = "workload=zipf,reservation=160MiB";
        let run = Run {
            program: &plan.program,
            memory_mib: 256,
            budget_mib: 640,
            seconds: 40,
            guests: vec![benchmark, benchmark, others[0], others[1]],
            arguments: vec!["--dedup", "off", "--swap", &swap, "--sample-period", "15s"],
        };
        run.watch()
    };
    const TURNS: usize = 2;
    let pace = |course: &Course| (course.pace(0, 15.0, 39.0) + course.pace(1, 15.0, 39.0)) / 2.0;
    let [mut quiet, mut loud] = [f64::NAN; 2];
    for _ in 0..TURNS {
        // The same load on the CPUs, from guests that use little memory. The better turn of each: what other programs take besides is never negative.
        quiet = quiet.max(pace(&with(["workload=tide,active=1%,limit=48MiB"; 2])?));
        loud = loud.max(pace(&with(["workload=hog", "workload=churn"])?));
    }
    println!(
        "policy: P4 {loud:.0} operations per second of CPU or waiting beside loud neighbours, {quiet:.0} beside quiet ones"
    );
    Ok(vec![Target::at_most("P4-throughput-lost-to-neighbours".into(), 1.0 - loud / quiet, 0.04)])
}

/// P5: how soon memory follows demand, under our rule and those that others have published, on the same guests with the same levers.
fn demand_moves(plan: &Plan) -> Result<Vec<Target>, Error> {
    const END: f64 = 59.0;
    /// What the growing guest needs: all but a tenth of what it uses.
    const NEEDED_BYTES: f64 = 0.9 * 0.9 * 256.0 * MIB;
    let swap = plan.swap.to_string_lossy();
    let with = |rule: &'static str| -> Result<[f64; 2], Error> {
        let run = Run {
            program: &plan.program,
            memory_mib: 256,
            budget_mib: 360,
            seconds: 60,
            guests: vec!["workload=tide,active=10%-90%", "workload=tide,active=90%-10%"],
            arguments: vec!["--dedup", "off", "--swap", &swap, "--sample-period", "15s", "--policy", rule],
        };
        let course = run.watch()?;
        let seconds = course.settles(0, TURN, END, NEEDED_BYTES, allocation);
        let stall = |guest, from, to| course.rate(guest, from, to, |figures| figures.stall_seconds) * (to - from);
        println!(
            "policy: P5 {rule}: the growing guest has what it needs {} after the turn, stalled {:.2} s and did {:.0} operations until the end; before the turn \
             the other one stalled {:.2} s in 20",
            if seconds.is_nan() { "not at all".to_owned() } else { format!("{seconds:.1} s") },
            stall(0, TURN, END),
            course.rate(0, TURN, END, |figures| figures.operations) * (END - TURN),
            stall(1, TURN - 20.0, TURN - 0.5),
        );
        // One that never got it would have waited longer.
        Ok([if seconds.is_nan() { END - TURN } else { seconds }, stall(0, TURN, END)])
    };
    let ours = with("ballast")?;
    let mut targets = Vec::new();
    for rule in ["proxmox", "mom"] {
        let theirs = with(rule).unwrap_or_else(|error| {
            println!("policy: P5 {rule}: not measured: {error}");
            [f64::NAN; 2]
        });
        targets.push(Target::at_most(format!("P5-seconds-over-{rule}-rule"), ours[0] / theirs[0], 1.0));
        targets.push(Target::at_most(format!("P5-stall-over-{rule}-rule"), ours[1] / theirs[1], 1.0));
    }
    Ok(targets)
}

/// P6: the estimate that policy goes by, against what the guests are known to use.
fn sampling(plan: &Plan) -> Result<Vec<Target>, Error> {
    const TRUTHS: [f64; 5] = [0.1, 0.3, 0.5, 0.7, 0.9];
    let run = Run {
        program: &plan.program,
        memory_mib: 96,
        budget_mib: 640,
        seconds: 60,
        guests: vec![
            "workload=tide,active=10%",
            "workload=tide,active=30%",
            "workload=tide,active=50%",
            "workload=tide,active=70%",
            "workload=tide,active=90%",
        ],
        arguments: vec!["--dedup", "off", "--sample-period", "3s"],
    };
    let course = run.watch()?;
    let mut errors = Vec::new();
    for (guest, truth) in TRUTHS.iter().enumerate() {
        let (mut estimator, mut periods) = (Estimator::default(), f64::NAN);
        // Filling touches everything; what counts begins afterwards.
        for look in course.between(10.0, 59.0) {
            let figures = look.guests[guest];
            if figures.periods != periods && !periods.is_nan() {
                let touched = (figures.active_ratio * 100.0).round() as u32;
                estimator.end_period(Sample { sampled: 100, touched });
                errors.extend(estimator.ratio().map(|ratio| (ratio - truth).abs() * 100.0));
            }
            periods = figures.periods;
        }
    }
    errors.sort_by(f64::total_cmp);
    let p90 = errors.get(errors.len() * 9 / 10).copied().unwrap_or(f64::NAN);
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    println!("policy: P6 {} estimates, {mean:.1} points off on average", errors.len());
    Ok(vec![Target::at_most("P6-sampling-error-points-p90".into(), p90, 10.0)])
}

/// P9: what a guest that allocates and frees loses to having its free pages taken, where there is plenty: never taken, when that pays, and always.
fn reporting(plan: &Plan) -> Result<Vec<Target>, Error> {
    const TURNS: usize = 4;
    const MODES: [&str; 3] = ["off", "adaptive", "eager"];
    let mut best = [f64::NAN; MODES.len()];
    for _ in 0..TURNS {
        for (best, mode) in best.iter_mut().zip(MODES) {
            let run = Run {
                program: &plan.program,
                memory_mib: 256,
                budget_mib: 512,
                seconds: 30,
                guests: vec!["workload=churn"],
                arguments: vec!["--dedup", "off", "--free-page-reporting", mode],
            };
            // The best turn: what other programs take besides is never negative.
            *best = best.max(run.watch()?.pace(0, 5.0, 29.0));
        }
    }
    let lost = best.map(|pace| 1.0 - pace / best[0]);
    println!(
        "policy: P9 the loop does {:.0} operations per second of CPU or waiting while nothing is taken; {:.1} % less where that adapts, {:.1} % where all is taken at once",
        best[0],
        100.0 * lost[1],
        100.0 * lost[2],
    );
    Ok(vec![Target::at_most("P9-loop-lost-to-adaptive-reporting".into(), lost[1], 0.05)])
}
