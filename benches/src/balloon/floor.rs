//! Giving contiguous memory up, by the pager, against the least it can take: one `madvise` over the same
//! range of such a mapping.

use std::sync::Arc;

use dedup::Domain;
use nix::{
    sys::mman::{MmapAdvise, madvise},
    time::{ClockId, clock_gettime},
};
use pager::{Gfn, GuestMemory, PAGE_BYTES, PageBytes, Run};
use serde::Serialize;
use vmm::Failures;

use crate::kit::{error::Error, guest_memory, report::median};

/// Pages given up: 128 MiB.
const PAGES: u32 = 32 << 10;
/// Times that both take turns.
const ROUNDS: usize = 9;

/// Medians, CPU seconds for 128 MiB.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Floor {
    /// Through the page-state table.
    pub pager_cpu_seconds: f64,
    /// The one call.
    pub madvise_cpu_seconds: f64,
    /// The pager's rate over the call's.
    pub rate_ratio: f64,
}

/// Measures both.
pub fn measure() -> Result<Floor, Error> {
    let (mut pager, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let memory = Memory::filled()?;
        pager.push(cpu_of(|| {
            memory.memory.pages().inflate(Run::from_range(0..PAGES)).map_err(|error| Error::Guest(error.to_string()))
        })?);
        let memory = Memory::filled()?;
        floor.push(cpu_of(|| memory.advise())?);
    }
    let (pager, floor) = (median(pager), median(floor));
    Ok(Floor { pager_cpu_seconds: pager, madvise_cpu_seconds: floor, rate_ratio: floor / pager })
}

/// CPU time of this thread.
fn cpu_of(work: impl FnOnce() -> Result<(), Error>) -> Result<f64, Error> {
    let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_err(Error::system("asking for CPU time"));
    let before = now()?;
    work()?;
    let took = now()? - before;
    Ok(took.tv_sec() as f64 + took.tv_nsec() as f64 / 1e9)
}

struct Memory {
    memory: Arc<GuestMemory>,
    _threads: pager::Threads,
}

impl Memory {
    /// Guest memory under the pager, every page of it private.
    fn filled() -> Result<Memory, Error> {
        let domain = Domain::new(PAGES, 1)?;
        let config = guest_memory::config(PAGES, 2 * guest_memory::bytes(PAGES));
        let (memory, threads) = guest_memory::start(config, &domain, &Failures::default())?;
        let page: PageBytes = [0x5a; PAGE_BYTES];
        (0..PAGES).try_for_each(|gfn| memory.populate(Gfn(gfn), &page))?;
        Ok(Memory { memory, _threads: threads })
    }

    /// Behind the pager's back; nobody looks at this memory any more.
    fn advise(&self) -> Result<(), Error> {
        let bytes = PAGES as usize * PAGE_BYTES;
        // SAFETY: all of a mapping that `self` keeps, to which nobody has a reference.
        let advised = unsafe { madvise(self.memory.base().cast(), bytes, MmapAdvise::MADV_DONTNEED) };
        advised.map_err(Error::system("giving memory up"))
    }
}
