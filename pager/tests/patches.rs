//! Pages kept as patches of frames, on the real kernel. Needs the right to serve faults (root).

#![allow(clippy::unwrap_used, reason = "a helper that cannot do its part fails the test, as it should")]

mod support;

use std::{
    thread,
    time::{Duration, Instant},
};

use pager::{
    Frame, Gfn, GuestMemory, Noise, PAGE_BYTES, PageBytes, Run, Sharing, Staging, SwapFile,
    tiers::library::{Library, Task},
};
use support::{AMPLE, PAGES, Store, content, fail, guest, guest_with, read, wait_for, write};

/// Pages that resemble a frame, and the first of them.
const PATCHED: u32 = 16;
const FIRST: u32 = 100;
/// Where the frames are.
const FRAME: u32 = 3000;

/// Like frame `FRAME + page - FIRST`, but for two words.
fn similar(page: u32) -> PageBytes {
    let mut bytes = content(page - FIRST, 1);
    bytes[100..108].copy_from_slice(&u64::from(page).to_le_bytes());
    bytes[3000] = 1;
    bytes
}

fn frames() -> impl Iterator<Item = Frame> {
    (FRAME..FRAME + PATCHED).map(Frame)
}

fn pages() -> impl Iterator<Item = u32> {
    FIRST..FIRST + PATCHED
}

fn is_held(memory: &GuestMemory, frame: Frame) -> bool {
    memory.pages().references().answer(frame)
}

/// Writes the pages and publishes the frames.
fn fill(store: &Store, memory: &GuestMemory) {
    frames().for_each(|frame| store.publish(frame.0, &content(frame.0 - FRAME, 1)));
    pages().for_each(|page| write(memory, page, &similar(page)));
    wait_for(memory, |counts| counts.private == u64::from(PATCHED));
}

/// Evicts the pages and packs them, as the evictor does when they have stayed for a while.
fn pack(memory: &GuestMemory) {
    let gfns: Vec<_> = pages().map(Gfn).collect();
    let mut staging = Staging::new(PATCHED as usize).unwrap();
    assert_eq!(memory.pages().evict(&gfns, Noise::Written, &mut staging).unwrap().evicted, PATCHED);
    let mut library = Library::new(PAGES);
    while let Task::Read(first) = library.task(0) {
        memory.pages().read_frames(first, &mut library);
    }
    assert_eq!(memory.pages().recompress(&gfns, &mut staging, &mut library).unwrap(), PATCHED);
}

#[test]
fn pages_that_resemble_frames_become_patches_that_hold_them_and_come_back_unchanged() {
    let Some((store, memory, _threads)) = guest(AMPLE) else { return };
    fill(&store, &memory);
    assert!(frames().all(|frame| !is_held(&memory, frame)));
    pack(&memory);
    let status = memory.status(0).unwrap();
    assert_eq!((status.patch_pages, status.pool_patched_total), (u64::from(PATCHED), u64::from(PATCHED)));
    assert!(status.patch_bytes < u64::from(PATCHED) * 100, "{status:?}");
    assert_eq!(status.pool_bytes, 4 * PAGE_BYTES as u64, "one slab has all of them");
    assert!(frames().all(|frame| is_held(&memory, frame)), "a question of the host finds them held");
    pages().for_each(|page| assert!(read(&memory, page) == similar(page), "page {page}"));
    let status = wait_for(&memory, |counts| counts.compressed == 0);
    assert_eq!((status.patch_pages, status.patch_bytes, status.pool_bytes), (0, 0, 0));
    assert!(frames().all(|frame| !is_held(&memory, frame)));
}

#[test]
fn frames_that_are_not_published_any_more_are_left_alone() {
    let Some((store, memory, _threads)) = guest(AMPLE) else { return };
    fill(&store, &memory);
    let mut library = Library::new(PAGES);
    while let Task::Read(first) = library.task(0) {
        memory.pages().read_frames(first, &mut library);
    }
    store.unpublish_all();
    let gfns: Vec<_> = pages().map(Gfn).collect();
    let mut staging = Staging::new(PATCHED as usize).unwrap();
    memory.pages().evict(&gfns, Noise::Written, &mut staging).unwrap();
    memory.pages().recompress(&gfns, &mut staging, &mut library).unwrap();
    assert_eq!(memory.status(0).unwrap().patch_pages, 0);
    assert!(frames().all(|frame| !is_held(&memory, frame)));
    pages().for_each(|page| assert!(read(&memory, page) == similar(page), "page {page}"));
}

#[test]
fn patches_that_the_guest_gives_up_let_go_of_their_frames() {
    let Some((store, memory, _threads)) = guest(AMPLE) else { return };
    fill(&store, &memory);
    pack(&memory);
    memory.pages().inflate(Run { first: Gfn(FIRST), count: PATCHED / 2 }).unwrap();
    assert_eq!(frames().filter(|&frame| is_held(&memory, frame)).count() as u32, PATCHED / 2);
    memory.pages().report_free(Run { first: Gfn(FIRST), count: PATCHED }, 0).unwrap();
    assert!(frames().all(|frame| !is_held(&memory, frame)));
    let status = memory.status(0).unwrap();
    assert_eq!((status.patch_pages, status.pool_bytes), (0, 0));
}

