//! One guest's memory at work: the pages, the thread that serves faults, and the thread that evicts.
//!
//! ```text
//!   vCPU and device threads
//!        | touch an absent or protected page, block
//!        v
//!   userfaultfd --> fault thread --(no credit)--> waiting room --> evictor thread --> the hands
//!                       |                                              |
//!                       +-- Pages::fault (never waits)                 +-- Pages::fault again, once there are credits
//!                       |                                              |
//!                       +--(on disk)--> reads -------------------------+--> swap threads --> Pages::swap_in
//! ```
//!
//! The fault thread never dereferences guest memory, never allocates, and never waits for memory: a fault that finds no credit goes to
//! the waiting room. The evictor keeps [`WATERMARK_PAGES`] credits in hand, so that this is rare.

use std::{
    io,
    os::fd::AsFd,
    ptr::NonNull,
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, atomic::AtomicBool},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use control::status::{PagerStatus, SamplingStatus};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};

use crate::{
    credit::Credits,
    evict::{BATCH, Evictor, Need},
    frames::References,
    notice::Notice,
    pool::{Pool, SLAB_BYTES},
    proactive::Proactive,
    reach::Reach,
    reads::Reads,
    sample::Sampler,
    stall::Cause,
    stats::Counters,
    swap::{PageBuffer, SlotFile, Swap},
    sync::{AtomicI64, AtomicU64, Ordering, lock},
    sys::{FaultEvent, FaultKind, MmapArena, Ram, StoreView, ThreadClock, Uffd},
    table::PageTable,
    transition::{AHEAD_MAX, Error, Pages, Served},
    units::{Gfn, PAGE_BYTES, PageBytes},
};

/// Credits the evictor keeps in hand: what a burst of faults takes while one batch is evicted.
const WATERMARK_PAGES: i64 = 192;
/// Below this many it begins to work.
const LOW_PAGES: i64 = 96;
/// Shared pages are open while the credits to spare are at least one in so many of the guest's pages; see [`crate::open`].
const OPEN_CREDITS_ONE_IN: i64 = 8;
/// Open pages that are closed at a time when credits run short: 0.2 µs each, while faults may wait.
const CLOSE_PAGES: i64 = 4096;
/// How often the evictor looks at the credits unasked.
const EVICTOR_INTERVAL: Duration = Duration::from_millis(20);
/// How often it looks with at least so many credits left; a fault without one wakes it anyway.
const AMPLE_INTERVAL: Duration = Duration::from_secs(4);
const AMPLE_PAGES: i64 = 4096;
/// How often it looks for pages to evict before memory is short, if it is to.
const PROACTIVE_INTERVAL: Duration = Duration::from_secs(1);
/// How often it looks while faults wait for credits that eviction does not yield.
const STARVING_INTERVAL: Duration = Duration::from_millis(2);
/// A fault that has waited this long for a credit ends the guest: nothing can be evicted, and nobody else gave way.
const STARVATION_LIMIT: Duration = Duration::from_secs(15);
/// Faults that can wait for credits, one a thread: more threads than a VMM has, so that the room never grows.
pub(crate) const WAITING_MAX: usize = 128;

/// Threads that read pages back from the disk: an SSD serves as many requests at once without taking longer for each.
const READERS: usize = 4;
/// How often freed room is given back to the disk: what is freed meanwhile goes in one batch.
const DISCARD_INTERVAL: Duration = Duration::from_secs(1);
/// How often a batch of the pool's pages is packed denser: some 0.5 ms, 1 % of a CPU.
const TIDY_INTERVAL: Duration = Duration::from_millis(50);
/// Most of what is not overhead that the pool may take while there is a swap file: half. Beyond it, pages that nobody has asked for in
/// a long time would take room from pages in use. An estimate.
const POOL_SHARE_DIVISOR: u64 = 2;

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
    /// Address-space areas that aliases may cost.
    pub vma_budget: u32,
    /// Where pages go that neither compress nor fit in the pool.
    pub swap: Option<Box<dyn SlotFile>>,
}

