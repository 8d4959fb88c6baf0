//! `ballast-bench`: measurements against peers, side by side in one run.
//!
//! Machines are shared and noisy, so what counts is the ratio of two sides measured one after the other in the same run. Each
//! target is one line on stdout, `target NAME MEASURED BOUND met|missed`, whatever the outcome; the exit code says only
//! whether everything could be measured. What is measured and how to read it: `docs/benchmarks.md`.

mod area_cost;
mod ballast;
mod books;
mod clocks;
mod contents;
mod dedup_bench;
mod error;
mod first_write;
mod idle;
mod ksm;
mod ksm_settings;
mod latency;
mod live;
mod merging;
mod paced;
mod progress;
mod ram;
mod random;
mod scenario;
mod settings;
mod sharer;
mod slowdown;
mod still;
mod target;
mod warm_up;
mod writers;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{dedup_bench::Plan, error::Error, scenario::Name, sharer::Who};

/// Measurements against peers, side by side in one run.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Sharing equal pages, against ksmd. Needs root; KSM's settings are put back at the end.
    #[command(after_help = "\
Examples:
  ballast-bench dedup --json dedup.json                     all scenarios of made-up memory
  ballast-bench dedup --scenario S1-same-address --side ballast --side ksmd
  ballast-bench dedup --scenario S3-images-3 --image a.mem --image b.mem --image c.mem")]
    Dedup(Dedup),
}

#[derive(Args)]
struct Dedup {
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
    /// Where to write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Dedup {
    fn plan(self) -> Plan {
        Plan {
            guests: self.guests,
            pages: self.memory_mib * 256,
            scenarios: self.scenarios,
            sides: self.sides,
            images: self.images,
            json: self.json,
            area_bytes: 0.0,
        }
    }
}

fn main() -> ExitCode {
    let result = match Arguments::parse().bench {
        Bench::Dedup(arguments) => measure(arguments.plan()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ballast-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(plan: Plan) -> Result<(), Error> {
    settings::put_back_on_signals()?;
    dedup_bench::run(plan)
}
