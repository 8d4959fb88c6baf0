//! `ballast-bench`: measurements against peers, side by side in one run.
//!
//! Machines are shared and noisy, so what counts is the ratio of two sides measured one after the other in the same run. Each
//! target is one line on stdout, `target NAME MEASURED BOUND met|missed`, whatever the outcome; the exit code says only
//! whether everything could be measured.

mod ballast;
mod dedup_bench;
mod error;
mod ksm;
mod scenario;
mod target;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Measurements against peers, side by side in one run.
#[derive(Parser)]
#[command(after_help = "Example: cargo run --release -p ballast-bench -- dedup --guests 8 --memory-mib 256")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Sharing equal pages, against ksmd without its throttle. Needs root; restores KSM's settings.
    Dedup {
        /// Guests that share.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=64))]
        guests: u32,
        /// Memory of each, MiB.
        #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=4096))]
        memory_mib: u32,
        /// Where to write the figures as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let Bench::Dedup { guests, memory_mib, json } = Arguments::parse().bench;
    match dedup_bench::run(guests, memory_mib * 256, json.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ballast-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
