//! What it takes to look after a guest's pages: anonymous memory of a pager that is neither a page of its
//! guest nor of its pool.
//!
//! Threads, buffers and compressors of the pager are in it: the same for every guest, so that small ones have
//! more of it a page. What is measured is a guest of the default size, and one of a quarter, with all pages
//! private, and with half of them compressed.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use pager::{Gfn, GuestMemory, PAGE_BYTES};
use serde::Serialize;

use crate::{
    kit::{books::anonymous_bytes, error::Error, target::Target},
    pager::faults::{guest, half_noise},
};

/// Pages of the default guest of `ballast run`, 256 MiB.
const PAGES: u32 = 64 << 10;
const SMALL_PAGES: u32 = PAGES / 4;
/// How long pages may take to be evicted.
const EVICTION_LIMIT: Duration = Duration::from_secs(60);

const LOOKS: usize = 9;
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

const BYTES_A_PAGE_MAX: f64 = 16.0;

/// Metadata of one guest, bytes a page.
#[derive(Debug, Serialize)]
pub struct Metadata {
    pages: u32,
    all_private: f64,
    half_compressed: f64,
}

/// Measures both guests.
pub fn run() -> Result<Vec<Metadata>, Error> {
    [PAGES, SMALL_PAGES].into_iter().map(Metadata::of).collect()
}

/// The target: what the default guest takes, at most.
pub fn target(measured: &[Metadata]) -> Target {
    let default = measured.iter().find(|guest| guest.pages == PAGES);
    let most = default.map_or(f64::NAN, |guest| guest.all_private.max(guest.half_compressed));
    Target::at_most("pager-metadata-bytes-a-page".into(), most, BYTES_A_PAGE_MAX)
}

impl Metadata {
    fn of(pages: u32) -> Result<Metadata, Error> {
        let before_bytes = anonymous_bytes()?;
        let (memory, _threads) = guest(pages, 2 * pages, None)?;
        for page in 0..pages {
            memory.populate(Gfn(page), &half_noise(page))?;
        }
        let all_private = bytes_a_page(&memory, pages, before_bytes)?;
        evict_half(&memory, pages)?;
        let half_compressed = bytes_a_page(&memory, pages, before_bytes)?;
        let mib = (u64::from(pages) * PAGE_BYTES as u64) >> 20;
        println!(
            "pager: metadata of a guest of {mib} MiB: {all_private:.1} bytes a page, {half_compressed:.1} with half \
             of its pages compressed"
        );
        Ok(Metadata { pages, all_private, half_compressed })
    }
}

/// The median of some looks: the account and the kernel's are not read in the same moment.
fn bytes_a_page(memory: &Arc<GuestMemory>, pages: u32, before_bytes: u64) -> Result<f64, Error> {
    let look = |_| {
        thread::sleep(LOOK_INTERVAL);
        let status = memory.status(0)?;
        let known_bytes = status.pages.private * PAGE_BYTES as u64 + status.pool_bytes;
        Ok(anonymous_bytes()?.saturating_sub(before_bytes + known_bytes))
    };
    let mut looks = (0..LOOKS).map(look).collect::<Result<Vec<_>, Error>>()?;
    looks.sort_unstable();
    Ok(looks[LOOKS / 2] as f64 / f64::from(pages))
}

/// Evicts half of the pages, and lets whoever evicts come to rest.
fn evict_half(memory: &Arc<GuestMemory>, pages: u32) -> Result<(), Error> {
    let bytes = |pages: u32| u64::from(pages) * PAGE_BYTES as u64;
    // Half of the pages, and the other half at half their size.
    memory.set_allocation(bytes(pages / 2 + pages / 4));
    let begun = Instant::now();
    let compressed = || memory.pages().counts().compressed;
    while compressed() < u64::from(pages) / 2 - u64::from(pages) / 16 {
        if begun.elapsed() > EVICTION_LIMIT {
            return Err(Error::Guest(format!("{EVICTION_LIMIT:?} did not suffice to evict half of {pages} pages")));
        }
        thread::sleep(Duration::from_millis(5));
    }
    let mut last = 0;
    while last != compressed() {
        last = compressed();
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
