//! `ballast-bench`: measurements against peers, side by side in one run.
//!
//! Machines are shared and noisy, so what counts is the ratio of two sides measured one after the other in
//! the same run. Each target is one line on stdout, `target NAME MEASURED BOUND met|missed`, whatever the
//! outcome; the exit code says only whether everything could be measured. What is measured and how to read
//! it: `docs/benchmarks.md`.
//!
//! ```text
//!                                                       simulate
//!                                                          │
//!   dedup    balloon    pager (pool, resume, victims)    policy    soak (wake-all)
//!      └──────────┴──────────────┬──────────────────────────┴─────────┘
//!                               kit        targets, reports, clocks, books, settings that are put back
//! ```

mod balloon;
mod dedup;
mod kit;
mod pager;
mod policy;
mod simulate;
mod soak;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{
    kit::{error::Error, report::Report, settings},
    pager::{paging, pool, resume, victims},
    soak::wake_all,
};

/// Measurements against peers, side by side in one run.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    report: Report,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    Dedup(dedup::Arguments),
    Soak(soak::Arguments),
    WakeAll(wake_all::Arguments),
    Balloon(balloon::Arguments),
    Policy(policy::Arguments),
    Simulate(simulate::Arguments),
    Pager(pager::Arguments),
    Pool(pool::Arguments),
    Resume(resume::Arguments),
    Victims(victims::Arguments),
    /// `ballast run` with a rule of others, for `policy`
    #[command(hide = true)]
    PolicyHost(policy::host::Arguments),
    /// A guest of `pager`, in its process
    #[command(hide = true)]
    PagerGuest {
        /// What to do, as JSON
        spec: String,
    },
}

fn main() -> ExitCode {
    let Arguments { report, bench } = Arguments::parse();
    match measure(bench, report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ballast-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(bench: Bench, report: Report) -> Result<(), Error> {
    if !matches!(bench, Bench::PolicyHost(_) | Bench::PagerGuest { .. }) {
        settings::put_back_on_signals()?;
    }
    match bench {
        Bench::Dedup(arguments) => dedup::run(arguments, report),
        Bench::Soak(arguments) => soak::run(arguments, &report),
        Bench::WakeAll(arguments) => wake_all::run(arguments, &report),
        Bench::Balloon(arguments) => balloon::run(arguments, &report),
        Bench::Policy(arguments) => policy::run(arguments, &report),
        Bench::Simulate(arguments) => simulate::run(&arguments),
        Bench::Pager(arguments) => pager::run(arguments, &report),
        Bench::Pool(arguments) => pool::run(arguments, &report),
        Bench::Resume(arguments) => resume::run(arguments, &report),
        Bench::Victims(arguments) => victims::run(arguments, &report),
        Bench::PolicyHost(arguments) => policy::host::run(arguments),
        Bench::PagerGuest { spec } => paging::guest(&spec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
