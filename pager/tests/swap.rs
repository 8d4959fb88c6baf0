//! The swap tier on the real kernel: guests that hold more than memory and pool can take, and disks that fail
//! in every way. No byte may be wrong, and none lost that is not announced. Needs the right to serve faults
//! (root).

#![allow(clippy::unwrap_used, reason = "a helper that cannot do its part fails the test, as it should")]

mod faulty;
mod support;

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use faulty::{Faults, FaultyFile};
use pager::{
    Evicted, Failure, Gfn, GuestMemory, Noise, PAGE_BYTES, PageBytes, Run, SlotFile, Staging, State, SwapFile,
    SwapFileError, Threads,
};
use support::{AMPLE, PAGES, Store, content, fail, guest_with, noise, read, wait_for, wait_until, write};

/// Half of RAM, and what the evictor keeps for itself.
const HALF: u64 = PAGES as u64 / 2 + 224;
/// How long something that must not happen is waited for.
const A_WHILE: Duration = Duration::from_millis(300);

type Guest = (Store, Arc<GuestMemory>, Threads);

fn guest_on(allocation_pages: u64, swap: impl SlotFile + 'static) -> Option<Guest> {
    guest_with(allocation_pages, Some(Box::new(swap)), Box::new(fail))
}

fn real_file(directory: &Path) -> SwapFile {
    SwapFile::create(directory, u64::from(PAGES) * PAGE_BYTES as u64).unwrap()
}

/// Has the guest write all of its pages, then read all of them; three rounds. Resident memory never exceeds
/// the allocation.
fn use_all_memory(memory: &GuestMemory, content: impl Fn(u32, u64) -> PageBytes) {
    for round in 1..4 {
        for page in 0..PAGES {
            write(memory, page, &content(page, round));
            if page % 64 == 0 {
                let status = memory.status(0).unwrap();
                assert!(status.resident_bytes <= status.allocation_bytes, "{status:?}");
            }
        }
        (0..PAGES).for_each(|page| assert!(read(memory, page) == content(page, round), "page {page} in round {round}"));
    }
}

#[test]
fn what_does_not_compress_lives_on_disk_and_comes_back_whole() {
    let directory = tempfile::tempdir().unwrap();
    let Some((_store, memory, _threads)) = guest_on(HALF, real_file(directory.path())) else { return };
    use_all_memory(&memory, noise);
    let status = memory.status(0).unwrap();
    assert!(status.pages.swapped > u64::from(PAGES) / 4, "{status:?}");
    assert!(status.swap.pages_out_total > 2 * u64::from(PAGES) && status.swap.pages_in_total > u64::from(PAGES));
    assert_eq!((status.swap.write_errors_total, status.swap.read_errors_total), (0, 0));
    // Slots are taken before their pages go.
    wait_for_some(|| {
        let status = memory.status(0).unwrap();
        (status.swap.used_bytes == status.pages.swapped * PAGE_BYTES as u64).then_some(())
    });
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "the file has no name");
}

#[test]
fn what_compresses_goes_on_to_the_disk_when_the_pool_has_outgrown_its_share() {
    let directory = tempfile::tempdir().unwrap();
    let Some((_store, memory, _threads)) = guest_on(u64::from(PAGES) / 4 + 224, real_file(directory.path())) else {
        return;
    };
    use_all_memory(&memory, content);
    // Writing back is the evictor's, in its own time.
    wait_for_some(|| {
        let status = memory.status(0).unwrap();
        let both = status.pages.compressed > 0 && status.pages.swapped > 0;
        (both && status.pool_bytes < status.allocation_bytes * 3 / 4).then_some(())
    });
    let status = memory.status(0).unwrap();
    assert_eq!(status.incompressible_total, 0);
}

#[test]
fn noise_stays_the_first_time_it_is_found_and_goes_to_the_disk_the_second_time() {
    const EACH: u32 = 16;
    let directory = tempfile::tempdir().unwrap();
    let Some((_store, memory, _threads)) = guest_on(AMPLE, real_file(directory.path())) else { return };
    let right = |page| if page < EACH { content(page, 1) } else { noise(page, 1) };
    (0..2 * EACH).for_each(|page| write(&memory, page, &right(page)));
    wait_until(&memory, |_| (0..2 * EACH).all(|page| memory.pages().state(Gfn(page)) == State::Private));
    let gfns: Vec<_> = (0..2 * EACH).map(Gfn).collect();
    let mut staging = Staging::new(EACH as usize).unwrap();
    let mut evict = || memory.pages().evict(&gfns, Noise::Spared, &mut staging).unwrap();
    assert_eq!(evict(), Evicted { evicted: EACH, incompressible: EACH });
    assert_eq!(memory.status(0).unwrap().pages.swapped, 0);
    assert_eq!(evict(), Evicted { evicted: EACH, incompressible: 0 });
    let pages = memory.status(0).unwrap().pages;
    assert_eq!((pages.compressed, pages.swapped), (u64::from(EACH), u64::from(EACH)));
    (0..2 * EACH).for_each(|page| assert!(read(&memory, page) == right(page), "page {page}"));
}

