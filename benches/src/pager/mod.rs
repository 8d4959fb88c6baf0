//! `pager`: what page faults cost by kind ([`faults`]), what it takes to look after pages ([`metadata`]), and
//! what guests get done that want more memory than they have ([`paging`]). Beside it, what has a command of
//! its own: [`pool`], [`resume`], [`victims`].

mod faults;
mod floor;
mod metadata;
pub mod paging;
pub mod pool;
pub mod resume;
pub mod victims;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use self::{metadata::Metadata, paging::Runs};
use crate::kit::{error::Error, report::Report, target::Target, turn::Turn};

/// What page faults cost by kind, against a handler that does nothing but copy. Needs the right to serve
/// faults.
#[derive(Args)]
#[command(after_help = "\
Example:
  cargo run --release -p ballast-bench -- pager --swap /var/tmp --json pager.json")]
pub struct Arguments {
    /// Directory on a disk, for swap files; without it nothing is swapped
    #[arg(long, value_name = "DIR")]
    swap: Option<PathBuf>,
    /// Measure a part; repeatable: faults, metadata, sweep, touch, zipf, scan, gups, stream [default: all]
    #[arg(long = "only", value_name = "PART")]
    only: Vec<String>,
}

#[derive(Serialize)]
struct Figures<'a> {
    faults: Option<&'a faults::Figures>,
    metadata: &'a [Metadata],
    runs: &'a Runs,
    targets: &'a [Target],
}

/// Runs it; prints targets.
pub fn run(arguments: Arguments, report: &Report) -> Result<(), Error> {
    let Arguments { swap, only } = arguments;
    let _turn = Turn::take()?;
    let is_wanted = |part: &str| only.is_empty() || only.iter().any(|wanted| wanted == part);
    let (mut targets, mut faults, mut metadata) = (Vec::new(), None, Vec::new());
    if is_wanted("faults") {
        faults = report.measured("pager: faults", faults::run(swap.as_deref()));
        targets.extend(faults::targets(faults.as_ref()));
    }
    if is_wanted("metadata") {
        metadata = report.measured("pager: metadata", metadata::run()).unwrap_or_default();
        targets.push(metadata::target(&metadata));
    }
    let runs = paging::run(swap.as_deref(), &is_wanted, report);
    targets.extend(runs.targets(&is_wanted));
    report.conclude(&targets, &Figures { faults: faults.as_ref(), metadata: &metadata, runs: &runs, targets: &targets })
}
