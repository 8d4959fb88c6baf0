//! Which `ballast` is driven.

use std::path::PathBuf;

use clap::Args;

use crate::kit::error::Error;

/// The program under measurement.
#[derive(Args)]
pub struct Program {
    /// The `ballast` program [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    ballast: Option<PathBuf>,
}

impl Program {
    /// Where it is.
    pub fn path(self) -> Result<PathBuf, Error> {
        let this = std::env::current_exe().map_err(Error::system("finding this program"))?;
        Ok(self.ballast.unwrap_or_else(|| this.with_file_name("ballast")))
    }
}
