//! `victims`: which page to evict. Records what the guests' workloads touch and replays it over policies.
//!
//! What counts is misses over accesses, in the second half of a trace, in memory that is too small by a factor. Policies that a pager cannot
//! have, because they see accesses to resident pages, are there for comparison.

use std::{collections::HashSet, path::PathBuf};

use serde::Serialize;
use wire::machine::Workload;

use crate::{
    error::Error,
    target::Target,
    trace,
    victims::{ALL, CLOCK, PAGER, Sees, miss_ratio},
};

/// RAM of the recorded guest, pages: 32 MiB, of which workloads use a half or all.
const PAGES: u32 = 8192;
/// How much too small memory is, over the pages that the trace touches.
const TOO_SMALL: [f64; 3] = [1.5, 2.0, 4.0];
/// Workloads that touch pages in the end.
const WORKLOADS: [Workload; 7] = [
    Workload::Zipf,
    Workload::Stream,
    Workload::Hog,
    Workload::Churn,
    Workload::Gups,
    Workload::Mixed,
    Workload::Identical,
];

/// What to do.
pub struct Plan {
    /// Length of each trace.
    pub accesses: u32,
    /// Where the figures go.
    pub json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Row {
    policy: &'static str,
    sees: &'static str,
    misses: Vec<f64>,
    mean: f64,
}

#[derive(Serialize)]
struct Report {
    columns: Vec<String>,
    rows: Vec<Row>,
    targets: Vec<Target>,
}

/// Runs it; prints a table and targets.
pub fn run(plan: &Plan) -> Result<(), Error> {
    let mut columns = Vec::new();
    let mut misses = vec![Vec::new(); ALL.len()];
    for workload in WORKLOADS {
        let name = Workload::NAMES.iter().find(|(_, other)| *other == workload).map_or("", |(name, _)| name);
        let trace = trace::record(workload, PAGES, plan.accesses)?;
        let touched = trace.iter().collect::<HashSet<_>>().len();
        eprintln!("victims: {name}: {} accesses to {touched} pages", trace.len());
        for factor in TOO_SMALL {
            columns.push(format!("{name}/{factor}"));
            let capacity = (touched as f64 / factor) as usize;
            for (candidate, misses) in ALL.iter().zip(&mut misses) {
                misses.push(miss_ratio(&trace, capacity, &mut *(candidate.build)(&trace, capacity)));
            }
        }
    }
    let rows = ALL.iter().zip(misses).map(|(candidate, misses)| Row {
        policy: candidate.name,
        sees: match candidate.sees {
            Sees::Faults => "faults",
            Sees::Hits => "hits",
            Sees::Future => "future",
        },
        mean: misses.iter().sum::<f64>() / misses.len() as f64,
        misses,
    });
    let mut report = Report { columns, rows: rows.collect(), targets: Vec::new() };
    report.judge();
    report.print();
    let Some(path) = &plan.json else { return Ok(()) };
    let text = serde_json::to_vec_pretty(&report).expect("figures are JSON");
    std::fs::write(path, text).map_err(|source| Error::File { path: path.clone(), source })
}

impl Report {
    fn judge(&mut self) {
        let mean = |name: &str| self.rows.iter().find(|row| row.policy == name).map_or(f64::NAN, |row| row.mean);
        let real = self.rows.iter().filter(|row| row.sees == "faults" && !row.policy.starts_with(PAGER));
        let best = real.map(|row| row.mean).fold(f64::INFINITY, f64::min);
        self.targets = vec![
            Target::at_most("victims-misses-over-clock".into(), mean(PAGER) / mean(CLOCK), 1.0),
            Target::at_most("victims-misses-over-best-that-sees-faults".into(), mean(PAGER) / best, 1.0),
            Target::at_most("victims-misses-over-s3fifo-that-sees-hits".into(), mean(PAGER) / mean("s3fifo"), 1.0),
        ];
    }

    fn print(&self) {
        println!("misses over accesses, memory too small by the factor in the column\n");
        println!("| policy | sees | mean | {} |", self.columns.join(" | "));
        println!("|---|---|---|{}", "---|".repeat(self.columns.len()));
        for row in &self.rows {
            let misses: Vec<_> = row.misses.iter().map(|misses| format!("{misses:.3}")).collect();
            println!("| {} | {} | {:.3} | {} |", row.policy, row.sees, row.mean, misses.join(" | "));
        }
        println!();
        self.targets.iter().for_each(|target| println!("{target}"));
    }
}
