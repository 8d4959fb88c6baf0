//! The floor: the least that serving a page fault in user space can cost on this machine.
//!
//! One thread waits for faults and copies the same page each time (`UFFDIO_COPY`), as in the kernel's own
//! example. It looks nothing up, counts nothing and bounds nothing.

use std::{
    os::fd::AsFd,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    time::{ClockId, clock_gettime},
};
use pager::PAGE_BYTES;
use userfaultfd::{Event, Uffd, UffdBuilder};

use crate::kit::{
    error::Error,
    ram::{GuestRam, PlainMemory},
};

/// How often the thread looks whether it is to end.
const LOOK_MS: u16 = 20;

/// Memory with a bare fault handler.
pub struct Floor {
    memory: PlainMemory,
    stop: Arc<AtomicBool>,
    cpu_ns: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Floor {
    /// `pages` absent pages.
    pub fn new(pages: u32) -> Result<Floor, Error> {
        let memory = PlainMemory::new(pages)?;
        let failed = |error: userfaultfd::Error| Error::Guest(format!("userfaultfd: {error}"));
        let uffd = UffdBuilder::new().close_on_exec(true).non_blocking(true).user_mode_only(false).create();
        let uffd = uffd.map_err(failed)?;
        let bytes = pages as usize * PAGE_BYTES;
        uffd.register(memory.base().as_ptr().cast(), bytes).map_err(failed)?;
        let (stop, cpu_ns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, cpu) = (stop.clone(), cpu_ns.clone());
        let serve = move || serve(&uffd, &stopping, &cpu);
        let thread = thread::Builder::new().name("floor".into()).spawn(serve);
        let thread = thread.map_err(Error::system("starting a thread"))?;
        Ok(Floor { memory, stop, cpu_ns, thread: Some(thread) })
    }

    /// The memory.
    pub fn ram(&self) -> GuestRam {
        self.memory.ram()
    }

    /// CPU time the handler has used.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_ns.load(Ordering::Relaxed))
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say that its silence did not.
            let _ = thread.join();
        }
    }
}

fn serve(uffd: &Uffd, stop: &AtomicBool, cpu_ns: &AtomicU64) {
    let page = vec![0x5au8; PAGE_BYTES];
    while !stop.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(uffd.as_fd(), PollFlags::POLLIN)];
        if !matches!(poll(&mut fds, PollTimeout::from(LOOK_MS)), Ok(1)) {
            continue;
        }
        while let Ok(Some(Event::Pagefault { addr, .. })) = uffd.read_event() {
            let target = NonNull::new(addr).map(|addr| addr.as_ptr().map_addr(|addr| addr & !(PAGE_BYTES - 1)));
            let Some(target) = target else { continue };
            // SAFETY: `page` is as long as is read of it; the kernel writes to an absent page of the
            // registered range only.
            let _ = unsafe { uffd.copy(page.as_ptr().cast(), target, PAGE_BYTES, true) };
        }
        let used = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from);
        cpu_ns.store(used.as_nanos() as u64, Ordering::Relaxed);
    }
}