/// Fails to write from the moment all memory is full until long after, then works again.
fn a_disk_that_cannot_be_written_holds_the_guest_up_and_loses_nothing(errno: i32) {
    let file = FaultyFile::new(PAGES as usize);
    let Some((_store, memory, _threads)) = guest_on(HALF, file.clone()) else { return };
    let full = HALF as u32 / 2;
    (0..full).for_each(|page| write(&memory, page, &noise(page, 1)));
    file.set(Faults { write_error: Some(errno), ..Faults::default() });
    let progress = Arc::new(AtomicU64::new(0));
    let writer = {
        let (memory, progress) = (memory.clone(), progress.clone());
        thread::spawn(move || {
            for page in full..PAGES {
                write(&memory, page, &noise(page, 1));
                progress.store(u64::from(page), Ordering::Relaxed);
            }
        })
    };
    wait_for(&memory, |pages| pages.private >= HALF - 224);
    let trouble = wait_for_some(|| memory.take_trouble());
    assert!(trouble.contains("no page was lost") && trouble.contains(&format!("os error {errno}")), "{trouble}");
    thread::sleep(A_WHILE);
    let status = memory.status(0).unwrap();
    assert!(status.swap.suspended && status.swap.write_errors_total > 0 && status.pages.swapped == 0, "{status:?}");
    assert!(status.resident_bytes <= status.allocation_bytes && !writer.is_finished(), "{status:?}");
    file.set(Faults::default());
    writer.join().unwrap();
    assert!((0..PAGES).all(|page| read(&memory, page) == noise(page, 1)));
    assert!(memory.status(0).unwrap().pages.swapped > 0);
}

#[test]
fn write_errors_hold_the_guest_up_and_lose_nothing() {
    a_disk_that_cannot_be_written_holds_the_guest_up_and_loses_nothing(libc::EIO);
}

#[test]
fn a_full_disk_holds_the_guest_up_and_loses_nothing() {
    a_disk_that_cannot_be_written_holds_the_guest_up_and_loses_nothing(libc::ENOSPC);
}

#[test]
fn without_a_disk_that_works_pages_are_compressed_as_if_there_were_none() {
    let file = FaultyFile::new(PAGES as usize);
    file.set(Faults { write_error: Some(libc::EIO), ..Faults::default() });
    let Some((_store, memory, _threads)) = guest_on(u64::from(PAGES) * 3 / 4, file) else { return };
    use_all_memory(&memory, content);
    let status = memory.status(0).unwrap();
    assert!(status.pages.compressed > 0 && status.pages.swapped == 0, "{status:?}");
}

fn wait_for_some<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "it never came");
        thread::yield_now();
    }
}

/// Swaps pages out, breaks the disk, and has a thread of the guest read what is on it: the error names
/// address and slot, and that thread never gets a byte.
fn a_disk_that_cannot_be_read_back_stops_the_guest(break_it: impl FnOnce(&FaultyFile), words: &[&str]) {
    let file = FaultyFile::new(PAGES as usize);
    let (failed, failures) = mpsc::channel::<String>();
    let on_failure = Box::new(move |failure: Failure| failed.send(failure.to_string()).unwrap());
    let Some((_store, memory, threads)) = guest_with(HALF, Some(Box::new(file.clone())), on_failure) else { return };
    (0..PAGES).for_each(|page| write(&memory, page, &noise(page, 1)));
    wait_for(&memory, |pages| pages.swapped > 100);
    let on_disk = |page: &u32| memory.pages().state(Gfn(*page)) == State::Swapped;
    let page = (0..PAGES).rev().find(on_disk).unwrap();
    break_it(&file);
    let reader = {
        let memory = memory.clone();
        thread::spawn(move || read(&memory, page))
    };
    let failure = failures.recv_timeout(Duration::from_secs(10)).unwrap();
    for word in words.iter().copied().chain([format!("{:#x}", page as usize * PAGE_BYTES).as_str(), "slot"]) {
        assert!(failure.contains(word), "{word:?} is missing in {failure}");
    }
    thread::sleep(A_WHILE);
    assert!(!reader.is_finished(), "the guest was handed a page that was not there");
    assert_eq!(failures.try_recv().ok(), None, "the failure is told once");
    drop(threads);
}

