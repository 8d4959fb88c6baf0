//! One guest's memory at work: the pages, the threads that serve faults, and the thread that evicts.
//!
//! ```text
//!   vCPU and device threads
//!        | touch an absent or protected page, block
//!        v
//!   userfaultfd --> fault thread --(no credit)--> waiting room --> evictor thread --> the hands
//!                       |                                              |
//!                       +-- Pages::fault (never waits)                 +-- the same, once there are credits
//!                       |                                              |
//!                       +--(on disk)--> reads -------------------------+--> swap threads --> Pages::swap_in
//! ```
//!
//! The fault thread never dereferences guest memory, never allocates, and never waits for memory: a fault
//! that finds no credit goes to the waiting room. The evictor keeps some credits in hand, so that this is
//! rare.

mod burst;
mod evictor;
mod failure;
mod faults;
mod hands;
mod prefetch;
mod reads;
mod sampler;
mod status;
mod wait_clock;
mod waiting;
mod wanted;

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
    panic::{self, AssertUnwindSafe},
    ptr::NonNull,
    sync::{Arc, Condvar, Mutex, OnceLock, atomic::AtomicBool},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use control::{Starved, status::SamplingStatus, sync};
use nix::sys::eventfd::{EfdFlags, EventFd};

use wire::{Gfn, PAGE_BYTES, PageBytes};

pub use failure::Failure;
use wait_clock::WaitClock;
use waiting::{WAITING_MAX, Waiting};
use wanted::Wanted;

use crate::{
    accounts::{counters::Counters, credit::Credits, references::References},
    memory::{burst::Burst, reads::Reads},
    pages::{Pages, table::PageTable},
    rules::{notice::Notice, reach::Reach},
    sync::{AtomicI64, AtomicU64, Ordering, lock},
    sys::{MmapArena, Ram, Resident, SlotFile, StoreView, ThreadClock},
    tiers::{
        image::{Image, ImageFile},
        kernel::KernelTier,
        pool::{Pool, SLAB_BYTES},
        swap::Swap,
    },
};

/// Shared pages are open while the credits to spare are at least one in so many of the guest's pages; see
/// `pages::open`.
const OPEN_CREDITS_ONE_IN: i64 = 8;
/// Threads that read pages back from the disk: an SSD serves as many requests at once without taking longer
/// for each.
const READERS: usize = 4;
/// A fault that has waited this long for a credit ends the guest: nothing can be evicted, and nobody else
/// gave way.
const STARVATION_LIMIT: Duration = Duration::from_secs(15);

/// What guest memory is made of.
pub struct Config {
    /// Pages of RAM.
    pub pages: u32,
    /// Allocation to begin with, bytes.
    pub allocation_bytes: u64,
    /// What of it is neither guest pages nor pool, bytes; measured again while the guest runs.
    pub overhead_bytes: u64,
    /// Whether pages may be evicted.
    pub evict: bool,
    /// Threads that serve faults, at least one: as many as there are vCPUs to fault at once, and CPUs to
    /// serve them.
    pub fault_threads: usize,
    /// Address-space areas that aliases may cost.
    pub vma_budget: u32,
    /// Where pages go that neither compress nor fit in the pool.
    pub swap: Option<Box<dyn SlotFile>>,
    /// The file that RAM is loaded from, if there is one: pages that still equal it need not be kept.
    pub image: Option<Box<dyn ImageFile>>,
    /// Whether the working set comes back in bulk after a pause, or when much memory is given at once.
    pub prefetch: bool,
    /// Whether the host swaps to a compressed device in memory, which takes pages before the pool does.
    pub kernel_tier: bool,
    /// Anonymous memory of this process that has nothing to do with the guest, bytes.
    pub foreign_bytes: u64,
}

/// A guest's memory.
pub struct GuestMemory {
    pages: Pages<Ram>,
    evict: bool,
    proactive: AtomicBool,
    start: Instant,
    wait_clock: WaitClock,
    stopping: AtomicBool,
    stop: EventFd,
    waiting: Mutex<Vec<Waiting>>,
    evictor: Condvar,
    fault_threads: usize,
    burst: Burst,
    reads: Reads,
    wanted: Wanted,
    vcpu_tids: Mutex<Vec<i32>>,
    fault_clocks: Mutex<Vec<ThreadClock>>,
    evict_clock: OnceLock<ThreadClock>,
    /// Sampling period, ms; 0 for none.
    sample_period_ms: AtomicU64,
    sampling: Mutex<SamplingStatus>,
    /// Since when no more memory will come, by the host's word, on the wait clock, ms; negative while some
    /// may.
    ends_since_ms: AtomicI64,
    last_private: AtomicI64,
    resident: Resident,
    /// Pages that the kernel has swapped out, as last seen.
    swapped: AtomicI64,
    foreign_bytes: u64,
    notice: Mutex<Notice>,
    /// Has the scanner go on at once.
    hurry: OnceLock<Box<dyn Fn() + Send + Sync>>,
    on_failure: Box<dyn Fn(Failure) + Send + Sync>,
}

