//! One guest of Ballast, in this process: its memory under the pager, and its scanner.

use std::sync::Arc;

use control::{decode, encode};
use dedup::{Domain, Scanner, ScannerConfig};
use pager::{Gfn, GuestMemory};
use vmm::{Failures, GuestPages, Layout};

use crate::{
    dedup::contents::Contents,
    kit::{error::Error, guest_memory},
};

/// Most CPU that all scanners together may use, and that one may, in CPUs: what `ballast run` gives them.
const SCANNERS_CPU_SHARE: (f64, f64) = (1.0, 0.2);
/// Most CPU that all scanners together may use while nothing new is gained, in CPUs: the default of
/// `--dedup-cpu`.
const IDLE_CPU_SHARE: f64 = 0.05;
/// What the kernel's default limit of areas leaves for the aliases of one VMM.
const VMA_BUDGET_MAX: u32 = 65_530 - 1024;

/// One guest.
pub struct Guest {
    pub memory: Arc<GuestMemory>,
    pub scanner: Option<Scanner<Arc<GuestPages>>>,
    _threads: pager::Threads,
}

impl Guest {
    /// With these contents, nothing of it shared.
    pub fn load(domain: &Domain, contents: &Contents, number: usize, failures: &Failures) -> Result<Guest, Error> {
        let pages = contents.pages();
        let memory_bytes = guest_memory::bytes(pages);
        let config = pager::Config {
            // What `ballast run` gives a guest: an area for each page, within the kernel's limit.
            vma_budget: pages.min(VMA_BUDGET_MAX),
            // Half as much again as RAM: nothing is to be evicted here.
            ..guest_memory::config(pages, memory_bytes * 3 / 2)
        };
        let (memory, threads) = guest_memory::start(config, domain, failures)?;
        contents.each_page(number, |gfn, bytes| Ok(memory.populate(Gfn(gfn), bytes)?))?;
        let (all, one) = SCANNERS_CPU_SHARE;
        let cpu_share = (all / contents.guests() as f64).min(one);
        let idle_cpu_share = IDLE_CPU_SHARE / contents.guests() as f64;
        let config = ScannerConfig { cpu_share, idle_cpu_share, ..ScannerConfig::new(domain.hash_secret()) };
        let layout = Layout::flat(memory_bytes);
        let scanner = Scanner::new(Arc::new(GuestPages::new(memory.clone(), layout, failures.clone())), config);
        Ok(Guest { memory, scanner: Some(scanner), _threads: threads })
    }
}

/// What a message costs on its way: both sides' work, but for the kernel's copy.
pub fn over_the_wire<T: serde::Serialize + serde::de::DeserializeOwned>(message: &T) -> Result<T, Error> {
    let malformed = |error: control::Error| Error::Guest(error.to_string());
    let frame = encode(message).map_err(malformed)?;
    decode(&frame[4..]).map_err(malformed)
}
