//! A guest in small: memory, the host's side of a store, and accesses as a guest makes them.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::{
    fs::File,
    io::Write,
    os::{fd::OwnedFd, unix::fs::FileExt},
    ptr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use control::status::{PageCounts, PagerStatus};
use nix::sys::memfd::{MFdFlags, memfd_create};
use pager::{Config, Failure, GuestMemory, PAGE_BYTES, PageBytes, SlotFile, StoreView, Threads};

pub const PAGES: u32 = 2048;
pub const FRAMES: u32 = 2 * PAGES;
/// An allocation with which the evictor has nothing to do.
pub const AMPLE: u64 = PAGES as u64 + 512;

/// The host's side of a store, as small as it can be.
pub struct Store {
    frames: File,
    published: File,
}

impl Store {
    pub fn new() -> (Store, StoreView) {
        Store::of(FRAMES)
    }

    /// A store of so many frames.
    pub fn of(count: u32) -> (Store, StoreView) {
        let memfd = |name: &str, bytes: u64| {
            let file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC).unwrap());
            file.set_len(bytes).unwrap();
            file
        };
        let store = Store {
            frames: memfd("frames", u64::from(count) * PAGE_BYTES as u64),
            published: memfd("bits", u64::from(count) / 8),
        };
        let read_only = |file: &File| {
            use std::os::fd::AsRawFd;
            OwnedFd::from(File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap())
        };
        let view = StoreView::new(read_only(&store.frames), &read_only(&store.published), count).unwrap();
        (store, view)
    }

    pub fn publish(&self, frame: u32, bytes: &PageBytes) {
        self.frames.write_all_at(bytes, u64::from(frame) * PAGE_BYTES as u64).unwrap();
        let mut byte = [0];
        self.published.read_exact_at(&mut byte, u64::from(frame / 8)).unwrap();
        self.published.write_all_at(&[byte[0] | 1 << (frame % 8)], u64::from(frame / 8)).unwrap();
    }

    pub fn unpublish_all(&self) {
        self.published.write_all_at(&[0; FRAMES as usize / 8], 0).unwrap();
    }
}

/// A failed guest's threads would wait for ever for their pages, and the test for them.
pub fn fail(failure: pager::Failure) {
    let _ = writeln!(std::io::stderr(), "{failure}");
    std::process::abort();
}

/// A guest without a swap file, in which nothing may fail.
pub fn guest(allocation_pages: u64) -> Option<(Store, Arc<GuestMemory>, Threads)> {
    guest_with(allocation_pages, None, Box::new(fail))
}

/// A guest that pages may be swapped out of.
pub fn guest_with(
    allocation_pages: u64,
    swap: Option<Box<dyn SlotFile>>,
    on_failure: Box<dyn Fn(Failure) + Send + Sync>,
) -> Option<(Store, Arc<GuestMemory>, Threads)> {
    guest_of(Config { swap, ..config(allocation_pages) }, on_failure)
}

/// What most of these guests are.
pub fn config(allocation_pages: u64) -> Config {
    Config {
        pages: PAGES,
        allocation_bytes: allocation_pages * PAGE_BYTES as u64,
        overhead_bytes: 0,
        fault_threads: 3,
        evict: true,
        vma_budget: 1000,
        swap: None,
        image: None,
        prefetch: false,
        kernel_tier: false,
        foreign_bytes: 0,
    }
}

/// A guest made to order.
pub fn guest_of(
    config: Config,
    on_failure: Box<dyn Fn(Failure) + Send + Sync>,
) -> Option<(Store, Arc<GuestMemory>, Threads)> {
    if let Err(error) = pager::probe() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {error}");
        return None;
    }
    let (store, view) = Store::new();
    let (memory, threads) = GuestMemory::new(config, view, on_failure).unwrap();
    Some((store, memory, threads))
}

/// A page of version `version`: half of it does not compress.
pub fn content(page: u32, version: u64) -> PageBytes {
    let mut bytes = noise(page, version);
    bytes[PAGE_BYTES / 2..].fill(0);
    bytes
}

/// A page of version `version` that does not compress at all.
pub fn noise(page: u32, version: u64) -> PageBytes {
    let mut bytes = [0; PAGE_BYTES];
    let mut word = (u64::from(page) << 32 | version).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for chunk in bytes.chunks_exact_mut(8) {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Where a page is mapped.
pub fn address(memory: &GuestMemory, page: u32) -> *mut PageBytes {
    memory.base().cast::<PageBytes>().as_ptr().wrapping_add(page as usize)
}

/// An access as a guest makes it: it may block in a fault.
pub fn read(memory: &GuestMemory, page: u32) -> PageBytes {
    // SAFETY: inside RAM, any bytes are a page, and no other thread of these tests writes this page
    // meanwhile.
    unsafe { ptr::read(address(memory, page)) }
}

pub fn write(memory: &GuestMemory, page: u32, bytes: &PageBytes) {
    // SAFETY: as in `read`.
    unsafe { ptr::write(address(memory, page), *bytes) };
}

/// Waits until the pages' states are as expected: the fault thread wakes a writer a moment before it unlocks
/// the page, and the table learns of the kernel's own copies only when it looks.
pub fn wait_for(memory: &GuestMemory, expected: impl Fn(&PageCounts) -> bool) -> PagerStatus {
    wait_until(memory, |status| expected(&status.pages))
}

/// The same for anything else.
pub fn wait_until(memory: &GuestMemory, expected: impl Fn(&PagerStatus) -> bool) -> PagerStatus {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let status = memory.status(0).unwrap();
        if expected(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "it is not as expected: {status:?}");
        thread::yield_now();
    }
}