/// A number that nobody else knows.
fn secret() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Threads of a [`GuestMemory`]; dropping it ends them.
pub struct Threads {
    memory: Arc<GuestMemory>,
    threads: Vec<JoinHandle<()>>,
}

impl GuestMemory {
    /// Maps a guest's RAM over `store` and serves its faults. `on_failure` is called, once or more, from one
    /// of the threads.
    pub fn new(
        config: Config,
        store: StoreView,
        on_failure: Box<dyn Fn(Failure) + Send + Sync>,
    ) -> Result<(Arc<GuestMemory>, Threads), Failure> {
        let frames = store.count();
        // The pool may not outgrow RAM: pages are only stored when they shrink.
        let arena_bytes = (config.pages as usize * PAGE_BYTES).next_multiple_of(SLAB_BYTES);
        let arena_bytes = arena_bytes.try_into().map_err(io::Error::other)?;
        let memory = Arc::new(GuestMemory {
            pages: Pages {
                table: PageTable::new(config.pages),
                credits: Credits::new(config.allocation_bytes, config.overhead_bytes),
                references: References::new(frames),
                pool: crate::sync::Mutex::new(Pool::new(Box::new(
                    MmapArena::new(arena_bytes).map_err(io::Error::from)?,
                ))?),
                swap: config.swap.map(Swap::new),
                // Without eviction nobody would ask it.
                image: config.image.filter(|_| config.evict).map(|file| Image::new(file, config.pages, secret())),
                kernel: KernelTier::new(config.kernel_tier && config.evict),
                reach: Reach::of_fresh_memory(),
                ahead: Reach::of_returns(),
                mapping: Ram::new(config.pages, store)?,
                counters: Counters::default(),
                vma_budget: config.vma_budget,
                open_credits: i64::from(config.pages) / OPEN_CREDITS_ONE_IN,
            },
            evict: config.evict,
            proactive: AtomicBool::new(false),
            start: Instant::now(),
            wait_clock: WaitClock::new(Instant::now()),
            stopping: AtomicBool::new(false),
            stop: EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(io::Error::from)?,
            waiting: Mutex::new(Vec::with_capacity(WAITING_MAX)),
            evictor: Condvar::new(),
            fault_threads: config.fault_threads,
            burst: Burst::default(),
            reads: Reads::default(),
            wanted: Wanted::new(config.prefetch),
            vcpu_tids: Mutex::new(Vec::new()),
            fault_clocks: Mutex::default(),
            evict_clock: OnceLock::new(),
            sample_period_ms: AtomicU64::new(0),
            sampling: Mutex::default(),
            ends_since_ms: AtomicI64::new(0),
            last_private: AtomicI64::new(0),
            resident: Resident::open()?,
            swapped: AtomicI64::new(0),
            foreign_bytes: config.foreign_bytes,
            notice: Mutex::new(Notice::new(Instant::now())),
            hurry: OnceLock::new(),
            on_failure,
        });
        let mut threads = Threads { memory: memory.clone(), threads: Vec::new() };
        let readers = if memory.pages.swap.is_some() || memory.pages.image.is_some() { READERS } else { 0 };
        let servants = [("fault", GuestMemory::serve_faults as fn(&_) -> _), ("evictor", GuestMemory::run_evictor)];
        let helpers = (1..config.fault_threads).map(|_| ("fault", GuestMemory::help_with_faults as _));
        let prefetcher = config.prefetch.then_some(("prefetch", GuestMemory::run_prefetch as _));
        let readers = (0..readers).map(|_| ("swap", GuestMemory::run_reader as _));
        for (name, body) in servants.into_iter().chain(helpers).chain(prefetcher).chain(readers) {
            let memory = memory.clone();
            let run = move || {
                // Without a thread the guest would wait for ever, and nobody know why.
                let ended = panic::catch_unwind(AssertUnwindSafe(|| body(&memory)));
                if let Err(failure) = ended.unwrap_or_else(|payload| Err(Failure::of_panic(name, &*payload))) {
                    (memory.on_failure)(failure);
                }
            };
            threads.threads.push(thread::Builder::new().name(name.into()).spawn(run)?);
        }
        Ok((memory, threads))
    }

    /// The transitions, for devices and the scanner.
    pub fn pages(&self) -> &Pages<Ram> {
        &self.pages
    }

