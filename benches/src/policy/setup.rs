//! What every scenario of `policy` is told.

use std::path::PathBuf;

use crate::policy::{rules::Rule, run::Run};

/// What is measured, where, and in how much memory.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The `ballast` program.
    pub program: PathBuf,
    /// Directory on a disk, for swap files.
    pub swap: PathBuf,
    /// What P7's guests are to fit into, MiB.
    pub density_budget_mib: u32,
}

impl Setup {
    /// A minute under our rule, with swap files and without dedup, sampled often enough to know by the turn
    /// what each guest uses. Who the guests are is still to be said.
    pub fn run(&self, budget_mib: u32) -> Run<'_> {
        Run {
            program: &self.program,
            memory_mib: 256,
            budget_mib,
            seconds: 60,
            swap: Some(&self.swap),
            guests: Vec::new(),
            arguments: vec!["--dedup", "off", "--sample-period", "15s"],
            rule: Rule::Ballast,
        }
    }
}
