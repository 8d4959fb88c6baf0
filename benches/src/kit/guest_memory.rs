//! A guest's memory under the pager, in this process, with nobody in it.

use std::sync::Arc;

use dedup::Domain;
use pager::{Config, GuestMemory, PAGE_BYTES, StoreView, Threads};
use vmm::Failures;

use crate::kit::error::Error;

/// Memory that nothing leaves, with nothing of its own beside it: what most of these are.
pub fn config(pages: u32, allocation_bytes: u64) -> Config {
    Config {
        pages,
        allocation_bytes,
        overhead_bytes: 0,
        fault_threads: 1,
        evict: false,
        vma_budget: 0,
        swap: None,
        image: None,
        prefetch: false,
        kernel_tier: false,
        foreign_bytes: 0,
    }
}

/// As much memory as so many pages take, bytes.
pub fn bytes(pages: u32) -> u64 {
    u64::from(pages) * PAGE_BYTES as u64
}

/// Memory that shares the frames of `domain`; what fails in it is reported to `failures`.
pub fn start(config: Config, domain: &Domain, failures: &Failures) -> Result<(Arc<GuestMemory>, Threads), Error> {
    let descriptors = domain.descriptors()?;
    let store = StoreView::new(descriptors.store, &descriptors.published, domain.store_frames())
        .map_err(Error::system("mapping the frame store"))?;
    let failures = failures.clone();
    let on_failure = Box::new(move |failure: pager::Failure| failures.report(failure.to_string()));
    Ok(GuestMemory::new(config, store, on_failure)?)
}
