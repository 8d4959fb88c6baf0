//! `victims`: which page to evict. Records what the guests' workloads touch and replays it over policies.
//!
//! What counts is misses over accesses, in the second half of a trace, in memory that is too small by a
//! factor. Policies that a pager cannot have, because they see accesses to resident pages, are there for
//! comparison.

mod candidates;
mod fifo;
mod hand;
mod lru;
mod opt;
mod policy;
mod random;
mod s3fifo;
mod sieve;
mod trace;

use std::collections::HashSet;

use clap::Args;
use serde::Serialize;
use wire::machine::Workload;

use self::{
    candidates::{ALL, CLOCK, PAGER},
    policy::{Sees, miss_ratio},
};
use crate::kit::{error::Error, report::Report, target::Target};

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

/// Which page to evict: policies over recorded traces of the guests' workloads. Needs the right to serve
/// faults.
#[derive(Args)]
#[command(after_help = "\
Example:
  cargo run --release -p ballast-bench -- victims --json victims.json")]
pub struct Arguments {
    /// Page accesses to record of each workload
    #[arg(long, value_name = "N", default_value_t = 400_000, value_parser = clap::value_parser!(u32).range(1000..=100_000_000))]
    accesses: u32,
}

#[derive(Serialize)]
struct Row {
    policy: &'static str,
    sees: &'static str,
    misses: Vec<f64>,
    mean: f64,
}

#[derive(Default, Serialize)]
struct Table {
    columns: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Figures<'a> {
    #[serde(flatten)]
    table: &'a Table,
    targets: &'a [Target],
}

/// Runs it; prints a table and targets.
pub fn run(arguments: Arguments, report: &Report) -> Result<(), Error> {
    // Without one workload the means would be of something else.
    let table = report.measured("victims", Table::measure(arguments.accesses)).unwrap_or_default();
    table.print();
    let targets = table.targets();
    report.conclude(&targets, &Figures { table: &table, targets: &targets })
}

impl Table {
    fn measure(accesses: u32) -> Result<Table, Error> {
        let mut columns = Vec::new();
        let mut misses = vec![Vec::new(); ALL.len()];
        for workload in WORKLOADS {
            let name = Workload::NAMES.iter().find(|(_, other)| *other == workload).map_or("", |(name, _)| name);
            let trace = trace::record(workload, PAGES, accesses)?;
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
        Ok(Table { columns, rows: rows.collect() })
    }

    fn targets(&self) -> Vec<Target> {
        let mean = |name: &str| self.rows.iter().find(|row| row.policy == name).map_or(f64::NAN, |row| row.mean);
        let real = self.rows.iter().filter(|row| row.sees == "faults" && !row.policy.starts_with(PAGER));
        let best = real.map(|row| row.mean).fold(f64::INFINITY, f64::min);
        vec![
            Target::at_most("victims-misses-over-clock".into(), mean(PAGER) / mean(CLOCK), 1.0),
            Target::at_most("victims-misses-over-best-that-sees-faults".into(), mean(PAGER) / best, 1.0),
            Target::at_most("victims-misses-over-s3fifo-that-sees-hits".into(), mean(PAGER) / mean("s3fifo"), 1.0),
        ]
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_meets_nothing() {
        let targets = Table::default().targets();
        assert!(targets.len() == 3 && targets.iter().all(|target| !target.is_met()), "{targets:?}");
    }
}