/// Why a guest's memory cannot go on. The guest must be stopped; it has not seen a wrong byte.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// a page could not be moved
    #[error(transparent)]
    Page(#[from] Error),
    /// userfaultfd or the mapping failed
    #[error("guest memory: {0}")]
    Kernel(#[from] io::Error),
    /// out of memory
    #[error(
        "out of memory: a fault found no page for {waited:?}, and nothing more can be evicted: the allocation of \
         {allocation_bytes} B is full with {private} private and {open} open pages, a pool of {pool_bytes} B and an overhead of \
         {overhead_bytes} B ({incompressible} tries found pages incompressible); a larger budget, fewer guests, a balloon or a swap file that takes pages help"
    )]
    Starved {
        /// How long the fault waited.
        waited: Duration,
        /// The allocation, bytes.
        allocation_bytes: u64,
        /// Private pages.
        private: u64,
        /// Open pages.
        open: u64,
        /// The compressed pool, bytes.
        pool_bytes: u64,
        /// What is neither guest pages nor pool, bytes.
        overhead_bytes: u64,
        /// Failed tries to compress.
        incompressible: u64,
    },
}

/// A fault that is not served yet.
#[derive(Clone, Copy)]
pub(crate) struct Waiting {
    pub event: FaultEvent,
    pub gfn: Gfn,
    pub since: Instant,
    /// There was no credit for it when it came.
    pub starved: bool,
}

/// A guest's memory.
pub struct GuestMemory {
    pages: Pages<Ram>,
    evict: bool,
    proactive: AtomicBool,
    start: Instant,
    stopping: AtomicBool,
    stop: EventFd,
    waiting: Mutex<Vec<Waiting>>,
    evictor: Condvar,
    reads: Reads,
    vcpu_tids: Mutex<Vec<i32>>,
    fault_clock: OnceLock<ThreadClock>,
    evict_clock: OnceLock<ThreadClock>,
    /// Sampling period, ms; 0 for none.
    sample_period_ms: AtomicU64,
    sampling: Mutex<SamplingStatus>,
    last_private: AtomicI64,
    notice: Mutex<Notice>,
    on_failure: Box<dyn Fn(Failure) + Send + Sync>,
}

/// Threads of a [`GuestMemory`]; dropping it ends them.
pub struct Threads {
    memory: Arc<GuestMemory>,
    threads: Vec<JoinHandle<()>>,
}