#[test]
fn patches_go_to_the_swap_file_as_whole_pages() {
    let directory = tempfile::tempdir().unwrap();
    let file = SwapFile::create(directory.path(), u64::from(PAGES) * PAGE_BYTES as u64).unwrap();
    let Some((store, memory, _threads)) = guest_with(AMPLE, Some(Box::new(file)), Box::new(fail)) else { return };
    fill(&store, &memory);
    pack(&memory);
    let gfns: Vec<_> = pages().map(Gfn).collect();
    let mut staging = Staging::new(PATCHED as usize).unwrap();
    assert_eq!(memory.pages().write_back(&gfns, &mut staging).unwrap(), PATCHED);
    assert!(frames().all(|frame| !is_held(&memory, frame)));
    // The frames may be anything from now on.
    frames().for_each(|frame| store.publish(frame.0, &content(9, 9)));
    pages().for_each(|page| assert!(read(&memory, page) == similar(page), "page {page}"));
}

#[test]
fn a_page_may_share_the_frame_that_another_is_a_patch_of() {
    let Some((store, memory, _threads)) = guest(AMPLE) else { return };
    fill(&store, &memory);
    pack(&memory);
    write(&memory, 5, &content(0, 1));
    wait_for(&memory, |counts| counts.private == 1);
    memory.pages().share(&[(Gfn(5), Frame(FRAME))], &mut |_, outcome| assert_eq!(outcome, Sharing::Shared)).unwrap();
    write(&memory, 5, &content(1, 2));
    wait_for(&memory, |counts| counts.shared == 0);
    assert!(is_held(&memory, Frame(FRAME)), "the patch still needs it");
    assert!(read(&memory, FIRST) == similar(FIRST));
    wait_for(&memory, |counts| counts.compressed < u64::from(PATCHED));
    assert!(!is_held(&memory, Frame(FRAME)));
}

#[test]
fn a_patch_of_a_frame_that_nobody_shares_is_undone_when_the_host_asks() {
    let Some((store, memory, _threads)) = guest(AMPLE) else { return };
    fill(&store, &memory);
    pack(&memory);
    let mut staging = Staging::new(1).unwrap();
    assert_eq!(memory.pages().undo_lonely(&mut staging).unwrap(), 0, "nobody has asked");
    assert!(frames().take(4).all(|frame| is_held(&memory, frame)));
    // The evictor may be at it, too.
    while frames().take(4).any(|frame| memory.pages().references().holds(frame)) {
        memory.pages().undo_lonely(&mut staging).unwrap();
    }
    assert_eq!(memory.status(0).unwrap().patch_pages, u64::from(PATCHED - 4));
    let mut reports = Vec::new();
    memory.pages().references().take_changes(64, &mut |frame, held| reports.push((frame, held)));
    assert_eq!(reports, frames().take(4).map(|frame| (frame, false)).collect::<Vec<_>>());
    frames().take(4).for_each(|frame| store.publish(frame.0, &content(9, 9)));
    pages().for_each(|page| assert!(read(&memory, page) == similar(page), "page {page}"));
}

#[test]
fn the_evictor_makes_patches_of_pages_that_stay() {
    let Some((store, memory, _threads)) = guest(AMPLE) else { return };
    fill(&store, &memory);
    let gfns: Vec<_> = pages().map(Gfn).collect();
    memory.pages().evict(&gfns, Noise::Written, &mut Staging::new(PATCHED as usize).unwrap()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while memory.status(0).unwrap().patch_pages < u64::from(PATCHED) {
        assert!(Instant::now() < deadline, "{:?}", memory.status(0).unwrap());
        thread::sleep(Duration::from_millis(20));
    }
    assert!(frames().all(|frame| is_held(&memory, frame)));
    pages().for_each(|page| assert!(read(&memory, page) == similar(page), "page {page}"));
}

#[test]
fn pages_of_the_pool_share_the_frames_at_their_addresses_once_these_are_published_and_are_broken_like_others() {
    const SAME: u32 = 8;
    let Some((store, memory, _threads)) = guest(AMPLE) else { return };
    (0..2 * SAME).for_each(|page| write(&memory, page, &content(page, 1)));
    wait_for(&memory, |counts| counts.private >= u64::from(2 * SAME));
    let gfns: Vec<_> = (0..2 * SAME).map(Gfn).collect();
    memory.pages().evict(&gfns, Noise::Written, &mut Staging::new(1).unwrap()).unwrap();
    let shared = |memory: &GuestMemory| memory.status(0).unwrap().pages.shared;
    assert!(memory.pages().rejoin(&gfns).unwrap().is_empty(), "nothing is published");
    // Half of the frames are equal, half are something else.
    (0..2 * SAME).for_each(|page| store.publish(page, &content(page, if page < SAME { 1 } else { 2 })));
    assert_eq!(memory.pages().rejoin(&gfns).unwrap(), &gfns[..SAME as usize]);
    assert_eq!((shared(&memory), memory.status(0).unwrap().pages.compressed), (u64::from(SAME), u64::from(SAME)));
    assert!(is_held(&memory, Frame(0)) && !is_held(&memory, Frame(SAME)));
    (0..2 * SAME).for_each(|page| assert!(read(&memory, page) == content(page, 1), "page {page}"));
    write(&memory, 0, &content(0, 3));
    wait_for(&memory, |counts| counts.shared == u64::from(SAME) - 1);
    assert!(read(&memory, 0) == content(0, 3) && !is_held(&memory, Frame(0)));
}
