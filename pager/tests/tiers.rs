//! What goes to a tier, what comes back, and what comes along, on the real kernel. Needs the right to serve
//! faults (root).

#![allow(clippy::unwrap_used, reason = "a helper that cannot do its part fails the test, as it should")]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use control::status::TakenStatus;
use pager::{Gfn, GuestMemory, PAGE_BYTES, PageBytes, Run, State, SwapFile};
use support::{PAGES, content, fail, guest, guest_with, noise, read, wait_for, write};

/// What the evictor keeps for itself, and some for tables.
const RESERVE: u64 = 256;
/// All pages and some.
const AMPLE: u64 = PAGES as u64 * 2;

/// Has all but a few of the pages evicted, then gives the guest as much memory as it could want.
fn evict_all(memory: &GuestMemory) {
    memory.set_allocation(RESERVE * PAGE_BYTES as u64);
    wait_for(memory, |pages| pages.private < 64);
    memory.set_allocation(AMPLE * PAGE_BYTES as u64);
}

#[test]
fn a_sweep_over_compressed_pages_takes_few_faults_and_jumping_about_brings_nothing_along() {
    let Some((_store, memory, _threads)) = guest(AMPLE) else { return };
    (0..PAGES).for_each(|page| write(&memory, page, &content(page, 1)));
    evict_all(&memory);
    (0..PAGES).for_each(|page| assert!(read(&memory, page) == content(page, 1), "page {page}"));
    let swept = memory.status(0).unwrap();
    assert!(swept.read_ahead_total > u64::from(PAGES) * 3 / 4, "{swept:?}");
    assert!(swept.promotions_total < u64::from(PAGES) / 4, "{swept:?}");
    evict_all(&memory);
    let jumps = (0..PAGES).map(|page| page * 97 % PAGES);
    jumps.for_each(|page| assert!(read(&memory, page) == content(page, 1), "page {page}"));
    let jumped = memory.status(0).unwrap();
    assert!(jumped.read_ahead_total - swept.read_ahead_total < u64::from(PAGES) / 16, "{jumped:?}");
}

#[test]
fn fresh_pages_stay_until_the_scanner_has_dealt_with_them_but_not_for_long() {
    const HALF: u32 = PAGES / 2;
    let Some((_store, memory, _threads)) = guest(AMPLE) else { return };
    (0..PAGES).for_each(|page| write(&memory, page, &content(page, 1)));
    let hurried = Arc::new(AtomicU32::new(0));
    let hurry = hurried.clone();
    memory.set_scanner(Box::new(move || _ = hurry.fetch_add(1, Ordering::Relaxed)));
    wait_for(&memory, |pages| pages.private == u64::from(PAGES));
    let pages = memory.pages();
    pages.seen((0..HALF).map(Gfn));
    // Room for the others, a half of these, and the pool: those that were seen are enough for good, however
    // long this takes.
    memory.set_allocation((u64::from(HALF) / 4 * 7 + RESERVE) * PAGE_BYTES as u64);
    wait_for(&memory, |pages| pages.compressed >= u64::from(HALF) / 4);
    let unseen =
        |memory: &GuestMemory| (HALF..PAGES).filter(|&page| memory.pages().state(Gfn(page)) == State::Private).count();
    assert_eq!(unseen(&memory), HALF as usize, "there is enough that was seen");
    assert_eq!(hurried.load(Ordering::Relaxed), 0);
    // Now there is not, and nobody comes.
    memory.set_allocation(RESERVE * PAGE_BYTES as u64);
    wait_for(&memory, |pages| pages.private < 64);
    assert!(hurried.load(Ordering::Relaxed) > 0);
    memory.set_allocation(AMPLE * PAGE_BYTES as u64);
    (0..PAGES).for_each(|page| assert!(read(&memory, page) == content(page, 1), "page {page}"));
}

/// Half of the page is what lz4 can do nothing about, and zstd halves.
fn dense(page: u32) -> PageBytes {
    let mut bytes = noise(page, 1).map(|byte| byte & 0xf);
    bytes[PAGE_BYTES / 2..].fill(0);
    bytes
}

