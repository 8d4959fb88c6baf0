//! What a run of `dedup` is to measure, and what comes of each scenario.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;
use serde_json::Value;

use crate::{
    dedup::{scenario::Name, sides::who::Who},
    kit::{error::Error, report::Report, target::Target},
};

/// What to measure.
#[derive(Clone, Debug, Default)]
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
    /// Where figures go, and what fails.
    pub report: Report,
    /// Kernel memory of an address-space area, bytes; measured when the run begins.
    pub area_bytes: f64,
}

/// What came of one scenario.
#[derive(Debug, Serialize)]
pub struct ScenarioOutcome {
    /// Its name.
    pub scenario: String,
    /// All figures.
    pub figures: Value,
    /// The targets it bears on, for those sides that were measured.
    pub targets: Vec<Target>,
}

impl Plan {
    /// Whether this side is asked for.
    pub fn has(&self, who: Who) -> bool {
        self.sides.contains(&who)
    }

    /// What a side did in a scenario; nothing if that could not be measured.
    pub fn measured<T>(&self, scenario: &str, side: Who, result: Result<T, Error>) -> Option<T> {
        self.report.measured(&format!("{scenario}: {}", side.name().trim_end()), result)
    }
}

impl ScenarioOutcome {
    /// Of `scenario`; an error if the figures are no JSON.
    pub fn new(scenario: Name, figures: &impl Serialize, targets: Vec<Target>) -> Result<ScenarioOutcome, Error> {
        let figures = serde_json::to_value(figures).map_err(|error| Error::Guest(error.to_string()))?;
        Ok(ScenarioOutcome { scenario: scenario.text(), figures, targets })
    }
}
