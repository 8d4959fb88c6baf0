//! `dedup`: Ballast against ksmd, on the same memory, one after the other.

use std::{fs, path::Path};

use serde::Serialize;

use crate::{
    ballast,
    error::Error,
    ksm,
    scenario::{Placement, Scenario},
    target,
};

/// What one side did with one scenario.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Side {
    /// Pages less than without sharing.
    pub pages_saved: u64,
    /// Pages that were made to share.
    pub merges: u64,
    /// CPU time it took, of all who took part.
    pub cpu_seconds: f64,
    /// Time it took.
    pub wall_seconds: f64,
    /// Memory for upkeep.
    pub metadata_bytes: u64,
}

impl Side {
    fn merges_per_cpu_second(&self) -> f64 {
        self.merges as f64 / self.cpu_seconds.max(1e-3)
    }
}

#[derive(Serialize)]
struct Row {
    scenario: &'static str,
    limit_pages: u64,
    ballast: Side,
    ksmd: Side,
}

/// Measures all scenarios with `guests` guests of `pages` pages.
pub fn run(guests: u32, pages: u32, json: Option<&Path>) -> Result<(), Error> {
    let mut rows = Vec::new();
    for (name, placement) in Placement::ALL {
        let scenario = Scenario::new(placement, guests, pages);
        let row = Row {
            scenario: name,
            limit_pages: scenario.limit_pages(),
            ballast: ballast::measure(&scenario)?,
            ksmd: ksm::measure(&scenario)?,
        };
        print(&row);
        let bound = match placement {
            Placement::SameAddress => 10.0,
            Placement::Extents => 3.0,
            Placement::SinglePages => 1.0,
        };
        let ratio = row.ballast.merges_per_cpu_second() / row.ksmd.merges_per_cpu_second();
        target::at_least(&format!("{name}-merges-per-cpu-second-over-ksmd"), ratio, bound);
        let scanned = u64::from(guests) * u64::from(pages) * 4096;
        target::at_most(&format!("{name}-metadata-share"), row.ballast.metadata_bytes as f64 / scanned as f64, 0.005);
        rows.push(row);
    }
    let Some(path) = json else { return Ok(()) };
    let text = serde_json::to_string_pretty(&rows).map_err(|error| Error::Guest(error.to_string()))?;
    fs::write(path, text).map_err(|source| Error::File { path: path.to_owned(), source })
}

fn print(row: &Row) {
    println!("{}: at most {} pages can be saved", row.scenario, row.limit_pages);
    for (who, side) in [("ballast", &row.ballast), ("ksmd", &row.ksmd)] {
        println!(
            "  {who:<8} saved {:>7} ({:>5.1} %)  {:>7.0} merges/CPU-s  {:>6.2} CPU-s  {:>6.2} s  {:>5.1} MiB of metadata",
            side.pages_saved,
            side.pages_saved as f64 * 100.0 / row.limit_pages as f64,
            side.merges_per_cpu_second(),
            side.cpu_seconds,
            side.wall_seconds,
            side.metadata_bytes as f64 / f64::from(1 << 20),
        );
    }
}