    /// Where RAM is mapped.
    pub fn base(&self) -> NonNull<u8> {
        self.pages.mapping.base()
    }

    /// Threads whose time blocked in faults is the guest's stall.
    pub fn set_vcpu_tids(&self, tids: Vec<i32>) {
        *sync::lock(&self.vcpu_tids) = tids;
    }

    /// From now on there is a scanner, which `hurry` has go on at once: fresh pages are not evicted before it
    /// has dealt with them, unless it takes too long. To be called once.
    pub fn set_scanner(&self, hurry: Box<dyn Fn() + Send + Sync>) {
        let is_first = self.hurry.set(hurry).is_ok();
        debug_assert!(is_first);
    }

    /// Changes the allocation, bytes. In force at once; a guest above it is evicted down to it.
    pub fn set_allocation(&self, allocation_bytes: u64) {
        let before_bytes = self.pages.credits.allocation_bytes();
        self.pages.credits.resize(allocation_bytes, self.pages.credits.overhead_bytes());
        self.grown(allocation_bytes.saturating_sub(before_bytes));
        self.evictor.notify_one();
    }

    /// Has the guest's active memory sampled with this period from now on, ms; 0 for never. Without eviction
    /// nothing can be sampled.
    pub fn set_sample_period_ms(&self, period_ms: u64) {
        if self.sample_period_ms.swap(period_ms, Ordering::Relaxed) != period_ms {
            self.evictor.notify_one();
        }
    }

    /// Whether pages are to be evicted before memory is short; see [`crate::rules::proactive`].
    pub fn set_proactive(&self, proactive: bool) {
        // Relaxed: nothing else goes by it.
        if self.proactive.swap(proactive, Ordering::Relaxed) != proactive {
            self.evictor.notify_one();
        }
    }

    /// What a page costs from now on that the kernel has swapped out, in parts of
    /// [`control::WHOLE_PAGE_PRICE`]. Says nothing where there is no kernel tier.
    pub fn set_kernel_price(&self, price: u16) {
        self.pages.kernel.set_price(price);
    }

    /// The host is there: who waits for memory may hope for some. Once heard, it has to be heard again every
    /// few seconds for waiting to count.
    pub fn attended(&self) {
        self.wait_clock.attended(Instant::now());
    }

    /// Boot loading: first content of an untouched page; waits for memory as long as it takes, but not for
    /// ever.
    pub fn populate(&self, gfn: Gfn, bytes: &PageBytes) -> Result<(), Failure> {
        let (since, clock_ms) = (Instant::now(), self.wait_clock.shown());
        while !self.pages.populate(gfn, bytes)? {
            if self.has_starved(clock_ms) {
                return Err(self.starved(since));
            }
            self.evictor.notify_one();
            thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// What becomes of a guest whose faults find no credit; what it waited while it was to wait does not
    /// count.
    pub fn set_starved(&self, starved: Starved) {
        let now_ms = self.wait_clock.shown() as i64;
        let change = |since_ms: i64| match starved {
            Starved::Waits => Some(-1),
            Starved::Ends if since_ms < 0 => Some(now_ms),
            Starved::Ends => None,
        };
        // Relaxed: nothing else goes by it. Fails when there is nothing to change.
        let _ = self.ends_since_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }

    /// Whether a fault that has waited since the wait clock showed that has waited for too long.
    fn has_starved(&self, clock_ms: u64) -> bool {
        let ends_since_ms = u64::try_from(self.ends_since_ms.load(Ordering::Relaxed));
        ends_since_ms.is_ok_and(|since_ms| self.wait_clock.lasted(clock_ms.max(since_ms)) > STARVATION_LIMIT)
    }

    fn starved(&self, since: Instant) -> Failure {
        Failure::Starved {
            waited: since.elapsed(),
            allocation_bytes: self.pages.credits.allocation_bytes(),
            private: self.pages.table.counts().private,
            open: self.pages.table.open(),
            pool_bytes: lock(&self.pages.pool).bytes(),
            overhead_bytes: self.pages.credits.overhead_bytes(),
            incompressible: self.pages.counters.incompressible_total.load(Ordering::Relaxed),
        }
    }

    /// What went wrong lately and was survived, in a line for the log.
    pub fn take_trouble(&self) -> Option<String> {
        self.pages.swap.as_ref().and_then(Swap::take_trouble)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.memory.stopping.store(true, Ordering::Release);
        // Fails only when the counter would overflow, and then the thread is awake.
        let _ = self.memory.stop.write(1);
        self.memory.evictor.notify_all();
        self.memory.burst.wake_all();
        self.memory.reads.wake_all();
        self.memory.wanted.wake();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
