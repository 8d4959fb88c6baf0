//! All of this crate's `unsafe`: mappings, userfaultfd and pagemap ioctls, clocks.
//!
//! To port Ballast to another kernel interface, change what is in here. Everything above works on page
//! numbers.

mod arena;
mod buffer;
mod many;
mod pagemap;
mod precedence;
mod ram;
mod resident;
mod run_queue;
mod slot_file;
mod store;
mod swap_file;
mod uffd;

pub use arena::{Arena, MmapArena};
pub use buffer::PageBuffer;
pub use precedence::Precedence;
pub use ram::{PLACEMENT_BYTES, Ram};
pub use resident::Resident;
pub use run_queue::{RunQueue, RunTimes};
pub use slot_file::SlotFile;
pub use store::StoreView;
pub use swap_file::{SwapFile, SwapFileError};
pub use uffd::{FaultEvent, FaultKind, ProbeError, Uffd, probe};

use std::{io, time::Duration};

use nix::time::{ClockId, clock_gettime};

/// CPU time of one thread of this process, for the others to read: a thread that is in a hurry need not stop
/// to look.
#[derive(Clone, Copy, Debug)]
pub struct ThreadClock(ClockId);

impl ThreadClock {
    /// The calling thread's.
    pub fn this() -> io::Result<ThreadClock> {
        let mut clock = 0;
        // SAFETY: takes no pointer, and cannot fail.
        let this = unsafe { libc::pthread_self() };
        // SAFETY: the calling thread is alive; the result goes to a variable of ours.
        match unsafe { libc::pthread_getcpuclockid(this, &raw mut clock) } {
            0 => Ok(ThreadClock(ClockId::from_raw(clock))),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// What the thread has used so far; nothing once it has ended.
    pub fn read(self) -> Option<Duration> {
        clock_gettime(self.0).ok().map(Duration::from)
    }
}

fn io_error(errno: nix::errno::Errno) -> io::Error {
    io::Error::from_raw_os_error(errno as i32)
}