#[test]
fn a_thread_that_panics_stops_the_guest_with_its_name_and_words() {
    let file = FaultyFile::new(PAGES as usize);
    let (failed, failures) = mpsc::channel::<String>();
    let on_failure = Box::new(move |failure: Failure| _ = failed.send(failure.to_string()));
    let Some((_store, memory, _threads)) = guest_with(HALF, Some(Box::new(file.clone())), on_failure) else { return };
    (0..PAGES).for_each(|page| write(&memory, page, &noise(page, 1)));
    wait_for(&memory, |pages| pages.swapped > 100);
    file.set(Faults { read_panic: true, ..Faults::default() });
    let page = (0..PAGES).rev().find(|&page| memory.pages().state(Gfn(page)) == State::Swapped).unwrap();
    let reader = thread::spawn(move || read(&memory, page));
    let failure = failures.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(failure.contains("the swap thread panicked: reading 4096 bytes at "), "{failure}");
    assert!(!reader.is_finished());
}

#[test]
fn a_read_error_stops_the_guest_with_address_and_slot() {
    let eio = Faults { read_error: Some(libc::EIO), ..Faults::default() };
    a_disk_that_cannot_be_read_back_stops_the_guest(|file| file.set(eio), &["os error 5"]);
}

#[test]
fn a_flipped_bit_stops_the_guest_with_address_and_slot() {
    let flip =
        |file: &FaultyFile| file.damage(|bytes| bytes.iter_mut().step_by(PAGE_BYTES).for_each(|byte| *byte ^= 1));
    a_disk_that_cannot_be_read_back_stops_the_guest(flip, &["checksum"]);
}

#[test]
fn a_truncated_file_stops_the_guest_with_address_and_slot() {
    let truncated = Faults { truncated_to: Some(0), ..Faults::default() };
    a_disk_that_cannot_be_read_back_stops_the_guest(|file| file.set(truncated), &["truncated"]);
}

#[test]
fn a_file_truncated_on_the_real_disk_stops_the_guest() {
    let directory = tempfile::tempdir().unwrap();
    let file = real_file(directory.path()).into_fd();
    let again = File::from(file.try_clone().unwrap());
    let (failed, failures) = mpsc::channel::<String>();
    let on_failure = Box::new(move |failure: Failure| failed.send(failure.to_string()).unwrap());
    let swap: Box<dyn SlotFile> = Box::new(SwapFile::inherited(file).unwrap());
    let Some((_store, memory, _threads)) = guest_with(HALF, Some(swap), on_failure) else { return };
    (0..PAGES).for_each(|page| write(&memory, page, &noise(page, 1)));
    wait_for(&memory, |pages| pages.swapped > 100);
    again.set_len(0).unwrap();
    let page = (0..PAGES).find(|&page| memory.pages().state(Gfn(page)) == State::Swapped).unwrap();
    let reader = thread::spawn(move || read(&memory, page));
    let failure = failures.recv_timeout(Duration::from_secs(10)).unwrap();
    // A write of the evictor may have made the file longer again; then there is a hole.
    assert!(failure.contains("truncated") || failure.contains("checksum"), "{failure}");
    assert!(!reader.is_finished());
}

#[test]
fn what_the_guest_gives_up_leaves_the_disk() {
    let file = FaultyFile::new(PAGES as usize);
    let Some((_store, memory, _threads)) = guest_on(HALF, file.clone()) else { return };
    (0..PAGES).for_each(|page| write(&memory, page, &noise(page, 1)));
    wait_for(&memory, |pages| pages.swapped > 600);
    memory.pages().report_free(Run { first: Gfn(0), count: PAGES / 2 }, 0).unwrap();
    memory.pages().inflate(Run { first: Gfn(PAGES / 2), count: PAGES / 2 }).unwrap();
    let status = wait_for(&memory, |pages| pages.swapped == 0);
    assert_eq!(status.swap.used_bytes, 0);
    wait_for_some(|| (!file.discarded().is_empty()).then_some(()));
    assert!((0..PAGES).all(|page| read(&memory, page) == [0; PAGE_BYTES]));
}

