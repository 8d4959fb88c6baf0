//! One measurement at a time on a machine: another's would spoil this one's figures, and each puts back the
//! settings it found.

use std::fs::File;

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::kit::error::Error;

/// Any file that every machine has one of; this one is changed by measurements, too.
const FILE: &str = "/proc/sys/vm/max_map_count";

/// The right to measure; dropping it lets the next one begin.
pub struct Turn(#[expect(dead_code, reason = "holding it is its use")] Flock<File>);

impl Turn {
    /// Waits, aloud, until no other measurement is under way.
    pub fn take() -> Result<Turn, Error> {
        let file = File::open(FILE).map_err(|source| Error::File { path: FILE.into(), source })?;
        let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock).or_else(|(file, errno)| {
            if errno != Errno::EWOULDBLOCK {
                return Err(errno);
            }
            eprintln!("ballast-bench: another measurement is under way on this machine; waiting for its end");
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)
        });
        locked.map(Turn).map_err(Error::system("waiting for the machine"))
    }
}
