//! Ballast's side: guests' memories under the pager, each with its scanner, and one sharing domain. No vCPU runs: what is measured
//! is sharing itself, all of it: scanners, store, index, and the messages between them (encoded and decoded, as on a socket).

use std::{collections::VecDeque, fs, sync::Arc, time::Instant};

use control::{MergeAnswer, MergeRequest, decode, encode};
use dedup::{Domain, Scanner, ScannerConfig, VmmId};
use nix::{
    sys::resource::{UsageWho, getrusage},
    sys::time::TimeValLike,
};
use pager::{Gfn, GuestMemory, PAGE_BYTES, StoreView};
use vmm::{Failures, GuestPages, TABLE_BYTES_PER_PAGE};

use crate::{
    dedup_bench::Side,
    error::Error,
    scenario::{Scenario, content},
};

/// Kernel memory of an alias's address-space area, bytes: a `vm_area_struct` and its share of the tree.
const VMA_BYTES: u64 = 350;
/// After so many passes of every scanner without a gain, nothing more comes: contents are told on the second.
const BARREN_PASSES: u32 = 3;
/// The kernel's limit of address-space areas, which counts them per process. Here all guests live in one process, so that their
/// CPU time is one figure; the limit is raised meanwhile to what as many processes would have.
const MAX_MAP_COUNT: &str = "/proc/sys/vm/max_map_count";

/// A raised limit; dropping it puts the old one back.
struct RaisedLimit(String);

impl RaisedLimit {
    fn new(processes: u32) -> Result<RaisedLimit, Error> {
        let failed = |source| Error::File { path: MAX_MAP_COUNT.into(), source };
        let old = fs::read_to_string(MAX_MAP_COUNT).map_err(failed)?;
        let limit: u64 = old.trim().parse().unwrap_or(0);
        let raised = RaisedLimit(old);
        fs::write(MAX_MAP_COUNT, (limit * u64::from(processes)).to_string()).map_err(failed)?;
        Ok(raised)
    }
}

impl Drop for RaisedLimit {
    fn drop(&mut self) {
        if let Err(error) = fs::write(MAX_MAP_COUNT, &self.0) {
            eprintln!("ballast-bench: putting vm.max_map_count back to {}: {error}", self.0.trim());
        }
    }
}

struct Guest {
    memory: Arc<GuestMemory>,
    _threads: pager::Threads,
    scanner: Scanner<Arc<GuestPages>>,
}

fn cpu_seconds() -> Result<f64, Error> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).map_err(Error::system("asking for CPU time"))?;
    Ok((usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6)
}

/// Lets Ballast share what the scenario has.
pub fn measure(scenario: &Scenario) -> Result<Side, Error> {
    let pages = scenario.contents[0].len() as u32;
    let domain = Domain::new(pages, 0x5eed)?;
    domain.set_store_budget_bytes(u64::MAX / 2);
    let failures = Failures::default();
    let count = scenario.contents.len() as u32;
    let _limit = RaisedLimit::new(count)?;
    let build = |(number, contents): (usize, &Vec<u64>)| {
        domain.vmm_joined(VmmId(number as u32), pages)?;
        guest(&domain, contents, pages / 2, &failures)
    };
    let mut guests = scenario.contents.iter().enumerate().map(build).collect::<Result<Vec<_>, Error>>()?;

    let (start, cpu_before) = (Instant::now(), cpu_seconds()?);
    let mut best = Side::default();
    let mut barren = 0;
    while barren < BARREN_PASSES && best.pages_saved < scenario.limit_pages() {
        for number in 0..guests.len() {
            pass(&domain, &mut guests, number)?;
        }
        let shared: u64 = guests.iter().map(|guest| shared_pages(&guest.memory)).sum();
        let frames = domain.allocated_bytes()? / PAGE_BYTES as u64;
        let saved = shared.saturating_sub(frames);
        barren += 1;
        if saved > best.pages_saved {
            barren = 0;
            let vmas: u64 = guests.iter().map(|guest| u64::from(guest.memory.pages().vmas())).sum();
            best = Side {
                pages_saved: saved,
                merges: shared,
                cpu_seconds: cpu_seconds()? - cpu_before,
                wall_seconds: start.elapsed().as_secs_f64(),
                metadata_bytes: u64::from(pages) * u64::from(count) * TABLE_BYTES_PER_PAGE + vmas * VMA_BYTES,
            };
        }
    }
    failures.first().map_or(Ok(best), |reason| Err(Error::Guest(reason)))
}

fn shared_pages(memory: &GuestMemory) -> u64 {
    memory.pages().counts().shared
}

/// `vma_budget` is what `ballast run` gives a guest: an area for two pages, within the kernel's limit.
fn guest(domain: &Domain, contents: &[u64], vma_budget: u32, failures: &Failures) -> Result<Guest, Error> {
    let descriptors = domain.descriptors()?;
    let store = StoreView::new(descriptors.store, &descriptors.published, domain.store_frames())
        .map_err(Error::system("mapping the frame store"))?;
    let pages = contents.len() as u32;
    let config = pager::Config {
        pages,
        // Half as much again as RAM: nothing is to be evicted here.
        allocation_bytes: u64::from(pages) * PAGE_BYTES as u64 * 3 / 2,
        overhead_bytes: 0,
        evict: false,
        vma_budget,
    };
    let reporter = failures.clone();
    let on_failure = Box::new(move |failure: pager::Failure| reporter.report(failure.to_string()));
    let (memory, threads) = GuestMemory::new(config, store, on_failure)?;
    for (gfn, &number) in contents.iter().enumerate() {
        memory.populate(Gfn(gfn as u32), &content(number))?;
    }
    let scanner = Scanner::new(
        Arc::new(GuestPages::new(memory.clone(), failures.clone())),
        ScannerConfig::new(domain.hash_secret()),
    );
    Ok(Guest { memory, _threads: threads, scanner })
}

/// One pass of one guest's scanner, and all that follows from it in any guest, between its batches.
fn pass(domain: &Domain, guests: &mut [Guest], number: usize) -> Result<(), Error> {
    let mut requests = VecDeque::new();
    let mut ended = false;
    while !ended {
        ended = guests[number].scanner.scan_batch(|request| requests.push_back((number, request)));
        while let Some((from, request)) = requests.pop_front() {
            for (to, answer) in domain.handle(VmmId(from as u32), over_the_wire(&request)?)? {
                let answer: MergeAnswer = over_the_wire(&answer)?;
                let to = to.0 as usize;
                guests[to].scanner.on_answer(answer, |request: MergeRequest| requests.push_back((to, request)));
            }
        }
    }
    Ok(())
}

/// What a message costs on its way: both sides' work, but for the kernel's copy.
fn over_the_wire<T: serde::Serialize + serde::de::DeserializeOwned>(message: &T) -> Result<T, Error> {
    let malformed = |error: control::Error| Error::Guest(error.to_string());
    let frame = encode(message).map_err(malformed)?;
    decode(&frame[4..]).map_err(malformed)
}
