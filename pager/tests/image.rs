//! Guests that started from an image, on the real kernel: pages as they were loaded are dropped, and read
//! from there again. The image belongs to somebody else, and nothing wrong in it may reach the guest. Needs
//! the right to serve faults (root).

#![allow(clippy::unwrap_used, reason = "a helper that cannot do its part fails the test, as it should")]

#[allow(dead_code, reason = "these tests need little of it")]
mod faulty;
mod support;

use std::{
    io,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use faulty::{Faults, FaultyFile};
use pager::{Config, Failure, Gfn, GuestMemory, ImageFile, PAGE_BYTES, PageBytes, SlotFile, State, Threads};
use support::{PAGES, Store, config, content, fail, guest_of, noise, read, wait_for, write};

/// Half of RAM, and what the evictor keeps for itself.
const HALF: u64 = PAGES as u64 / 2 + 224;
const RESERVE: u64 = 256;
const AMPLE: u64 = PAGES as u64 * 2;
/// How long a failure may take to be told of.
const PATIENCE: Duration = Duration::from_secs(10);

type Guest = (Store, Arc<GuestMemory>, Threads);

struct Image(FaultyFile);

impl ImageFile for Image {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }

    fn name(&self) -> String {
        "a.mem".into()
    }
}

fn page(number: u32) -> PageBytes {
    noise(number, 7)
}

/// A guest whose RAM was loaded from an image.
fn loaded(
    allocation_pages: u64,
    prefetch: bool,
    on_failure: Box<dyn Fn(Failure) + Send + Sync>,
) -> Option<(FaultyFile, Guest)> {
    let file = FaultyFile::new(PAGES as usize);
    file.damage(|bytes| (0..).zip(bytes.chunks_exact_mut(PAGE_BYTES)).for_each(|(n, b)| b.copy_from_slice(&page(n))));
    let image = Some(Box::new(Image(file.clone())) as _);
    let guest = guest_of(Config { image, prefetch, ..config(allocation_pages) }, on_failure)?;
    (0..PAGES).for_each(|number| guest.1.populate(Gfn(number), &page(number)).unwrap());
    Some((file, guest))
}

/// Has all but a few of the pages go.
fn squeeze(memory: &GuestMemory) {
    memory.set_allocation(RESERVE * PAGE_BYTES as u64);
    wait_for(memory, |pages| pages.private < 64);
}

#[test]
fn twice_as_much_as_there_is_room_for_is_read_all_the_time_and_none_of_it_is_kept() {
    let Some((_file, (_store, memory, _threads))) = loaded(HALF, false, Box::new(fail)) else { return };
    for _ in 0..3 {
        assert!((0..PAGES).all(|number| read(&memory, number) == page(number)));
    }
    let status = memory.status(0).unwrap();
    // They do not compress, and there is no swap file: without the image nothing could go.
    assert!(status.pages.clean > u64::from(PAGES) / 4 && status.pool_bytes == 0, "{status:?}");
    assert!(status.resident_bytes <= status.allocation_bytes && status.promotions_total > 0, "{status:?}");
    assert!(status.read_ahead_total > u64::from(PAGES), "sweeps bring their neighbours: {status:?}");
}

#[test]
fn a_page_that_was_written_to_is_kept_and_one_that_was_written_back_to_what_it_was_is_not() {
    let Some((_file, (_store, memory, _threads))) = loaded(AMPLE, false, Box::new(fail)) else { return };
    let (changed, restored) = (5, 6);
    write(&memory, changed, &content(changed, 1));
    write(&memory, restored, &content(restored, 1));
    write(&memory, restored, &page(restored));
    // Less than the credits that the evictor keeps in hand: it goes on until nothing is left.
    memory.set_allocation(RESERVE / 2 * PAGE_BYTES as u64);
    let state = |number| memory.pages().state(Gfn(number));
    wait_for(&memory, |pages| pages.private == 0);
    assert_eq!((state(changed), state(restored)), (State::Compressed, State::Clean));
    assert!(read(&memory, changed) == content(changed, 1) && read(&memory, restored) == page(restored));
}

#[test]
fn a_guest_that_is_resumed_finds_its_clean_pages_read_many_at_a_time() {
    let Some((_file, (_store, memory, _threads))) = loaded(AMPLE, true, Box::new(fail)) else { return };
    memory.pause();
    squeeze(&memory);
    memory.set_allocation(AMPLE * PAGE_BYTES as u64);
    memory.resume();
    wait_for(&memory, |pages| pages.private >= u64::from(PAGES) - 64);
    assert!((0..PAGES).all(|number| read(&memory, number) == page(number)));
}

/// Something happens to the file while all is clean; a page is touched, and the guest ends with these words.
fn it_ends(happens: impl FnOnce(&FaultyFile), words: &str) {
    let (sender, told) = mpsc::channel();
    let on_failure = Box::new(move |failure: Failure| _ = sender.send(failure.to_string()));
    let Some((file, (_store, memory, _threads))) = loaded(AMPLE, false, on_failure) else { return };
    squeeze(&memory);
    wait_for(&memory, |pages| pages.clean > u64::from(PAGES) - 64);
    let number = (100..PAGES).find(|&number| memory.pages().state(Gfn(number)) == State::Clean).unwrap();
    happens(&file);
    let reader = memory.clone();
    // It never comes back: the page it waits for does not exist.
    thread::spawn(move || read(&reader, number));
    let failure = told.recv_timeout(PATIENCE).unwrap();
    let address = format!("address {:#x}", u64::from(number) * PAGE_BYTES as u64);
    assert!(failure.contains(&address) && failure.contains("image a.mem") && failure.contains(words), "{failure}");
}

#[test]
fn an_image_that_was_changed_ends_the_guest_with_address_and_file() {
    it_ends(|file| file.damage(|bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1)), "changed while the guest ran");
}

#[test]
fn an_image_that_was_cut_short_ends_the_guest_with_address_and_file() {
    it_ends(|file| file.set(Faults { truncated_to: Some(50 * 4096), ..Faults::default() }), "cut short");
}

#[test]
fn an_image_that_cannot_be_read_ends_the_guest_with_address_and_file() {
    it_ends(|file| file.set(Faults { read_error: Some(libc::EIO), ..Faults::default() }), "os error 5");
}

#[test]
fn reads_that_fail_twice_or_are_short_lose_nothing() {
    let Some((file, (_store, memory, _threads))) = loaded(AMPLE, false, Box::new(fail)) else { return };
    squeeze(&memory);
    memory.set_allocation(AMPLE * PAGE_BYTES as u64);
    for number in 0..64 {
        let flipped_byte = Some(17).filter(|_| number % 2 == 0);
        let read_error = Some(libc::EIO).filter(|_| number % 2 == 1);
        let failing_reads = Some(2);
        file.set(Faults { flipped_byte, read_error, failing_reads, ..Faults::default() });
        assert!(read(&memory, number) == page(number), "page {number}");
    }
    file.set(Faults { most_bytes: Some(PAGE_BYTES), interrupted: true, ..Faults::default() });
    assert!((0..PAGES).all(|number| read(&memory, number) == page(number)));
}
