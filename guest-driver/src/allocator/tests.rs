use super::*;
use crate::testing::TestRam;
use crate::virtio::balloon::REPORT_RUN_MIN;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::vec::Vec;

const PAGES: u32 = 300;

/// One thing that can happen to an allocator.
#[derive(Clone, Debug)]
enum Event {
    Allocate,
    AllocateClean,
    AllocateRun(u32),
    Free(usize),
    Inflate(usize, u32),
    Deflate(usize),
    Report(usize),
    Unpin(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Allocate),
        4 => Just(Event::AllocateClean),
        1 => (1..40u32).prop_map(Event::AllocateRun),
        4 => (0..PAGES as usize).prop_map(Event::Free),
        1 => (1..100usize, 0..PAGES).prop_map(|(count, floor)| Event::Inflate(count, floor)),
        1 => (1..100usize).prop_map(Event::Deflate),
        1 => (1..5usize).prop_map(Event::Report),
        4 => (0..PAGES as usize).prop_map(Event::Unpin),
    ]
}

/// What the outside believes about pages handed out.
#[derive(Default)]
struct Model(BTreeMap<u32, (Kind, u32, bool)>);

impl Model {
    fn hand_out(&mut self, gfn: u32, kind: Kind, key: u32, pinned: bool) {
        // A clean page that is not pinned may vanish; anything else must not be handed out again.
        let before = self.0.insert(gfn, (kind, key, pinned));
        assert!(matches!(before, None | Some((Kind::Clean, _, false))), "page {gfn} was {before:?}");
    }

    fn nth(&self, n: usize, wanted: impl Fn(&(Kind, u32, bool)) -> bool) -> Option<u32> {
        let all: Vec<u32> = self.0.iter().filter(|(_, page)| wanted(page)).map(|(&gfn, _)| gfn).collect();
        all.get(n % all.len().max(1)).copied()
    }
}

proptest! {
    #[test]
    fn no_page_is_handed_out_twice_and_counts_add_up(events in prop::collection::vec(event(), 1..600)) {
        let memory = TestRam::new(PAGES);
        let mut all = Allocator::new(memory.ram(), 0).unwrap();
        let (mut model, mut key) = (Model::default(), 0);
        for event in events {
            match event {
                Event::Allocate => if let Some(gfn) = all.allocate() {
                    model.hand_out(gfn, Kind::Anonymous, 0, false);
                },
                Event::AllocateClean => {
                    key += 1;
                    if let Some(gfn) = all.allocate_clean(key) {
                        model.hand_out(gfn, Kind::Clean, key, true);
                    }
                }
                Event::AllocateRun(pages) => if let Some(first) = all.allocate_run(pages, Kind::Anonymous) {
                    (first..first + pages).for_each(|gfn| model.hand_out(gfn, Kind::Anonymous, 0, false));
                },
                Event::Free(n) => if let Some(gfn) = model.nth(n, |page| page.0 == Kind::Anonymous) {
                    all.free(gfn);
                    model.0.remove(&gfn);
                },
                Event::Unpin(n) => if let Some(gfn) = model.nth(n, |page| page.2) {
                    let (_, key, _) = model.0[&gfn];
                    prop_assert!(all.pin(gfn, key) || all.kind(gfn) == Kind::Clean);
                    all.unpin(gfn);
                    model.0.insert(gfn, (Kind::Clean, key, false));
                },
                Event::Inflate(count, floor) => {
                    let mut gfns = [0; 100];
                    let taken = all.take_for_balloon(floor, &mut gfns[..count]);
                    gfns[..taken].iter().for_each(|&gfn| model.hand_out(gfn, Kind::Ballooned, 0, false));
                    prop_assert!(taken == 0 || PAGES - all.count(Kind::Ballooned) >= floor);
                }
                Event::Deflate(count) => {
                    let mut gfns = [0; 100];
                    let picked = all.pick_ballooned(&mut gfns[..count]);
                    for &gfn in &gfns[..picked] {
                        prop_assert_eq!(model.0.remove(&gfn).map(|page| page.0), Some(Kind::Ballooned));
                        all.return_ballooned(gfn);
                    }
                }
                Event::Report(count) => {
                    let mut ranges = [const { 0..0 }; 5];
                    let taken = all.take_for_report(PAGES, &mut ranges[..count]);
                    for range in &ranges[..taken] {
                        prop_assert!(range.len() as u32 >= REPORT_RUN_MIN);
                        // While its report is under way, nobody gets a page of it.
                        prop_assert!(range.clone().all(|gfn| all.kind(gfn) == Kind::Reporting));
                    }
                    ranges[..taken].iter().for_each(|range| all.report_done(range.clone()));
                }
            }
            let total: u32 = KINDS.iter().map(|&kind| all.count(kind)).sum();
            prop_assert_eq!(total, PAGES);
            for kind in KINDS {
                let found = (0..PAGES).filter(|&gfn| all.kind(gfn) == kind).count() as u32;
                prop_assert_eq!(found, all.count(kind), "{:?}", kind);
            }
            // Whatever vanished was clean and not pinned.
            for (&gfn, &(kind, key, pinned)) in &model.0 {
                if kind != Kind::Clean || pinned {
                    prop_assert_eq!(all.kind(gfn), kind, "page {} key {}", gfn, key);
                }
            }
        }
    }
}

