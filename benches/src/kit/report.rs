//! How every benchmark ends: its targets on stdout, one line each, then how many were met; and its figures in
//! a file.
//!
//! A measurement that fails does not end the others. It is said, its figures are no numbers, and so its
//! targets are missed, each with its line; at the end the exit code tells.

use std::{cell::Cell, fs, path::PathBuf};

use clap::Args;
use serde::Serialize;

use crate::kit::{error::Error, target::Target};

/// Where the figures of a benchmark go, and what could not be measured.
#[derive(Args, Clone, Debug, Default)]
pub struct Report {
    /// Where to write the figures as JSON
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,
    #[arg(skip)]
    failures: Cell<u32>,
}

impl Report {
    /// What was measured; an error is said and counted.
    pub fn measured<T>(&self, what: &str, result: Result<T, Error>) -> Option<T> {
        result
            .inspect_err(|error| {
                println!("{what}: not measured: {error}");
                self.failures.set(self.failures.get() + 1);
            })
            .ok()
    }

    /// Writes the figures, if anybody wants them. What was there before is replaced.
    pub fn write(&self, figures: &impl Serialize) -> Result<(), Error> {
        let Some(path) = &self.json else { return Ok(()) };
        let text = serde_json::to_vec_pretty(figures).map_err(std::io::Error::from);
        text.and_then(|text| fs::write(path, text)).map_err(|source| Error::File { path: path.clone(), source })
    }

    /// Prints targets, and writes figures, which have them too. An error if anything was not measured.
    pub fn conclude(&self, targets: &[Target], figures: &impl Serialize) -> Result<(), Error> {
        targets.iter().for_each(|target| println!("{target}"));
        let met = targets.iter().filter(|target| target.is_met()).count();
        println!("summary: {met} of {} targets met", targets.len());
        self.write(figures)?;
        self.verdict()
    }

    /// An error if anything was not measured.
    pub fn verdict(&self) -> Result<(), Error> {
        match self.failures.get() {
            0 => Ok(()),
            count => Err(Error::NotMeasured { count }),
        }
    }
}

/// The median; not a number if there are no figures: what was not measured meets no target.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_at_the_end_and_not_before() {
        let report = Report::default();
        assert_eq!(report.measured("one", Ok(1)), Some(1));
        assert!(report.verdict().is_ok());
        assert_eq!(report.measured::<u32>("other", Err(Error::NoKsm)), None);
        assert!(matches!(report.conclude(&[], &()), Err(Error::NotMeasured { count: 1 })));
    }

    #[test]
    fn the_median_of_nothing_is_no_number() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert!(median(Vec::new()).is_nan());
    }
}
