//! Pages that the kernel swaps out to a zram device of our own, and what becomes of a guest without one. One
//! test, since a process's memory is looked at as a whole. Needs root, and zram.

#![allow(clippy::unwrap_used, reason = "a helper that cannot do its part fails the test, as it should")]

mod support;

use std::{
    ffi::CString,
    fs,
    io::Write,
    thread,
    time::{Duration, Instant},
};

use control::status::PagerStatus;
use pager::{Config, GuestMemory, PAGE_BYTES, Run};
use peers::zram::{Zram, make_swap_area};
use support::{PAGES, config, content, fail, guest_of, noise, read, write};

/// What is in force for the guests here: three quarters of their pages, half of which does not compress.
const ALLOCATION: u64 = PAGES as u64 / 4 * 3;
/// All pages and some.
const AMPLE: u64 = PAGES as u64 * 2;
const DEVICE_BYTES: u64 = 64 << 20;

/// A zram device that is swapped to while this lives.
struct SwapDevice(Zram);

impl SwapDevice {
    fn new() -> Option<SwapDevice> {
        let Ok(zram) = Zram::add() else {
            let _ = writeln!(std::io::stderr(), "SKIPPED: no zram device can be made here");
            return None;
        };
        let device = SwapDevice(zram);
        for (path, value) in device.0.sizing(DEVICE_BYTES) {
            fs::write(path, value).unwrap();
        }
        make_swap_area(&device.0.node(), DEVICE_BYTES).unwrap();
        // SAFETY: the path is a string that ends with 0.
        let on = unsafe { libc::swapon(device.path().as_ptr(), 0) };
        assert_eq!(on, 0, "{}", std::io::Error::last_os_error());
        Some(device)
    }

    fn path(&self) -> CString {
        CString::new(self.0.node().to_str().unwrap()).unwrap()
    }
}

impl Drop for SwapDevice {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::swapoff(self.path().as_ptr()) };
        for (path, value) in self.0.removal() {
            let _ = fs::write(path, value);
        }
    }
}

/// Anonymous memory of this process, here or swapped out, bytes.
fn anonymous_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap()
    };
    (kib("RssAnon:") + kib("VmSwap:")) * 1024
}

fn status(memory: &GuestMemory) -> PagerStatus {
    memory.status(anonymous_bytes()).unwrap()
}

fn wait_until(memory: &GuestMemory, expected: impl Fn(&PagerStatus) -> bool) -> PagerStatus {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let status = status(memory);
        if expected(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "it is not as expected: {status:?}");
        thread::yield_now();
    }
}

#[test]
fn pages_leave_for_zram_come_back_as_they_were_and_go_to_the_pool_without_it() {
    let tiered = |pages| Config { kernel_tier: true, foreign_bytes: anonymous_bytes(), ..config(pages) };
    let squeeze = |memory: &GuestMemory| memory.set_allocation(ALLOCATION * PAGE_BYTES as u64);

    // Nobody takes the pages: it is noticed, and the pool has them; or swap that the machine has of its own.
    let Some((_store, memory, threads)) = guest_of(tiered(AMPLE), Box::new(fail)) else { return };
    (0..PAGES).for_each(|page| write(&memory, page, &content(page, 1)));
    squeeze(&memory);
    wait_until(&memory, |status| status.pages.compressed + status.kernel_pages > u64::from(PAGES) / 3);
    (0..PAGES).for_each(|page| assert!(read(&memory, page) == content(page, 1), "page {page}"));
    drop(threads);
    drop(memory);

    // A price makes no tier: what may not go to the host's swap does not, though there is room.
    let Some(_device) = SwapDevice::new() else { return };
    let none = Config { kernel_tier: false, ..tiered(AMPLE) };
    let Some((_store, memory, threads)) = guest_of(none, Box::new(fail)) else { return };
    memory.set_kernel_price(64);
    (0..PAGES).for_each(|page| write(&memory, page, &content(page, 1)));
    squeeze(&memory);
    let status = wait_until(&memory, |status| status.pages.compressed > u64::from(PAGES) / 3);
    assert_eq!(status.kernel_pages, 0, "{status:?}");
    assert!(
        fs::read_to_string("/proc/self/status").unwrap().contains("VmSwap:\t       0 kB"),
        "nothing is swapped out"
    );
    drop(threads);
    drop(memory);

    let Some((_store, memory, threads)) = guest_of(tiered(AMPLE), Box::new(fail)) else { return };
    (0..PAGES).for_each(|page| write(&memory, page, &content(page, 1)));
    squeeze(&memory);
    let status = wait_until(&memory, |status| status.kernel_pages > u64::from(PAGES) / 4);
    assert_eq!(status.pages.compressed, 0, "the pool has nothing to do: {status:?}");
    assert_eq!(status.pages.private, u64::from(PAGES));
    let faults = status.faults_missing_total;
    (0..PAGES).for_each(|page| assert!(read(&memory, page) == content(page, 1), "page {page}"));
    assert_eq!(self::status(&memory).faults_missing_total, faults, "they come back without us");

    // Everything that a guest, its balloon and a round of hinting do to pages that come and go.
    let mut versions = vec![1u64; PAGES as usize];
    for round in 0..40u64 {
        for page in (0..PAGES).map(|i| i * 1009 % PAGES).skip(round as usize).step_by(7) {
            assert!(read(&memory, page) == content(page, versions[page as usize]), "page {page}, round {round}");
            versions[page as usize] = 2 + round;
            write(&memory, page, &content(page, 2 + round));
        }
        let first = (round * 37) as u32 % (PAGES - 64);
        let run = Run::from_range(first..first + 32);
        memory.pages().watch(run).unwrap();
        let written = first + 5;
        versions[written as usize] = 100 + round;
        write(&memory, written, &content(written, 100 + round));
        memory.pages().drop_hinted(Run::from_range(written..written + 1), 0).unwrap();
        memory.pages().unwatch(run).unwrap();
        let gone = Run::from_range(first + 32..first + 40);
        memory.pages().inflate(gone).unwrap();
        memory.pages().deflate(gone);
        for gfn in gone.gfns() {
            assert!(read(&memory, gfn.0) == [0; PAGE_BYTES], "page {}", gfn.0);
            versions[gfn.index()] = 200 + round;
            write(&memory, gfn.0, &content(gfn.0, 200 + round));
        }
    }
    (0..PAGES).for_each(|page| assert!(read(&memory, page) == content(page, versions[page as usize]), "page {page}"));

    // What does not compress stays out of it.
    (0..PAGES / 8).for_each(|page| write(&memory, page, &noise(page, 1)));
    memory.set_allocation((ALLOCATION + u64::from(PAGES) / 8) * PAGE_BYTES as u64);
    (PAGES / 8..PAGES).for_each(|page| assert!(read(&memory, page) == content(page, versions[page as usize])));
    (0..PAGES / 8).for_each(|page| assert!(read(&memory, page) == noise(page, 1), "page {page}"));
    drop(threads);
}