/// Guest threads write and check pages of every kind, with an allocation for a third of them, on a file too
/// small for the rest at times.
#[test]
fn no_byte_is_lost_while_pages_move_through_all_tiers() {
    let directory = tempfile::tempdir().unwrap();
    let swap = SwapFile::create(directory.path(), u64::from(PAGES) * 5 / 8 * PAGE_BYTES as u64).unwrap();
    let Some((_store, memory, _threads)) = guest_on(u64::from(PAGES) / 3 + 224, swap) else { return };
    let stop = Arc::new(AtomicBool::new(false));
    let expected = |page: u32, version: u64| match version % 8 {
        0 => [0; PAGE_BYTES],
        1 | 2 => content(page, version),
        3 => [page as u8; PAGE_BYTES],
        _ => noise(page, version),
    };
    let guests: Vec<_> = (0..2u32)
        .map(|guest| {
            let (memory, stop) = (memory.clone(), stop.clone());
            thread::spawn(move || {
                let mut versions = vec![0u64; PAGES as usize / 2];
                let first = guest * PAGES / 2;
                let mut random = u64::from(guest) + 1;
                let mut checked = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let index = (random % u64::from(PAGES / 2)) as usize;
                    let page = first + index as u32;
                    assert!(
                        read(&memory, page) == expected(page, versions[index]),
                        "page {page} version {}",
                        versions[index]
                    );
                    if random >> 40 & 1 == 0 {
                        versions[index] += 1;
                        write(&memory, page, &expected(page, versions[index]));
                    }
                    checked += 1;
                }
                for (page, &version) in (first..).zip(&versions) {
                    assert!(read(&memory, page) == expected(page, version), "at the end, page {page}");
                }
                checked
            })
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        let status = memory.status(0).unwrap();
        assert!(status.resident_bytes <= status.allocation_bytes, "{status:?}");
        memory.pages().drop_zero(Run { first: Gfn(0), count: PAGES }).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let checked: u64 = guests.into_iter().map(|guest| guest.join().unwrap()).sum();
    let status = memory.status(0).unwrap();
    assert!(checked > 5_000 && status.swap.pages_in_total > 1_000, "{checked} checked, {status:?}");
}

/// A small file system of its own, gone when it is dropped; none, loudly, without the right to mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: u64, options: &str) -> Option<SmallDisk> {
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={bytes}{options}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(directory.path()).status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: no right to mount a file system");
            return None;
        }
        Some(SmallDisk(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A file of a guest that is still there keeps the memory, not the name.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_too_small_or_read_only_is_refused_before_anything_starts() {
    let Some(disk) = SmallDisk::mount(1 << 20, "") else { return };
    let error = SwapFile::create(disk.0.path(), 2 << 20).unwrap_err();
    assert!(matches!(error, SwapFileError::Full { bytes: 2_097_152, .. }), "{error}");
    assert_eq!(fs::read_dir(disk.0.path()).unwrap().count(), 0);
    assert!(SwapFile::create(disk.0.path(), 1 << 19).unwrap().caveat().unwrap().contains("memory"));
    let Some(disk) = SmallDisk::mount(1 << 20, ",ro") else { return };
    let error = SwapFile::create(disk.0.path(), 4096).unwrap_err();
    assert!(matches!(error, SwapFileError::Forbidden { .. }) && error.to_string().contains("writing"), "{error}");
}

#[test]
fn a_disk_that_others_fill_while_the_guest_runs_loses_nothing() {
    let Some(disk) = SmallDisk::mount(2 << 20, "") else { return };
    // A file whose room is not reserved, as after somebody took what a discard had given back.
    let file = File::options().read(true).write(true).create_new(true).open(disk.0.path().join("swap")).unwrap();
    file.set_len(u64::from(PAGES) * PAGE_BYTES as u64).unwrap();
    let Some((_store, memory, _threads)) = guest_on(HALF, SwapFile::inherited(file.into()).unwrap()) else { return };
    let writer = {
        let memory = memory.clone();
        thread::spawn(move || (0..PAGES).for_each(|page| write(&memory, page, &noise(page, 1))))
    };
    let trouble = wait_for_some(|| memory.take_trouble());
    assert!(trouble.contains("os error 28"), "{trouble}");
    thread::sleep(A_WHILE);
    assert!(!writer.is_finished(), "2 MiB of disk cannot hold half the guest");
    let bigger = Command::new("mount").args(["-o", "remount,size=64m"]).arg(disk.0.path()).status();
    assert!(bigger.unwrap().success());
    writer.join().unwrap();
    assert!((0..PAGES).all(|page| read(&memory, page) == noise(page, 1)));
}