impl GuestMemory {
    /// Maps a guest's RAM over `store` and serves its faults. `on_failure` is called, once or more, from one of the threads.
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
                reach: Reach::of_fresh_memory(),
                ahead: crate::transition::ahead(),
                mapping: Ram::new(config.pages, store)?,
                counters: Counters::default(),
                vma_budget: config.vma_budget,
                open_credits: i64::from(config.pages) / OPEN_CREDITS_ONE_IN,
            },
            evict: config.evict,
            proactive: AtomicBool::new(false),
            start: Instant::now(),
            stopping: AtomicBool::new(false),
            stop: EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(io::Error::from)?,
            waiting: Mutex::new(Vec::with_capacity(WAITING_MAX)),
            evictor: Condvar::new(),
            reads: Reads::default(),
            vcpu_tids: Mutex::new(Vec::new()),
            fault_clock: OnceLock::new(),
            evict_clock: OnceLock::new(),
            sample_period_ms: AtomicU64::new(0),
            sampling: Mutex::default(),
            last_private: AtomicI64::new(0),
            notice: Mutex::new(Notice::new(Instant::now())),
            on_failure,
        });
        let mut threads = Threads { memory: memory.clone(), threads: Vec::new() };
        let readers = if memory.pages.swap.is_some() { READERS } else { 0 };
        let servants = [("fault", GuestMemory::serve_faults as fn(&_) -> _), ("evictor", GuestMemory::run_evictor)];
        for (name, body) in servants.into_iter().chain((0..readers).map(|_| ("swap", GuestMemory::run_reader as _))) {
            let memory = memory.clone();
            let run = move || {
                if let Err(failure) = body(&memory) {
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
        *self.vcpu_tids.lock().unwrap_or_else(PoisonError::into_inner) = tids;
    }

    /// Changes the allocation, bytes. In force at once; a guest above it is evicted down to it.
    pub fn set_allocation(&self, allocation_bytes: u64) {
        self.pages.credits.resize(allocation_bytes, self.pages.credits.overhead_bytes());
        self.evictor.notify_one();
    }

    /// Has the guest's active memory sampled with this period from now on, ms; 0 for never. Without eviction nothing can be sampled.
    pub fn set_sample_period_ms(&self, period_ms: u64) {
        if self.sample_period_ms.swap(period_ms, Ordering::Relaxed) != period_ms {
            self.evictor.notify_one();
        }
    }

    /// Whether pages are to be evicted before memory is short; see [`crate::proactive`].
    pub fn set_proactive(&self, proactive: bool) {
        // Relaxed: nothing else goes by it.
        if self.proactive.swap(proactive, Ordering::Relaxed) != proactive {
            self.evictor.notify_one();
        }
    }

    /// Boot loading: first content of an untouched page; waits for memory as long as it takes, but not for ever.
    pub fn populate(&self, gfn: Gfn, bytes: &PageBytes) -> Result<(), Failure> {
        let since = Instant::now();
        while !self.pages.populate(gfn, bytes)? {
            if since.elapsed() > STARVATION_LIMIT {
                return Err(self.starved(since));
            }
            self.evictor.notify_one();
            thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    fn starved(&self, since: Instant) -> Failure {
        Failure::Starved {
            waited: since.elapsed(),
            allocation_bytes: self.pages.credits.allocation_bytes(),
            private: self.pages.table.counts().private,
            open: self.pages.table.open(),
            pool_bytes: lock(&self.pages.pool).bytes(),
            overhead_bytes: self.pages.credits.overhead_bytes(),
            incompressible: self.pages.counters.incompressible.load(Ordering::Relaxed),
        }
    }

    fn serve_faults(&self) -> Result<(), Failure> {
        _ = self.fault_clock.set(ThreadClock::this()?);
        let uffd = self.pages.mapping.uffd();
        let mut events = Uffd::buffer();
        let mut buffer: PageBytes = [0; PAGE_BYTES];
        // Read, and not served yet: events are read on while a mapping is moved, because the move waits for its own.
        let mut pending = Vec::with_capacity(WAITING_MAX);
        let mut fds = [PollFd::new(uffd.as_fd(), PollFlags::POLLIN), PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)];
        while !self.stopping.load(Ordering::Acquire) {
            let timeout = if pending.is_empty() { PollTimeout::NONE } else { PollTimeout::ZERO };
            match poll(&mut fds, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
            uffd.read(&mut events, &mut |event| pending.push(event))?;
            let Some(_no_move) = self.pages.mapping.no_move() else {
                thread::yield_now();
                continue;
            };
            pending.drain(..).try_for_each(|event| self.serve(event, &mut buffer))?;
        }
        Ok(())
    }

    fn serve(&self, event: FaultEvent, buffer: &mut PageBytes) -> Result<(), Failure> {
        let counters = &self.pages.counters;
        let kind = match event.kind {
            FaultKind::Missing => &counters.faults_missing,
            FaultKind::Minor => &counters.faults_minor,
            FaultKind::WriteProtect => &counters.faults_write_protect,
        };
        kind.fetch_add(1, Ordering::Relaxed);
        let Some(gfn) = self.pages.mapping.gfn(event.address) else { return Ok(()) };
        let waiting = Waiting { event, gfn, since: Instant::now(), starved: false };
        if !self.try_serve(waiting, buffer)? {
            counters.faults_without_credit.fetch_add(1, Ordering::Relaxed);
            self.let_wait(waiting);
            self.evictor.notify_one();
        } else if self.pages.credits.available() < LOW_PAGES {
            self.evictor.notify_one();
        }
        Ok(())
    }

    /// One place a thread: one that was woken by a signal and faulted again (on the same page or another) waits once.
    fn let_wait(&self, waiting: Waiting) {
        let waiting = Waiting { starved: true, ..waiting };
        let mut room = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match room.iter_mut().find(|other| other.event.tid == waiting.event.tid) {
            Some(other) => *other = Waiting { since: other.since, ..waiting },
            None => room.push(waiting),
        }
    }

    /// Serves a fault, or hands it to who may wait for the disk, unless there is no credit for it.
    fn try_serve(&self, waiting: Waiting, buffer: &mut PageBytes) -> Result<bool, Failure> {
        let seen = Cause::of(self.pages.table.peek(waiting.gfn), waiting.event.write);
        match self.pages.fault(waiting.gfn, waiting.event.write, buffer)? {
            Served::NoCredit => return Ok(false),
            Served::Done | Served::Moving => {
                self.served(waiting, seen);
            }
            Served::Read(page) => {
                if let Err(page) = self.reads.post(page, waiting) {
                    self.pages.put_back(page);
                }
            }
        }
        Ok(true)
    }

    /// Brings pages back from the disk, one at a time.
    fn run_reader(&self) -> Result<(), Failure> {
        let mut buffer = PageBuffer::new(AHEAD_MAX);
        while let Some((page, waiting)) = self.reads.next(|| self.stopping.load(Ordering::Acquire)) {
            self.pages.swap_in(page, &mut buffer)?;
            self.served(waiting, Cause::Swapped);
            self.reads.done(waiting);
        }
        Ok(())
    }

    /// Counts a fault, and the stall it was.
    fn served(&self, waiting: Waiting, seen: Cause) {
        let cause = if waiting.starved { Cause::Memory } else { seen };
        let stalled_by = self.is_vcpu(waiting.event.tid).then_some(cause);
        self.pages.counters.fault_served(waiting.since.elapsed(), stalled_by);
    }

    fn is_vcpu(&self, tid: i32) -> bool {
        self.vcpu_tids.lock().unwrap_or_else(PoisonError::into_inner).contains(&tid)
    }

    /// Time that vCPUs have spent so far in faults that still wait: it counts as stall before it is over, or a guest that
    /// gets no memory at all would look as if it needed none.
    fn waiting_stall(&self, cause: Cause) -> Duration {
        let stalled = |waiting: &Waiting| match self.is_vcpu(waiting.event.tid) {
            true => waiting.since.elapsed(),
            false => Duration::ZERO,
        };
        let waiting = || self.waiting.lock().unwrap_or_else(PoisonError::into_inner).iter().map(stalled).sum();
        match cause {
            Cause::Memory => waiting(),
            Cause::Swapped => self.reads.sum(stalled),
            _ => Duration::ZERO,
        }
    }

    fn run_evictor(&self) -> Result<(), Failure> {
        _ = self.evict_clock.set(ThreadClock::this()?);
        let (mut hands, mut sampler) = (Evictor::new(self.pages.count())?, Sampler::default());
        let (mut last_discard, mut last_tidy) = (Instant::now(), Instant::now());
        let mut proactive = None;
        let mut buffer: PageBytes = [0; PAGE_BYTES];
        while !self.stopping.load(Ordering::Acquire) {
            self.pages.counters.tick(self.start);
            let progress = self.make_room(&mut hands)?;
            let starving = !self.serve_waiting(&mut buffer)?;
            self.reclaim_proactively(&mut proactive, &mut hands)?;
            if starving && progress {
                continue;
            }
            if !starving && last_discard.elapsed() > DISCARD_INTERVAL {
                last_discard = Instant::now();
                self.pages.swap.iter().for_each(Swap::discard_freed);
            }
            if !starving && last_tidy.elapsed() > TIDY_INTERVAL {
                last_tidy = Instant::now();
                hands.tidy(&self.pages)?;
            }
            let interval = match () {
                () if starving => STARVING_INTERVAL,
                () if self.proactive.load(Ordering::Relaxed) && self.pages.credits.available() >= LOW_PAGES => {
                    PROACTIVE_INTERVAL.min(self.sample(&mut sampler)?)
                }
                () if self.pages.credits.available() >= AMPLE_PAGES => AMPLE_INTERVAL.min(self.sample(&mut sampler)?),
                () => EVICTOR_INTERVAL.min(self.sample(&mut sampler)?),
            };
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if starving || waiting.is_empty() && self.pages.credits.available() >= LOW_PAGES {
                drop(self.evictor.wait_timeout(waiting, interval));
            }
        }
        Ok(())
    }

    /// Evicts what the allowance of `state` lets go, where that is wished for and nobody waits for memory.
    fn reclaim_proactively(&self, state: &mut Option<Proactive>, hands: &mut Evictor) -> Result<(), Failure> {
        if !self.evict || !self.proactive.load(Ordering::Relaxed) {
            *state = None;
            return Ok(());
        }
        let (now_ms, returns) = (self.pages.counters.now_ms(), self.pages.counters.promotions.load(Ordering::Relaxed));
        let state = state.get_or_insert_with(|| Proactive::new(now_ms, returns));
        let mut due = state.evictions(now_ms, returns, self.pages.table.private()) as usize;
        while due > 0 && self.nobody_waits() && !self.stopping.load(Ordering::Acquire) {
            hands.evict(&self.pages, Need::Proactive, due)?;
            due = due.saturating_sub(BATCH);
        }
        Ok(())
    }

    /// Samples what is due; returns when something is due next. On the evictor's thread, because it stores pages in the pool, too.
    fn sample(&self, sampler: &mut Sampler) -> Result<Duration, Failure> {
        let period_ms = self.sample_period_ms.load(Ordering::Relaxed);
        let period = (self.evict && period_ms > 0).then(|| Duration::from_millis(period_ms));
        let next = sampler.turn(&self.pages, period)?;
        *self.sampling.lock().unwrap_or_else(PoisonError::into_inner) = sampler.status();
        Ok(next)
    }

    /// Evicts until the watermark is reached or nothing more goes; whether anything was gained.
    fn make_room(&self, hands: &mut Evictor) -> Result<bool, Failure> {
        if self.pages.credits.available() >= LOW_PAGES {
            return Ok(true);
        }
        let mut gained = self.pages.close_open(CLOSE_PAGES)? > 0;
        while self.evict && self.pages.credits.available() < WATERMARK_PAGES && !self.stopping.load(Ordering::Acquire) {
            let outcome = hands.evict(&self.pages, Need::Short, BATCH)?;
            gained |= outcome.evicted > 0;
            let exhausted = outcome.evicted == 0 && hands.exhausted(&self.pages);
            if exhausted || self.pool_is_large() {
                gained |= hands.write_back(&self.pages)? > 0;
            }
            if exhausted && (!self.pages.swap_usable() || hands.nothing_to_write_back(&self.pages)) {
                break;
            }
            if self.pages.credits.available() > 0 && !self.nobody_waits() {
                break;
            }
        }
        Ok(gained)
    }

    /// Whether the pool has outgrown its part of the allocation.
    fn pool_is_large(&self) -> bool {
        let credits = &self.pages.credits;
        let room_bytes = credits.allocation_bytes().saturating_sub(credits.overhead_bytes());
        self.pages.swap_usable() && lock(&self.pages.pool).bytes() > room_bytes / POOL_SHARE_DIVISOR
    }

    /// What went wrong lately and was survived, in a line for the log.
    pub fn take_trouble(&self) -> Option<String> {
        self.pages.swap.as_ref().and_then(Swap::take_trouble)
    }

    fn nobody_waits(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Serves faults that wait, oldest first, while credits last; whether all were.
    fn serve_waiting(&self, buffer: &mut PageBytes) -> Result<bool, Failure> {
        loop {
            let oldest = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).first().copied();
            let Some(waiting) = oldest else { return Ok(true) };
            if !self.try_serve(waiting, buffer)? {
                if waiting.since.elapsed() > STARVATION_LIMIT {
                    return Err(self.starved(waiting.since));
                }
                return Ok(false);
            }
            let mut room = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            // The thread may have faulted again meanwhile; then its place is that fault's.
            room.retain(|other| (other.event.tid, other.gfn) != (waiting.event.tid, waiting.gfn));
        }
    }

    /// Looks which open pages the guest has written to, if it is time to: seldom while it writes to none.
    /// `process_anonymous_bytes`: as for [`GuestMemory::status`].
    pub fn note_written(&self, process_anonymous_bytes: u64) -> Result<(), Failure> {
        let table = &self.pages.table;
        let accounted = table.counts().private * PAGE_BYTES as u64 + lock(&self.pages.pool).bytes();
        let unknown_bytes = process_anonymous_bytes.saturating_sub(accounted + self.pages.credits.overhead_bytes());
        let mut notice = self.notice.lock().unwrap_or_else(PoisonError::into_inner);
        if notice.is_due(table.open(), unknown_bytes, Instant::now()) {
            notice.noted(self.pages.note_written()?, Instant::now());
        }
        Ok(())
    }

    /// Brings the account up to date with the kernel's, and reports. `process_anonymous_bytes` is all anonymous memory of this
    /// process as the kernel counts it: what the table does not know of is overhead.
    pub fn status(&self, process_anonymous_bytes: u64) -> Result<PagerStatus, Failure> {
        self.note_written(process_anonymous_bytes)?;
        let (table, counters) = (&self.pages.table, &self.pages.counters);
        let pages = table.counts();
        let pool_bytes = lock(&self.pages.pool).bytes();
        let accounted = pages.private * PAGE_BYTES as u64 + pool_bytes;
        self.set_overhead(process_anonymous_bytes.saturating_sub(accounted), pages.private as i64);
        let credits = &self.pages.credits;
        let faults = counters.faults.status();
        let stall = counters.stall.status(|cause| self.waiting_stall(cause));
        let load = |counter: &crate::sync::AtomicU64| counter.load(Ordering::Relaxed);
        // What a thread had used when it was last seen, once it has ended.
        let cpu = |clock: &OnceLock<ThreadClock>, seen: &crate::sync::AtomicU64| {
            let now = clock.get().and_then(|clock| clock.read()).map_or(0, |used| used.as_nanos() as u64);
            seen.fetch_max(now, Ordering::Relaxed).max(now)
        };
        Ok(PagerStatus {
            allocation_bytes: credits.allocation_bytes(),
            committed_bytes: credits.committed_bytes(),
            resident_bytes: accounted + credits.overhead_bytes(),
            pool_bytes,
            overhead_bytes: credits.overhead_bytes(),
            pages,
            zero_touched: table.zero_touched(),
            ballooned_touched: table.ballooned_touched(),
            faults_missing_total: load(&counters.faults_missing),
            faults_minor_total: load(&counters.faults_minor),
            faults_write_protect_total: load(&counters.faults_write_protect),
            fault_latency: faults.buckets,
            fault_ns_total: faults.ns_total,
            fault_ns_max: faults.ns_max,
            stall_ns_total: stall.sum_ns(),
            stall_latency: counters.stall.waits(),
            stall,
            faults_without_credit_total: load(&counters.faults_without_credit),
            evictions_total: load(&counters.evictions),
            evictions_proactive_total: load(&counters.evictions_proactive),
            pool_packed_total: load(&counters.pool_packed),
            pool_moved_total: load(&counters.pool_moved),
            promotions_total: load(&counters.promotions),
            read_ahead_total: load(&counters.read_ahead),
            refaults_total: load(&counters.refaults),
            incompressible_total: load(&counters.incompressible),
            breaks_total: load(&counters.breaks),
            evict_cpu_ns: cpu(&self.evict_clock, &counters.evict_cpu_ns),
            fault_cpu_ns: cpu(&self.fault_clock, &counters.fault_cpu_ns),
            sampling: *self.sampling.lock().unwrap_or_else(PoisonError::into_inner),
            swap: self.pages.swap.as_ref().map(|swap| swap.status(counters.now_ms())).unwrap_or_default(),
        })
    }

    /// Takes a measured overhead over, unless pages were moving while it was measured.
    fn set_overhead(&self, measured_bytes: u64, private: i64) {
        /// Pages that may have moved between the two readings without spoiling the difference (256 KiB).
        const STEADY_PAGES: u64 = 64;
        /// Differences not worth a change.
        const NOISE_BYTES: u64 = 128 << 10;
        let moved = (private - self.last_private.swap(private, Ordering::Relaxed)).unsigned_abs();
        let credits = &self.pages.credits;
        if moved <= STEADY_PAGES && measured_bytes.abs_diff(credits.overhead_bytes()) > NOISE_BYTES {
            credits.resize(credits.allocation_bytes(), measured_bytes + NOISE_BYTES / 2);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.memory.stopping.store(true, Ordering::Release);
        // Fails only when the counter would overflow, and then the thread is awake.
        let _ = self.memory.stop.write(1);
        self.memory.evictor.notify_all();
        self.memory.reads.wake_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