#[test]
fn allocations_come_from_the_bottom_and_the_balloon_from_the_top() {
    let memory = TestRam::new(PAGES);
    let mut all = Allocator::new(memory.ram(), 0).unwrap();
    let first = all.allocate().unwrap();
    assert_eq!(all.allocate(), Some(first + 1));
    let mut gfns = [0; 3];
    assert_eq!(all.take_for_balloon(0, &mut gfns), 3);
    assert_eq!(gfns, [PAGES - 1, PAGES - 2, PAGES - 3]);
}

#[test]
fn every_page_but_the_first_and_the_books_can_be_had() {
    let memory = TestRam::new(PAGES);
    let mut all = Allocator::new(memory.ram(), 0).unwrap();
    let free = all.count(Kind::Free);
    assert_eq!((0..).map_while(|_| all.allocate()).count() as u32, free);
    assert_eq!(free, PAGES - 1 - 3);
    assert_eq!(all.failures, 1);
}

#[test]
fn the_balloon_drops_clean_pages_when_nothing_is_free_but_not_pinned_ones() {
    let memory = TestRam::new(PAGES);
    let mut all = Allocator::new(memory.ram(), 0).unwrap();
    let pages: Vec<u32> = (0..all.count(Kind::Free)).map_while(|key| all.allocate_clean(key)).collect();
    assert_eq!(all.take_for_balloon(0, &mut [0; 10]), 0);
    all.unpin(pages[7]);
    let mut gfns = [0; 10];
    assert_eq!(all.take_for_balloon(0, &mut gfns), 1);
    assert_eq!(gfns[0], pages[7]);
    assert!(!all.pin(pages[7], 7));
    assert_eq!(all.clean_drops, 1);
}

#[test]
fn a_reported_page_is_not_reported_again_until_it_was_used() {
    let memory = TestRam::new(PAGES);
    let mut all = Allocator::new(memory.ram(), 0).unwrap();
    let mut ranges = [const { 0..0 }; 8];
    let taken = all.take_for_report(PAGES, &mut ranges);
    assert_eq!(taken, 1);
    all.report_done(ranges[0].clone());
    assert_eq!((0..3).map(|_| all.take_for_report(PAGES, &mut ranges)).sum::<usize>(), 0);
    let run = all.allocate_run(REPORT_RUN_MIN, Kind::Anonymous).unwrap();
    (run..run + REPORT_RUN_MIN).for_each(|gfn| all.free(gfn));
    assert_eq!((0..3).map(|_| all.take_for_report(PAGES, &mut ranges)).sum::<usize>(), 1);
}
