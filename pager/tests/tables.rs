//! What a guest page costs in tables, by the kernel's count. Alone in its process, which is measured.

#![allow(clippy::unwrap_used, reason = "a failure is a failed test")]

mod support;

use std::{fs, io::Write};

use pager::{Config, Frame, Gfn, GuestMemory, Sharing, TABLE_BYTES_PER_PAGE};
use support::{Store, config, content, fail};

/// Of the guest: enough for its tables to be mappings of their own, which cost what was written to.
const PAGES: u32 = 64 << 10;
/// Those that are shared. A byte for each is 16 KiB, and what threads and buffers take is little beside it.
const SHARED: u32 = 16 << 10;
const BATCH: u32 = 512;
/// A page that is shared at home has its state, and a count of one byte.
const BYTES_AT_HOME_MIN: f64 = 9.0;

fn anonymous_bytes() -> u64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")?.trim().strip_suffix("kB"));
    kib.unwrap().trim().parse::<u64>().unwrap() << 10
}

/// Loads pages, and shares them with the frames at their own addresses.
fn share(store: &Store, memory: &GuestMemory, pages: std::ops::Range<u32>) {
    let pairs: Vec<_> = pages.map(|page| (Gfn(page), Frame(page))).collect();
    for &(gfn, frame) in &pairs {
        memory.populate(gfn, &content(gfn.0, 1)).unwrap();
        store.publish(frame.0, &content(gfn.0, 1));
    }
    let mut shared = 0;
    memory.pages().share(&pairs, &mut |_, outcome| shared += usize::from(outcome == Sharing::Shared)).unwrap();
    assert_eq!(shared, pairs.len());
}

#[test]
fn a_shared_page_costs_its_state_and_its_count_and_no_more_than_is_said() {
    if let Err(error) = pager::probe() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {error}");
        return;
    }
    let (store, view) = Store::of(2 * PAGES);
    let config = Config { pages: PAGES, evict: false, ..config(u64::from(PAGES)) };
    let (memory, _threads) = GuestMemory::new(config, view, Box::new(fail)).unwrap();
    // What the first batch costs is no page's.
    share(&store, &memory, 0..BATCH);
    let before = anonymous_bytes();
    (BATCH..SHARED).step_by(BATCH as usize).for_each(|first| share(&store, &memory, first..first + BATCH));
    let bytes = (anonymous_bytes() - before) as f64 / f64::from(SHARED - BATCH);
    println!("{bytes:.2} bytes a page, of {TABLE_BYTES_PER_PAGE}");
    // Of the first batch, each table has a page, or part of one, which the others need not pay for.
    assert!(bytes > BYTES_AT_HOME_MIN - 1.0 && bytes < TABLE_BYTES_PER_PAGE as f64, "{bytes:.2} bytes a page");
}
