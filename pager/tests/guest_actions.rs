//! Whatever a guest does with its pages and its balloon, in whatever order: it sees what it wrote, or what it
//! gave the page up for, and the page-state table's sums are the pages there are. On the real kernel; needs
//! the right to serve faults (root).

#![allow(clippy::unwrap_used, reason = "a helper that cannot do its part fails the test, as it should")]

mod support;

use std::ops::Range;

use pager::{GuestMemory, PAGE_BYTES, Run};
use proptest::prelude::*;
use support::{PAGES, content, fail, guest_with, read, wait_for, write};

/// Pages that the actions are about: few, so that they meet.
const ACTIVE: u32 = 24;
/// Room for all pages, and what the evictor keeps for itself.
const AMPLE: u64 = PAGES as u64 + 512;

#[derive(Clone, Debug)]
enum Action {
    Read(u32),
    Write(u32),
    Inflate(Range<u32>),
    Deflate(Range<u32>),
    Report(Range<u32>, u8),
    Watch,
    Hint(Range<u32>),
    Unwatch,
    DropZero,
}

fn any_range() -> impl Strategy<Value = Range<u32>> {
    // Some reach beyond what is active, some are empty, some leave RAM.
    prop_oneof![
        8 => (0..ACTIVE, 0u32..8).prop_map(|(start, pages)| start..start + pages),
        1 => (PAGES - 2..PAGES + 2, 0u32..4).prop_map(|(start, pages)| start..start + pages),
    ]
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (0..ACTIVE).prop_map(Action::Read),
        6 => (0..ACTIVE).prop_map(Action::Write),
        2 => any_range().prop_map(Action::Inflate),
        2 => any_range().prop_map(Action::Deflate),
        2 => (any_range(), 0u8..3).prop_map(|(range, fill)| Action::Report(range, fill)),
        2 => Just(Action::Watch),
        4 => any_range().prop_map(Action::Hint),
        1 => Just(Action::Unwatch),
        1 => Just(Action::DropZero),
    ]
}

/// What the guest must find in a page.
#[derive(Clone, Copy, Debug)]
struct Page {
    content: Content,
    /// Written to, or given up, since the last watch began: no hint may drop it.
    safe: bool,
    /// A hint may have dropped it.
    or_zero: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Content {
    Filled(u8),
    Version(u64),
}

fn bytes(page: u32, content_of: Content) -> [u8; PAGE_BYTES] {
    match content_of {
        Content::Filled(byte) => [byte; PAGE_BYTES],
        Content::Version(version) => content(page, version),
    }
}

fn check(memory: &GuestMemory, pages: &mut [Page], number: u32) {
    let page = &mut pages[number as usize];
    let seen = read(memory, number);
    if page.or_zero && seen == [0; PAGE_BYTES] {
        page.content = Content::Filled(0);
    }
    page.or_zero = false;
    assert!(seen == bytes(number, page.content), "page {number} is not {page:?}");
}

fn play(memory: &GuestMemory, actions: Vec<Action>) {
    let table = memory.pages();
    let all = Run::from_range(0..PAGES);
    let mut pages = [Page { content: Content::Filled(0), safe: true, or_zero: false }; ACTIVE as usize];
    let active = |range: &Range<u32>| range.start.min(ACTIVE) as usize..range.end.min(ACTIVE) as usize;
    for (version, action) in actions.into_iter().enumerate() {
        match action {
            Action::Read(page) => check(memory, &mut pages, page),
            Action::Write(page) => {
                let new = Content::Version(version as u64 + 1);
                write(memory, page, &bytes(page, new));
                pages[page as usize] = Page { content: new, safe: true, or_zero: false };
            }
            Action::Inflate(range) => {
                table.inflate(Run::from_range(range.clone())).unwrap();
                pages[active(&range)].fill(Page { content: Content::Filled(0), safe: true, or_zero: false });
            }
            Action::Deflate(range) => table.deflate(Run::from_range(range)),
            Action::Report(range, fill) => {
                table.report_free(Run::from_range(range.clone()), u32::from_ne_bytes([fill; 4])).unwrap();
                pages[active(&range)].fill(Page { content: Content::Filled(fill), safe: true, or_zero: false });
            }
            Action::Watch => {
                table.watch(all).unwrap();
                pages.iter_mut().for_each(|page| page.safe = false);
            }
            Action::Hint(range) => {
                table.drop_hinted(Run::from_range(range.clone()), 0).unwrap();
                pages[active(&range)].iter_mut().for_each(|page| page.or_zero |= !page.safe);
            }
            Action::Unwatch => {
                table.unwatch(all).unwrap();
                pages.iter_mut().for_each(|page| page.safe = true);
            }
            Action::DropZero => _ = table.drop_zero(all).unwrap(),
        }
        // Each sum is read by itself: a page that the evictor moves meanwhile is in none, or in two.
        wait_for(memory, |pages| {
            let backed = pages.private + pages.shared + pages.compressed + pages.swapped;
            backed + pages.zero + pages.ballooned == u64::from(PAGES)
        });
    }
    (0..ACTIVE).for_each(|page| check(memory, &mut pages, page));
    table.unwatch(all).unwrap();
    table.report_free(all, 0).unwrap();
    wait_for(memory, |pages| pages.zero == u64::from(PAGES));
}

#[test]
fn any_sequence_of_guest_actions_leaves_the_table_consistent() {
    let Some((_store, memory, _threads)) = guest_with(AMPLE, None, Box::new(fail)) else { return };
    proptest!(ProptestConfig::with_cases(300), |(actions in prop::collection::vec(any_action(), 1..80))| {
        play(&memory, actions);
    });
}
