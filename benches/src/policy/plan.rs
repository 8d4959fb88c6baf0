//! What every scenario of `policy` is told.

use std::path::PathBuf;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `ballast` program.
    pub program: PathBuf,
    /// Directory on a disk, for swap files.
    pub swap: PathBuf,
    /// What P7's guests are to fit into, MiB.
    pub density_budget_mib: u32,
}
