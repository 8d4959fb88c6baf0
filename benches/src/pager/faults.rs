//! What a page fault costs by kind, against the least it can cost, and what fresh memory costs against plain
//! memory.
//!
//! ```text
//!   floor        a thread that copies one page a fault and does nothing else
//!   first-touch  a page nobody has touched, its neighbours neither
//!   compressed   half of it compresses; it is in the pool
//!   swapped      it does not compress; it is in a swap file on `--swap`
//! ```
//!
//! Toucher and server are threads of this process on all sides, on one CPU, so a fault does not leave a guest
//! first. Sides take turns, and what counts is their ratio.

use std::{
    panic::resume_unwind,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use dedup::Domain;
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};
use pager::{Gfn, GuestMemory, PAGE_BYTES, PageBytes, SlotFile, State, SwapFile};
use serde::Serialize;
use vmm::Failures;

use crate::{
    kit::{
        error::Error,
        guest_memory,
        latency::{Latencies, LatencyNs},
        ram::{GuestRam, PlainMemory},
        random::Random,
        report::median,
        target::Target,
    },
    pager::floor::Floor,
};

/// Pages of each side: 64 MiB.
const PAGES: u32 = 16 << 10;
/// Times that sides take turns.
const ROUNDS: u32 = 5;
/// Pages between two first touches: beyond what one of them brings along.
const STRIDE: u32 = 32;
/// How long pages may take to be evicted.
const EVICTION_LIMIT: Duration = Duration::from_secs(60);

const P50_OVER_FLOOR_MAX: f64 = 1.25;
const P99_OVER_P50_MAX: f64 = 3.0;
const CPU_BEYOND_FLOOR_US_MAX: f64 = 10.0;
const SWEEP_OVER_PLAIN_MAX: f64 = 1.3;

/// One kind of fault.
#[derive(Default)]
struct Kind {
    latencies: Latencies,
    cpu: Duration,
}

/// One kind of fault, in figures.
#[derive(Debug, Serialize)]
struct Row {
    kind: &'static str,
    latency: LatencyNs,
    server_cpu_us: f64,
}

impl Kind {
    fn row(&self, kind: &'static str) -> Row {
        let latency = self.latencies.summary();
        let server_cpu_us = self.cpu.as_secs_f64() * 1e6 / latency.count.max(1) as f64;
        println!(
            "pager: {kind}: {} faults, p50 {} ns, p99 {} ns, p99.9 {} ns, longest {} ns, {server_cpu_us:.2} us of the \
             server's CPU each",
            latency.count, latency.p50_ns, latency.p99_ns, latency.p999_ns, latency.max_ns
        );
        Row { kind, latency, server_cpu_us }
    }
}

/// What faults cost.
#[derive(Debug, Serialize)]
pub struct Figures {
    rows: Vec<Row>,
    sweep_pager_ns_a_page: f64,
    sweep_plain_ns_a_page: f64,
}

