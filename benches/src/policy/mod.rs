//! `policy`: who gets memory when it is short, on real guests. Each scenario is named after the figure it is
//! to reproduce; what is measured and how: `docs/benchmarks.md`.
//!
//! Guests are `tide` and `zipf`, whose active memory is known, without dedup, so that memory moves by policy
//! alone. Scenarios run one after the other; runs that are compared run one after the other, too, as they
//! fill both CPUs.

mod demand;
mod density;
pub mod host;
mod idle_tax;
mod mixed;
mod neighbours;
mod noise;
mod reporting;
pub mod rules;
mod run;
mod sampling;
mod setup;
mod shares;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::setup::Setup;
use crate::kit::{error::Error, program::Program, report::Report, target::Target};

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

/// Who gets memory when it is short: shares, idle tax, demand that moves, sampling. Drives `ballast run`,
/// built beside this program.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo build --release && cargo run --release -p ballast-bench -- policy --json policy.json
  ballast-bench policy --scenario P2-idle-tax")]
pub struct Arguments {
    /// What to measure; repeatable [default: everything]
    #[arg(long = "scenario", value_name = "NAME", value_enum)]
    scenarios: Vec<Scenario>,
    /// Directory on a disk, for swap files
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    swap: PathBuf,
    /// What P7's guests of 256 MiB are to fit into, MiB: less for a trial at a small scale
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(512..=1_048_576))]
    p7_budget_mib: u32,
    #[command(flatten)]
    program: Program,
}

#[derive(Serialize)]
struct Found {
    scenario: Scenario,
    targets: Vec<Target>,
}

/// Runs scenarios; prints targets.
pub fn run(arguments: Arguments, report: &Report) -> Result<(), Error> {
    let Arguments { scenarios, swap, p7_budget_mib, program } = arguments;
    let setup = Setup { program: program.path()?, swap, density_budget_mib: p7_budget_mib };
    let scenarios = if scenarios.is_empty() { Scenario::value_variants() } else { &scenarios };
    let mut found = Vec::new();
    for &scenario in scenarios {
        let targets = scenario.measure(&setup, report);
        targets.iter().for_each(|target| println!("{target}"));
        found.push(Found { scenario, targets });
    }
    let targets = || found.iter().flat_map(|found| &found.targets);
    println!("summary: {} of {} targets met", targets().filter(|target| target.is_met()).count(), targets().count());
    report.write(&found)?;
    report.verdict()
}

impl Scenario {
    /// Its targets. One that fails is no reason not to measure the others.
    fn measure(self, setup: &Setup, report: &Report) -> Vec<Target> {
        let name = self.to_possible_value().map_or_else(String::new, |value| format!("policy: {}", value.get_name()));
        match self {
            Scenario::Shares => shares::judge(report.measured(&name, shares::measure(setup))),
            Scenario::IdleTax => idle_tax::judge(report.measured(&name, idle_tax::measure(setup))),
            Scenario::Mixed => mixed::judge(report.measured(&name, mixed::measure(setup))),
            Scenario::Neighbours => neighbours::judge(report.measured(&name, neighbours::measure(setup))),
            Scenario::DemandMoves => demand::judge(demand::measure(setup, report)),
            Scenario::Sampling => sampling::judge(report.measured(&name, sampling::measure(setup))),
            Scenario::Density => density::judge(report.measured(&name, density::measure(setup))),
            Scenario::Noise => noise::judge(report.measured(&name, noise::measure(setup))),
            Scenario::Reporting => reporting::judge(report.measured(&name, reporting::measure(setup))),
        }
    }
}
