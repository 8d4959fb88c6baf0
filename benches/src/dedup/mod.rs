//! `dedup`: Ballast against ksmd, on the same memory, one after the other. Plans a run, and collects what
//! comes of it.

mod contents;
mod first_write;
mod idle;
mod live;
mod merging;
mod plan;
mod progress;
mod scenario;
mod sides;
mod slowdown;
mod still;
mod warm_up;
mod writers;

use std::{fs, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::{
    plan::{Plan, ScenarioOutcome},
    scenario::Name,
    sides::{area_cost, who::Who},
    writers::Pattern,
};
use crate::kit::{error::Error, report::Report, turn::Turn};

/// Sharing equal pages, against ksmd. Needs root; KSM's settings are put back at the end.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ballast-bench dedup --json dedup.json                     all scenarios of made-up memory
  ballast-bench dedup --scenario S1-same-address --side ballast --side ksmd
  ballast-bench dedup --scenario S3-images-3 --image a.mem --image b.mem --image c.mem")]
pub struct Arguments {
    /// What to measure; repeatable [default: all that there are images for]
    #[arg(long = "scenario", value_name = "NAME", value_enum)]
    scenarios: Vec<Name>,
    /// Who is measured; repeatable
    #[arg(long = "side", value_name = "NAME", value_enum, default_values = ["ballast", "ksmd", "ksmd-advisor"])]
    sides: Vec<Who>,
    /// Raw memory image of a guest, all of one size; repeatable
    #[arg(long = "image", value_name = "FILE")]
    images: Vec<PathBuf>,
    /// Guests of made-up memory
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=64))]
    guests: u32,
    /// Memory of each, MiB
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=4096))]
    memory_mib: u32,
    /// How long ksmd with its advisor may take to merge what holds still, seconds
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=36_000))]
    advisor_seconds: u32,
}

/// All of a run, as `--json` has it.
#[derive(Debug, Serialize)]
struct Figures<'a> {
    schema_version: u32,
    cpus: usize,
    kernel: String,
    guests: u32,
    guest_pages: u32,
    /// Kernel memory of an address-space area, bytes, measured.
    area_bytes: f64,
    scenarios: &'a [ScenarioOutcome],
}

/// Measures what is asked for.
pub fn run(arguments: Arguments, report: Report) -> Result<(), Error> {
    let mut plan = arguments.plan(report);
    let scenarios = chosen(&plan);
    // What cannot be run is said before anything is.
    for scenario in &scenarios {
        scenario.still_memory(2, 1, &plan.images)?;
    }
    let _turn = Turn::take()?;
    plan.area_bytes = area_cost::measure()?;
    println!("an address-space area costs {:.0} B of kernel memory here", plan.area_bytes);
    let mut outcomes = Vec::new();
    for scenario in scenarios {
        let outcome = one(scenario, &plan)?;
        outcome.targets.iter().for_each(|target| println!("{target}"));
        outcomes.push(outcome);
        // After each, so that a run that is cut short leaves what it had.
        write(&plan, &outcomes)?;
    }
    summarise(&outcomes);
    plan.report.verdict()
}

impl Arguments {
    fn plan(self, report: Report) -> Plan {
        Plan {
            guests: self.guests,
            pages: self.memory_mib * 256,
            scenarios: self.scenarios,
            sides: self.sides,
            images: self.images,
            advisor_limit: Duration::from_secs(self.advisor_seconds.into()),
            report,
            area_bytes: 0.0,
        }
    }
}

fn chosen(plan: &Plan) -> Vec<Name> {
    if !plan.scenarios.is_empty() {
        return plan.scenarios.clone();
    }
    let (can, cannot): (Vec<Name>, Vec<Name>) =
        Name::value_variants().iter().partition(|name| name.images_needed() <= plan.images.len());
    for name in cannot {
        println!("SKIPPED {}: it takes {} memory images, --image FILE for each", name.text(), name.images_needed());
    }
    can
}

fn one(scenario: Name, plan: &Plan) -> Result<ScenarioOutcome, Error> {
    match scenario {
        Name::SameAddress | Name::NearEqual | Name::Extents | Name::SinglePages | Name::Images3 | Name::Images6 => {
            still::run(scenario, &scenario.still_memory(plan.guests, plan.pages, &plan.images)?, plan)
        }
        Name::LiveUniform => live::run(scenario, Pattern::Uniform, plan),
        Name::LiveHot => live::run(scenario, Pattern::Hot, plan),
        Name::Idle => idle::run(plan),
        Name::FirstWrite => first_write::run(plan),
        Name::Slowdown => slowdown::run(plan),
    }
}

fn write(plan: &Plan, scenarios: &[ScenarioOutcome]) -> Result<(), Error> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    plan.report.write(&Figures {
        schema_version: 1,
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        kernel: kernel.trim().to_owned(),
        guests: plan.guests,
        guest_pages: plan.pages,
        area_bytes: plan.area_bytes,
        scenarios,
    })
}

fn summarise(outcomes: &[ScenarioOutcome]) {
    let targets = || outcomes.iter().flat_map(|outcome| &outcome.targets);
    let missed: Vec<_> = targets().filter(|target| !target.is_met()).collect();
    println!("summary: {} of {} targets met", targets().count() - missed.len(), targets().count());
    missed.iter().for_each(|target| println!("  {target}"));
}
