//! Guests that are squeezed while they are paused, and find their working set when they go on. Needs the
//! right to serve faults (root).

#![allow(clippy::unwrap_used, reason = "a helper that cannot do its part fails the test, as it should")]

#[allow(dead_code, reason = "these tests need little of it")]
mod faulty;
mod support;

use std::sync::Arc;

use control::status::PagerStatus;
use faulty::{Faults, FaultyFile};
use pager::{Config, GuestMemory, PAGE_BYTES, SlotFile, SwapFile, Threads};
use support::{PAGES, Store, config, content, fail, guest_of, noise, read, wait_for, wait_until, write};

/// What the evictor keeps for itself, and some for tables.
const RESERVE: u64 = 256;
/// All pages and some.
const AMPLE: u64 = PAGES as u64 * 2;
/// Pages of the batch that the evictor may still be at when an allocation grows.
const BATCH: u64 = 32;
/// What a prefetch leaves to faults, and the evictor to itself.
const LEFT: u64 = 512 + 32;

fn guest(swap: Option<Box<dyn SlotFile>>) -> Option<(Store, Arc<GuestMemory>, Threads)> {
    guest_of(Config { prefetch: true, swap, ..config(AMPLE) }, Box::new(fail))
}

fn allocate(memory: &GuestMemory, pages: u64) {
    memory.set_allocation(pages * PAGE_BYTES as u64);
}

/// The guest is paused, all but a few of its pages go, and it goes on with an allocation of `pages`.
fn squeeze_and_resume(memory: &GuestMemory, pages: u64) {
    memory.pause();
    allocate(memory, RESERVE);
    wait_for(memory, |pages| pages.private < 64);
    allocate(memory, pages);
    memory.resume();
}

fn faults(status: &PagerStatus) -> u64 {
    status.faults_missing_total + status.faults_minor_total
}

#[test]
fn a_guest_that_goes_on_with_enough_memory_finds_all_it_had_without_a_fault() {
    let Some((_store, memory, _threads)) = guest(None) else { return };
    (0..PAGES).for_each(|page| write(&memory, page, &content(page, 1)));
    squeeze_and_resume(&memory, AMPLE);
    wait_for(&memory, |pages| pages.private >= u64::from(PAGES) - BATCH);
    let before = memory.status(0).unwrap();
    assert!((0..PAGES).all(|page| read(&memory, page) == content(page, 1)));
    let after = memory.status(0).unwrap();
    assert!(faults(&after) <= faults(&before) + BATCH, "{after:?}");
    assert!(before.prefetched_total > u64::from(PAGES) * 9 / 10, "{before:?}");
}

#[test]
fn what_went_to_the_disk_comes_back_many_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let file = SwapFile::create(directory.path(), u64::from(PAGES) * PAGE_BYTES as u64).unwrap();
    let Some((_store, memory, _threads)) = guest(Some(Box::new(file))) else { return };
    (0..PAGES).for_each(|page| write(&memory, page, &noise(page, 1)));
    squeeze_and_resume(&memory, AMPLE);
    wait_for(&memory, |pages| pages.private >= u64::from(PAGES) - BATCH);
    let status = memory.status(0).unwrap();
    let reads: u64 = status.swap.read_latency.buckets.iter().sum();
    assert!(status.prefetched_total > u64::from(PAGES) * 9 / 10 && reads < u64::from(PAGES) / 8, "{status:?}");
    assert!((0..PAGES).all(|page| read(&memory, page) == noise(page, 1)));
}

#[test]
fn with_less_memory_as_much_comes_back_as_nothing_has_to_go_for() {
    let Some((_store, memory, _threads)) = guest(None) else { return };
    (0..PAGES).for_each(|page| write(&memory, page, &content(page, 1)));
    memory.pause();
    allocate(&memory, RESERVE);
    wait_for(&memory, |pages| pages.private < 64);
    let squeezed = memory.status(0).unwrap();
    let pool_pages = squeezed.pool_bytes / PAGE_BYTES as u64;
    let allocation = pool_pages + LEFT + 600;
    allocate(&memory, allocation);
    memory.resume();
    // The pool shrinks as pages leave it, which makes room for more of them.
    wait_for(&memory, |pages| pages.private > 600);
    wait_until(&memory, |status| status.prefetched_total > 600);
    let status = memory.status(0).unwrap();
    assert!(status.evictions_total <= squeezed.evictions_total + BATCH, "nothing went for it: {status:?}");
    assert!(status.resident_bytes <= status.allocation_bytes, "{status:?}");
    // It follows an allocation that grows.
    allocate(&memory, AMPLE);
    wait_for(&memory, |pages| pages.private >= u64::from(PAGES) - BATCH);
    assert!((0..PAGES).all(|page| read(&memory, page) == content(page, 1)));
}

#[test]
fn of_what_left_before_the_pause_only_the_last_comes_back_with_an_allocation_that_grows() {
    let Some((_store, memory, _threads)) = guest(None) else { return };
    (0..PAGES).for_each(|page| write(&memory, page, &content(page, 1)));
    allocate(&memory, RESERVE);
    wait_for(&memory, |pages| pages.private < 64);
    memory.pause();
    // Half of this growth, nearly half of the guest's pages; the pause itself saw nothing go.
    allocate(&memory, RESERVE + u64::from(PAGES) * 31 / 32);
    memory.resume();
    wait_until(&memory, |status| status.prefetched_total > u64::from(PAGES) / 4);
    (0..PAGES).for_each(|page| assert!(read(&memory, page) == content(page, 1), "page {page}"));
    let status = memory.status(0).unwrap();
    assert!(status.prefetched_total <= u64::from(PAGES) / 2, "{status:?}");
}

#[test]
fn a_page_that_cannot_be_read_yet_waits_for_whoever_needs_it() {
    let file = FaultyFile::new(PAGES as usize);
    let Some((_store, memory, _threads)) = guest(Some(Box::new(file.clone()))) else { return };
    (0..PAGES).for_each(|page| write(&memory, page, &noise(page, 1)));
    memory.pause();
    allocate(&memory, RESERVE);
    wait_for(&memory, |pages| pages.swapped > u64::from(PAGES) - 64);
    file.set(Faults { read_error: Some(libc::EIO), ..Faults::default() });
    allocate(&memory, AMPLE);
    memory.resume();
    wait_until(&memory, |status| status.swap.read_errors_total > 10);
    file.set(Faults::default());
    assert!((0..PAGES).all(|page| read(&memory, page) == noise(page, 1)));
}
