//! All of this crate's `unsafe`: mappings, userfaultfd and pagemap ioctls, clocks.
//!
//! To port Ballast to another kernel interface, change what is in here. Everything above works on page numbers.

mod arena;
mod pagemap;
mod ram;
mod store;
mod swap_file;
mod uffd;

pub use arena::MmapArena;
pub use ram::Ram;
pub use store::StoreView;
pub use swap_file::{SwapFile, SwapFileError};
pub use uffd::{FaultEvent, FaultKind, ProbeError, Uffd, probe};

use std::{io, time::Duration};

use nix::time::{ClockId, clock_gettime};

/// CPU time this thread has used.
pub fn thread_cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

fn io_error(errno: nix::errno::Errno) -> io::Error {
    io::Error::from_raw_os_error(errno as i32)
}