#[test]
fn a_guest_whose_pages_fit_only_when_packed_waits_for_that_and_goes_on() {
    // By lz4 seven pages take 16 KiB, by zstd fourteen: some 1170 or 590 pages for all.
    let Some((_store, memory, _threads)) = guest(900 + RESERVE) else { return };
    for page in 0..PAGES {
        write(&memory, page, &dense(page));
        if page % 64 == 0 {
            let status = memory.status(0).unwrap();
            assert!(status.resident_bytes <= status.allocation_bytes, "{status:?}");
        }
    }
    let status = memory.status(0).unwrap();
    assert!(status.pool_packed_total > 0 && status.faults_without_credit_total > 0, "{status:?}");
    (0..PAGES).for_each(|page| assert!(read(&memory, page) == dense(page), "page {page}"));
}

#[test]
fn a_sweep_over_swapped_pages_reads_many_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let file = SwapFile::create(directory.path(), u64::from(PAGES) * PAGE_BYTES as u64).unwrap();
    let Some((_store, memory, _threads)) = guest_with(AMPLE, Some(Box::new(file)), Box::new(fail)) else { return };
    (0..PAGES).for_each(|page| write(&memory, page, &noise(page, 1)));
    evict_all(&memory);
    (0..PAGES).for_each(|page| assert!(read(&memory, page) == noise(page, 1), "page {page}"));
    let status = memory.status(0).unwrap();
    let reads: u64 = status.swap.read_latency.buckets.iter().sum();
    assert!(status.swap.pages_in_total > u64::from(PAGES) * 3 / 4 && reads < u64::from(PAGES) / 4, "{status:?}");
    assert_eq!(
        status.swap.used_bytes,
        status.pages.swapped * PAGE_BYTES as u64,
        "slots of pages that came along are free"
    );
}

#[test]
fn what_the_guest_gave_up_never_reaches_a_tier() {
    let directory = tempfile::tempdir().unwrap();
    let file = SwapFile::create(directory.path(), u64::from(PAGES) * PAGE_BYTES as u64).unwrap();
    let Some((_store, memory, _threads)) = guest_with(AMPLE, Some(Box::new(file)), Box::new(fail)) else { return };
    (0..PAGES).for_each(|page| write(&memory, page, &noise(page, 1)));
    let quarter = PAGES / 4;
    let ballooned = Run { first: Gfn(0), count: quarter };
    let reported = Run { first: Gfn(quarter), count: quarter };
    memory.pages().inflate(ballooned).unwrap();
    memory.pages().report_free(reported, 0).unwrap();
    evict_all(&memory);
    let status = memory.status(0).unwrap();
    assert!(status.evictions_total > 0 && status.evictions_total <= u64::from(PAGES - 2 * quarter), "{status:?}");
    assert!(status.swap.pages_out_total <= u64::from(PAGES - 2 * quarter), "{status:?}");
    assert!(ballooned.gfns().all(|gfn| memory.pages().state(gfn) == State::Ballooned));
    assert!(reported.gfns().all(|gfn| memory.pages().state(gfn) == State::Zero));
    (2 * quarter..PAGES).for_each(|page| assert!(read(&memory, page) == noise(page, 1), "page {page}"));
    assert!((quarter..2 * quarter).all(|page| read(&memory, page) == [0; PAGE_BYTES]));
    let status = memory.status(0).unwrap();
    let taken = |back_soon| TakenStatus { pages_total: u64::from(quarter), back_soon_total: u64::from(back_soon) };
    assert_eq!((status.reported, status.ballooned), (taken(quarter), taken(0)));
    // What is given up again had nothing behind it.
    memory.pages().inflate(ballooned).unwrap();
    memory.pages().deflate(ballooned);
    assert!(ballooned.gfns().all(|gfn| read(&memory, gfn.0) == [0; PAGE_BYTES]));
    assert_eq!(memory.status(0).unwrap().ballooned, taken(quarter));
}