/// Measures on one CPU; with a directory on a disk, pages that are swapped too.
pub fn run(swap: Option<&Path>) -> Result<Figures, Error> {
    thread::scope(|scope| scope.spawn(|| measure(swap)).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

fn measure(swap: Option<&Path>) -> Result<Figures, Error> {
    let [mut floor, mut first_touch, mut compressed, mut swapped]: [Kind; 4] = Default::default();
    let (mut sweep, mut plain) = (Vec::new(), Vec::new());
    on_one_cpu()?;
    let pool = Evicted::new(&half_noise, None)?;
    let disk = swap.map(|directory| {
        let file = SwapFile::create(directory, guest_memory::bytes(PAGES));
        Evicted::new(&noise, Some(Box::new(file.map_err(|error| Error::Guest(error.to_string()))?)))
    });
    let disk = disk.transpose()?;
    for _ in 0..ROUNDS {
        measure_floor(&mut floor)?;
        measure_first_touch(&mut first_touch)?;
        pool.measure(State::Compressed, &mut compressed)?;
        disk.iter().try_for_each(|disk| disk.measure(State::Swapped, &mut swapped))?;
        plain.push(sweep_ns(PlainMemory::new(PAGES)?.ram()));
        let (memory, _threads) = guest(PAGES, 2 * PAGES, None)?;
        sweep.push(sweep_ns(GuestRam::new(memory.base(), PAGES)));
    }
    let mut rows = vec![floor.row("floor"), first_touch.row("first-touch"), compressed.row("compressed")];
    rows.extend(disk.iter().map(|_| swapped.row("swapped")));
    let (sweep, plain) = (median(sweep), median(plain));
    println!("pager: a sequential sweep over fresh memory: {sweep:.0} ns a page, plain anonymous memory {plain:.0} ns");
    Ok(Figures { rows, sweep_pager_ns_a_page: sweep, sweep_plain_ns_a_page: plain })
}

/// This thread and all it starts: waking a server on another CPU costs several times what a fault does, and
/// whether it is there is the scheduler's mood.
fn on_one_cpu() -> Result<(), Error> {
    let this = sched_getcpu().map_err(Error::system("asking for this CPU"))?;
    let mut cpus = CpuSet::new();
    cpus.set(this).map_err(Error::system("choosing a CPU"))?;
    sched_setaffinity(Pid::from_raw(0), &cpus).map_err(Error::system("staying on one CPU"))
}

/// What became of the targets. What comes from a disk takes as long as the disk does, and has none.
pub fn targets(figures: Option<&Figures>) -> Vec<Target> {
    let of = |kind: &str, figure: fn(&Row) -> f64| {
        let row = figures.and_then(|figures| figures.rows.iter().find(|row| row.kind == kind));
        row.map_or(f64::NAN, figure)
    };
    let name = |kind: &str, figure: &str| format!("pager-{kind}-{figure}");
    let mut targets = Vec::new();
    for kind in ["first-touch", "compressed"] {
        let p50 = of(kind, |row| row.latency.p50_ns as f64);
        let over_floor = p50 / of("floor", |row| row.latency.p50_ns as f64);
        targets.push(Target::at_most(name(kind, "p50-over-floor"), over_floor, P50_OVER_FLOOR_MAX));
        let tail = of(kind, |row| row.latency.p99_ns as f64) / p50;
        targets.push(Target::at_most(name(kind, "p99-over-p50"), tail, P99_OVER_P50_MAX));
    }
    let cpu = |kind| of(kind, |row| row.server_cpu_us);
    let beyond = cpu("compressed") - cpu("floor");
    targets.push(Target::at_most(name("compressed", "cpu-beyond-floor-us"), beyond, CPU_BEYOND_FLOOR_US_MAX));
    let sweep = figures.map_or(f64::NAN, |figures| figures.sweep_pager_ns_a_page / figures.sweep_plain_ns_a_page);
    targets.push(Target::at_most("pager-sweep-over-plain".into(), sweep, SWEEP_OVER_PLAIN_MAX));
    targets
}

fn measure_floor(kind: &mut Kind) -> Result<(), Error> {
    let floor = Floor::new(PAGES)?;
    touch(floor.ram(), (0..PAGES).step_by(STRIDE as usize), &mut kind.latencies);
    kind.cpu += settled(|| floor.cpu());
    Ok(())
}

fn measure_first_touch(kind: &mut Kind) -> Result<(), Error> {
    let (memory, _threads) = guest(PAGES, 2 * PAGES, None)?;
    touch(GuestRam::new(memory.base(), PAGES), (0..PAGES).step_by(STRIDE as usize), &mut kind.latencies);
    kind.cpu += settled(|| fault_cpu(&memory));
    Ok(())
}

/// Reads one word of each of these pages, and notes how long that took.
fn touch(ram: GuestRam, pages: impl Iterator<Item = u32>, latencies: &mut Latencies) {
    for page in pages {
        let begun = Instant::now();
        std::hint::black_box(ram.number(page));
        latencies.note(begun.elapsed());
    }
}

/// Writes to every page in turn, for the first time; ns a page.
fn sweep_ns(ram: GuestRam) -> f64 {
    let begun = Instant::now();
    (0..PAGES).for_each(|page| ram.set_number(page, 7));
    begun.elapsed().as_nanos() as f64 / f64::from(PAGES)
}

/// A clock that is read by its own thread a moment late.
fn settled(read: impl Fn() -> Duration) -> Duration {
    thread::sleep(Duration::from_millis(30));
    read()
}

fn fault_cpu(memory: &GuestMemory) -> Duration {
    Duration::from_nanos(memory.status(0).map_or(0, |status| status.fault_cpu_ns))
}

/// A guest's memory, with nobody in it.
pub fn guest(
    pages: u32,
    allocation_pages: u32,
    swap: Option<Box<dyn SlotFile>>,
) -> Result<(Arc<GuestMemory>, pager::Threads), Error> {
    let domain = Domain::new(pages, 0x5eed)?;
    let config = guest_memory::config(pages, guest_memory::bytes(allocation_pages));
    guest_memory::start(pager::Config { evict: true, vma_budget: 1, swap, ..config }, &domain, &Failures::default())
}

/// A guest whose pages are evicted before each round.
struct Evicted {
    memory: Arc<GuestMemory>,
    _threads: pager::Threads,
}

impl Evicted {
    fn new(content: &dyn Fn(u32) -> PageBytes, swap: Option<Box<dyn SlotFile>>) -> Result<Evicted, Error> {
        let (memory, threads) = guest(PAGES, 2 * PAGES, swap)?;
        for page in 0..PAGES {
            memory.populate(Gfn(page), &content(page))?;
        }
        Ok(Evicted { memory, _threads: threads })
    }

    /// Evicts half of the pages, gives their memory back, and touches those that are in `state`, in no order.
    fn measure(&self, state: State, kind: &mut Kind) -> Result<(), Error> {
        let in_state = || (0..PAGES).filter(|&page| self.memory.pages().state(Gfn(page)) == state).collect::<Vec<_>>();
        self.memory.set_allocation(guest_memory::bytes(PAGES / 2 + PAGES / 4));
        let begun = Instant::now();
        while in_state().len() < PAGES as usize / 4 {
            if begun.elapsed() > EVICTION_LIMIT {
                return Err(Error::Guest(format!("{EVICTION_LIMIT:?} did not suffice to evict {} pages", PAGES / 4)));
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.memory.set_allocation(guest_memory::bytes(2 * PAGES));
        let cpu_before = settled(|| fault_cpu(&self.memory));
        let mut pages = in_state();
        let mut random = Random::new(u64::from(PAGES));
        random.shuffle(&mut pages);
        pages.truncate((PAGES / STRIDE) as usize);
        touch(GuestRam::new(self.memory.base(), PAGES), pages.into_iter(), &mut kind.latencies);
        kind.cpu += settled(|| fault_cpu(&self.memory)) - cpu_before;
        Ok(())
    }
}

fn noise(page: u32) -> PageBytes {
    let (mut bytes, mut random) = ([0; PAGE_BYTES], Random::new(u64::from(page + 1)));
    bytes.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&random.word().to_le_bytes()));
    bytes
}

/// A page of which half compresses.
pub fn half_noise(page: u32) -> PageBytes {
    let mut bytes = noise(page);
    bytes[PAGE_BYTES / 2..].fill(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_figures_every_target_is_missed() {
        let targets = targets(None);
        assert!(targets.len() == 6 && targets.iter().all(|target| !target.is_met()), "{targets:?}");
    }
}
