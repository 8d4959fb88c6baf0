//! `pager`: what page faults cost by kind ([`crate::faults`]), and what guests get done that want more memory than they have
//! ([`crate::paging`]).

use std::{fs, path::PathBuf};

use serde::Serialize;

use crate::{
    error::Error,
    faults,
    metadata::{self, Metadata},
    paging::{self, Runs},
    target::Target,
    turn::Turn,
};

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where swap files go; without it nothing is swapped to disk.
    pub swap: Option<PathBuf>,
    /// Parts to measure; none are all.
    pub only: Vec<String>,
    /// Where the figures go.
    pub json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Figures<'a> {
    faults: Option<&'a faults::Figures>,
    metadata: &'a [Metadata],
    runs: &'a Runs,
    targets: &'a [Target],
}

/// Runs it; prints targets.
pub fn run(plan: &Plan) -> Result<(), Error> {
    let _turn = Turn::take()?;
    let is_wanted = |part: &str| plan.only.is_empty() || plan.only.iter().any(|wanted| wanted == part);
    let faults = is_wanted("faults").then(|| faults::run(plan.swap.as_deref())).transpose()?;
    let metadata = if is_wanted("metadata") { metadata::run()? } else { Vec::new() };
    let runs = paging::run(plan.swap.as_deref(), is_wanted);
    let mut targets = faults.as_ref().map(faults::Figures::targets).unwrap_or_default();
    targets.extend(metadata::targets(&metadata));
    targets.extend(runs.targets());
    targets.iter().for_each(|target| println!("{target}"));
    println!("summary: {} of {} targets met", targets.iter().filter(|target| target.is_met()).count(), targets.len());
    let Some(path) = &plan.json else { return Ok(()) };
    let figures = Figures { faults: faults.as_ref(), metadata: &metadata, runs: &runs, targets: &targets };
    let text = serde_json::to_vec_pretty(&figures).map_err(std::io::Error::from);
    text.and_then(|text| fs::write(path, text)).map_err(|source| Error::File { path: path.clone(), source })
}
