//! `dedup`: Ballast against ksmd, on the same memory, one after the other. Plans a run, and collects what comes of it.

use std::{fs, path::PathBuf, time::Duration};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use crate::{
    area_cost, error::Error, first_write, idle, live, scenario::Name, sharer::Who, slowdown, still, target::Target,
    turn::Turn, writers::Pattern,
};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Guests of made-up memory.
    pub guests: u32,
    /// Pages of each.
    pub pages: u32,
    /// Scenarios, in order; none means all that there are images for.
    pub scenarios: Vec<Name>,
    /// Sides, in order.
    pub sides: Vec<Who>,
    /// Memory images.
    pub images: Vec<PathBuf>,
    /// How long ksmd with its advisor may take to merge what holds still.
    pub advisor_limit: Duration,
    /// Where the figures go.
    pub json: Option<PathBuf>,
    /// Kernel memory of an address-space area, bytes; measured when the run begins.
    pub area_bytes: f64,
}

/// What came of one scenario.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Its name.
    pub scenario: String,
    /// All figures.
    pub figures: Value,
    /// The targets it bears on, for those sides that were measured.
    pub targets: Vec<Target>,
}

impl Outcome {
    /// Of `scenario`; an error if the figures are no JSON.
    pub fn new(scenario: Name, figures: &impl Serialize, targets: Vec<Target>) -> Result<Outcome, Error> {
        let figures = serde_json::to_value(figures).map_err(|error| Error::Guest(error.to_string()))?;
        Ok(Outcome { scenario: scenario.text(), figures, targets })
    }
}

/// All of a run, as `--json` has it.
#[derive(Debug, Serialize)]
struct Report<'a> {
    schema_version: u32,
    cpus: usize,
    kernel: String,
    guests: u32,
    guest_pages: u32,
    /// Kernel memory of an address-space area, bytes, measured.
    area_bytes: f64,
    scenarios: &'a [Outcome],
}

/// Measures what is planned.
pub fn run(mut plan: Plan) -> Result<(), Error> {
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
        write_json(&plan, &outcomes)?;
    }
    summarise(&outcomes);
    Ok(())
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

fn one(scenario: Name, plan: &Plan) -> Result<Outcome, Error> {
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

fn write_json(plan: &Plan, scenarios: &[Outcome]) -> Result<(), Error> {
    let Some(path) = &plan.json else { return Ok(()) };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let report = Report {
        schema_version: 1,
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        kernel: kernel.trim().to_owned(),
        guests: plan.guests,
        guest_pages: plan.pages,
        area_bytes: plan.area_bytes,
        scenarios,
    };
    let failed = |source| Error::File { path: path.clone(), source };
    let text = serde_json::to_string_pretty(&report).map_err(|error| failed(error.into()))?;
    fs::write(path, text).map_err(failed)
}

fn summarise(outcomes: &[Outcome]) {
    let targets = || outcomes.iter().flat_map(|outcome| &outcome.targets);
    let missed: Vec<_> = targets().filter(|target| !target.is_met()).collect();
    println!("summary: {} of {} targets met", targets().count() - missed.len(), targets().count());
    missed.iter().for_each(|target| println!("  {target}"));
}
