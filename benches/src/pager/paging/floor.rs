//! The floor under throughput: the least that paging in user space can do, with none of what makes it useful.
//!
//! ```text
//!   fault on p:  copy the page that came first out to the store, drop it, UFFDIO_COPY p from the store
//! ```
//!
//! The store is plain memory that nobody pays for: nothing is compressed, looked up, counted or bounded. One
//! vCPU only: while it waits for its fault nobody writes, so nothing has to be protected.

use std::{
    collections::VecDeque,
    os::fd::AsFd,
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::mman::{MmapAdvise, madvise},
};
use pager::PAGE_BYTES;
use userfaultfd::{Event, Uffd, UffdBuilder};

use crate::kit::{error::Error, ram::PlainMemory};

/// How often the thread looks whether it is to end.
const LOOK_MS: u16 = 20;

/// Memory of which so many pages are there at a time.
pub struct SwappingFloor {
    memory: Arc<PlainMemory>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SwappingFloor {
    /// `pages` absent pages, of which at most `resident` will be present.
    pub fn new(pages: u32, resident: u32) -> Result<SwappingFloor, Error> {
        let (memory, store) = (Arc::new(PlainMemory::new(pages)?), PlainMemory::new(pages)?);
        let failed = |error: userfaultfd::Error| Error::Guest(format!("userfaultfd: {error}"));
        let uffd = UffdBuilder::new().close_on_exec(true).non_blocking(true).user_mode_only(false).create();
        let uffd = uffd.map_err(failed)?;
        uffd.register(memory.base().as_ptr().cast(), pages as usize * PAGE_BYTES).map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut server = Server { uffd, memory: memory.clone(), store, present: VecDeque::new(), resident };
        let stopping = stop.clone();
        let serve = move || server.run(&stopping);
        let thread = thread::Builder::new().name("floor".into()).spawn(serve);
        Ok(SwappingFloor { memory, stop, thread: Some(thread.map_err(Error::system("starting a thread"))?) })
    }

    /// Where it is.
    pub fn base(&self) -> NonNull<u8> {
        self.memory.base()
    }
}

impl Drop for SwappingFloor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say that its silence did not.
            let _ = thread.join();
        }
    }
}

struct Server {
    uffd: Uffd,
    memory: Arc<PlainMemory>,
    store: PlainMemory,
    present: VecDeque<usize>,
    resident: u32,
}

impl Server {
    fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let mut fds = [PollFd::new(self.uffd.as_fd(), PollFlags::POLLIN)];
            if !matches!(poll(&mut fds, PollTimeout::from(LOOK_MS)), Ok(1)) {
                continue;
            }
            while let Ok(Some(Event::Pagefault { addr, .. })) = self.uffd.read_event() {
                self.serve((addr as usize - self.memory.base().as_ptr() as usize) & !(PAGE_BYTES - 1));
            }
        }
    }

    fn serve(&mut self, offset: usize) {
        if self.present.len() >= self.resident as usize
            && let Some(victim) = self.present.pop_front()
        {
            let (from, to) = (at(&self.memory, victim), at(&self.store, victim));
            // SAFETY: both are whole pages of mappings that `self` owns; the one thread that uses them waits
            // for us.
            unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), PAGE_BYTES) };
            // SAFETY: a page of the same mapping, to which nobody holds a reference.
            let _ = unsafe { madvise(from.cast(), PAGE_BYTES, MmapAdvise::MADV_DONTNEED) };
        }
        let (source, target) = (at(&self.store, offset), at(&self.memory, offset));
        // SAFETY: the source is a page of the store; the kernel writes to an absent page of the registered
        // range only.
        let _ = unsafe { self.uffd.copy(source.as_ptr().cast(), target.as_ptr().cast(), PAGE_BYTES, true) };
        self.present.push_back(offset);
    }
}

fn at(memory: &PlainMemory, offset: usize) -> NonNull<u8> {
    // SAFETY: offsets are of addresses that the kernel found in the registered range, which is as long as
    // both mappings.
    unsafe { memory.base().add(offset) }
}
