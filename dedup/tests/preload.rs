//! What guests are about to load is published before they do.

#![allow(clippy::unwrap_used, reason = "a failure is a failed test")]

mod support;

use std::time::{Duration, Instant};

use control::merge::{MergeAnswer, MergeRequest};
use dedup::{Domain, VmmId};
use support::{FakeGuest, PAGE, content};
use wire::{Frame, Gfn, PageBytes};

const PAGES: u32 = 100;
const FIRST: VmmId = VmmId::first(0);
const SECOND: VmmId = VmmId::first(1);

/// Ten pages, and one that is like the fourth.
fn kernel() -> Vec<(Gfn, PageBytes)> {
    (0..10).map(|page| (Gfn(page), content(page.into()))).chain([(Gfn(20), content(3))]).collect()
}

fn domain() -> Domain {
    let domain = Domain::new(PAGES, 1).unwrap();
    [FIRST, SECOND].iter().for_each(|&vmm| domain.vmm_joined(vmm, PAGES).unwrap());
    domain
}

#[test]
fn what_guests_load_lies_at_home_from_the_start_and_once() {
    let domain = domain();
    domain.preload(FIRST, &kernel());
    domain.preload(SECOND, &kernel());
    let figures = domain.figures();
    assert_eq!((figures.frames_published, figures.published_total, figures.allocated_bytes), (10, 10, 10 * PAGE));
    let guest = FakeGuest::new(&domain, std::iter::empty());
    assert!((0..10).all(|page| guest.frame_bytes(Frame(page)) == content(page.into())));
}

#[test]
fn what_nobody_adopted_is_retired_once_all_have_loaded_and_not_before() {
    let (domain, start) = (domain(), Instant::now());
    let after = |seconds| start + Duration::from_secs(seconds);
    domain.preload(FIRST, &kernel());
    domain.preload(SECOND, &[]);
    domain.loaded(FIRST);
    domain.handle(FIRST, MergeRequest::Adopted((0..8).map(Frame).collect())).unwrap();
    assert_eq!((domain.sweep(after(0)), domain.sweep(after(60))), (vec![], vec![]));
    domain.vmm_gone(SECOND);
    assert_eq!(domain.sweep(after(61)), []);
    assert_eq!(domain.sweep(after(70)), [(FIRST, MergeAnswer::Retire(vec![Frame(8), Frame(9)]))]);
}

#[test]
fn no_more_is_published_than_there_is_room_for_and_nothing_outside_of_the_store_or_where_nothing_is_shared() {
    let domain = domain();
    domain.set_store_budget_bytes(4 * PAGE);
    domain.preload(FIRST, &[(Gfn(u32::MAX), content(100)), (Gfn(2 * PAGES), content(101))]);
    domain.preload(FIRST, &kernel());
    assert_eq!(domain.figures().frames_published, 4);
    let apart = Domain::zero_pages_only(PAGES).unwrap();
    apart.vmm_joined(FIRST, PAGES).unwrap();
    apart.preload(FIRST, &kernel());
    assert_eq!(apart.figures().frames_published, 0);
}
