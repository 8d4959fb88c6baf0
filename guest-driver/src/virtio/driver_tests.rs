use super::*;
use crate::allocator::{Allocator, Kind};
use crate::lock::Spinlock;
use crate::testing::TestRam;
use crate::virtio::balloon::{Balloon, Progress};
use crate::virtio::transport::fake::FakeBalloon;
use std::vec::Vec;
use wire::balloon::stat;

const PAGES: u32 = 4096;
const ALL: [u32; 7] =
    [F_VERSION_1, F_MUST_TELL_HOST, F_STATS_VQ, F_DEFLATE_ON_OOM, F_FREE_PAGE_HINT, F_PAGE_POISON, F_REPORTING];

/// A guest's balloon before a fake device.
struct Bench<'a> {
    balloon: Balloon<&'a FakeBalloon>,
    allocator: Spinlock<Option<Allocator>>,
    device: &'a FakeBalloon,
}

impl<'a> Bench<'a> {
    fn new(memory: &TestRam, device: &'a FakeBalloon, floor_pages: u32) -> Self {
        let mut allocator = Allocator::new(memory.ram(), 0).unwrap();
        let first = allocator.allocate_run(DRIVER_PAGES, Kind::Reserved).unwrap();
        let allocator = Spinlock::new(Some(allocator));
        let own = memory.ram().span(first, DRIVER_PAGES);
        let balloon = Balloon::start(device, own, &mut &allocator, floor_pages).unwrap();
        Bench { balloon, allocator, device }
    }

    fn settle(&mut self, now_ms: u64) -> Progress {
        self.balloon.interrupt(now_ms);
        (0..1000).map(|_| self.balloon.poll(&mut &self.allocator, now_ms)).find(|&p| p != Progress::Moving).unwrap()
    }

    fn count(&self, kind: Kind) -> u32 {
        self.allocator.lock().as_ref().unwrap().count(kind)
    }
}

#[test]
fn inflate_and_deflate_follow_the_request() {
    let memory = TestRam::new(PAGES);
    let device = FakeBalloon::new(memory.ram(), &ALL);
    let mut bench = Bench::new(&memory, &device, 0);
    for requested in [3000, 100, 1500, 0] {
        device.request(requested);
        assert_eq!(bench.settle(1), Progress::Settled);
        assert_eq!(device.state().ballooned.len() as u32, requested);
        assert_eq!(device.state().actual, requested);
        assert_eq!(bench.count(Kind::Ballooned), requested);
        // One contiguous piece at the top.
        assert!(device.state().ballooned.iter().copied().eq(PAGES - requested..PAGES));
    }
}

#[test]
fn inflation_is_refused_below_the_floor() {
    let memory = TestRam::new(PAGES);
    let device = FakeBalloon::new(memory.ram(), &ALL);
    let mut bench = Bench::new(&memory, &device, 1000);
    device.request(PAGES);
    assert_eq!(bench.settle(1), Progress::Refused);
    assert_eq!(device.state().actual, PAGES - 1000);
}

#[test]
fn anonymous_pages_are_never_given() {
    let memory = TestRam::new(PAGES);
    let device = FakeBalloon::new(memory.ram(), &ALL);
    let mut bench = Bench::new(&memory, &device, 0);
    let held = (0..3000).map_while(|_| bench.allocator.lock().as_mut().unwrap().allocate()).count() as u32;
    device.request(PAGES);
    assert_eq!(bench.settle(1), Progress::Refused);
    assert_eq!((held, bench.count(Kind::Anonymous), bench.count(Kind::Free)), (3000, 3000, 0));
}

#[test]
fn deflated_pages_stay_out_of_use_until_the_host_has_answered() {
    let memory = TestRam::new(PAGES);
    let device = FakeBalloon::new(memory.ram(), &ALL);
    let mut bench = Bench::new(&memory, &device, 0);
    device.request(500);
    bench.settle(1);
    device.state().hold = true;
    device.request(0);
    bench.balloon.interrupt(1);
    (0..10).for_each(|_| assert_eq!(bench.balloon.poll(&mut &bench.allocator, 1), Progress::Moving));
    assert_eq!(bench.count(Kind::Ballooned), 500);
    device.release();
    assert_eq!(bench.settle(1), Progress::Settled);
    assert_eq!(bench.count(Kind::Ballooned), 0);
}

#[test]
fn statistics_are_answered_when_the_device_asks() {
    let memory = TestRam::new(PAGES);
    let device = FakeBalloon::new(memory.ram(), &ALL);
    let mut bench = Bench::new(&memory, &device, 0);
    device.ask_for_statistics();
    bench.settle(1);
    let statistics = device.state().statistics.clone();
    let value = |tag| statistics.iter().find(|&&(t, _)| t == tag).map(|&(_, value)| value);
    assert_eq!(value(stat::MEMTOT), Some(u64::from(PAGES) * 4096));
    let free = bench.count(Kind::Free) + bench.count(Kind::Reporting);
    assert_eq!(value(stat::MEMFREE), Some(u64::from(free) * 4096));
    assert_eq!(value(stat::CACHES), Some(0));
}

#[test]
fn free_pages_are_reported_once_and_are_out_of_use_meanwhile() {
    let memory = TestRam::new(PAGES);
    let device = FakeBalloon::new(memory.ram(), &ALL);
    let mut bench = Bench::new(&memory, &device, 0);
    let free = bench.count(Kind::Free);
    device.state().hold = true;
    bench.balloon.poll(&mut &bench.allocator, 1000);
    assert_eq!(bench.count(Kind::Reporting), free / 2);
    device.release();
    for now_ms in (2000..20_000).step_by(100) {
        bench.balloon.poll(&mut &bench.allocator, now_ms);
    }
    let mut gfns: Vec<u32> = bench.device.state().reported.iter().cloned().flatten().collect();
    let reports = gfns.len();
    gfns.sort_unstable();
    gfns.dedup();
    assert_eq!(gfns.len(), reports, "a page was reported twice");
    assert!(free - reports as u32 <= REPORT_RANGES_MAX as u32 * 16, "{reports} of {free} reported");
    assert_eq!(bench.count(Kind::Free), free);
}

#[test]
fn relief_is_bounded_and_only_with_the_feature() {
    for (features, relieved) in [(&ALL[..], 256), (&[F_VERSION_1][..], 0)] {
        let memory = TestRam::new(PAGES);
        let device = FakeBalloon::new(memory.ram(), features);
        let mut bench = Bench::new(&memory, &device, 0);
        device.request(2000);
        bench.settle(1);
        bench.balloon.relieve(&mut &bench.allocator, 1);
        bench.settle(1);
        assert_eq!(device.state().actual, 2000 - relieved);
    }
}

#[test]
fn a_device_without_version_1_or_with_second_thoughts_is_given_up() {
    let memory = TestRam::new(PAGES);
    let span = memory.ram().span(1, DRIVER_PAGES);
    let old = FakeBalloon::new(memory.ram(), &[F_STATS_VQ]);
    assert_eq!(Driver::start(&old, span, Options::default()).err(), Some(Error::Features));
    let fickle = FakeBalloon::new(memory.ram(), &ALL);
    fickle.state().refuse_features = true;
    assert_eq!(Driver::start(&fickle, span, Options::default()).err(), Some(Error::Features));
    assert!(fickle.state().status & STATUS_FAILED != 0);
}

#[test]
fn a_round_of_hinting_names_all_that_is_free_and_gives_it_back_at_the_end() {
    let memory = TestRam::new(PAGES);
    let device = FakeBalloon::new(memory.ram(), &ALL);
    let mut bench = Bench::new(&memory, &device, 0);
    let free = bench.count(Kind::Free);
    for round in 2..5 {
        device.command_hints(round);
        bench.balloon.interrupt(0);
        (0..1000).for_each(|_| _ = bench.balloon.poll(&mut &bench.allocator, 0));
        let hints = std::mem::take(&mut device.state().hints);
        assert_eq!(hints, [(round, bench.count(Kind::Hinted)), (0, 0)]);
        assert!(bench.count(Kind::Hinted) + 16 > free, "{} of {free} pages named", bench.count(Kind::Hinted));
        device.command_hints(1);
        bench.settle(0);
        assert_eq!((bench.count(Kind::Hinted), bench.count(Kind::Free)), (0, free));
    }
}

#[test]
fn hinted_pages_are_there_when_nothing_else_is() {
    let memory = TestRam::new(PAGES);
    let device = FakeBalloon::new(memory.ram(), &ALL);
    let mut bench = Bench::new(&memory, &device, 0);
    let free = bench.count(Kind::Free);
    device.command_hints(2);
    bench.balloon.interrupt(0);
    (0..1000).for_each(|_| _ = bench.balloon.poll(&mut &bench.allocator, 0));
    let allocated = (0..free).map_while(|_| bench.allocator.lock().as_mut().unwrap().allocate()).count() as u32;
    assert_eq!((allocated, bench.count(Kind::Hinted)), (free, 0));
    device.command_hints(1);
    bench.settle(0);
    assert_eq!(bench.count(Kind::Anonymous), free, "what is in use is not freed");
}

#[test]
fn a_round_that_the_host_stops_is_ended_and_its_pages_are_kept_for_the_next() {
    let memory = TestRam::new(PAGES);
    let device = FakeBalloon::new(memory.ram(), &ALL);
    let mut bench = Bench::new(&memory, &device, 0);
    device.command_hints(2);
    bench.balloon.interrupt(0);
    bench.balloon.poll(&mut &bench.allocator, 0);
    let named = bench.count(Kind::Hinted);
    assert!(named > 0);
    device.command_hints(0);
    bench.balloon.interrupt(0);
    (0..100).for_each(|_| _ = bench.balloon.poll(&mut &bench.allocator, 0));
    assert_eq!(device.state().hints, [(2, named), (0, 0)]);
    assert_eq!(bench.count(Kind::Hinted), named);
    device.command_hints(3);
    bench.balloon.interrupt(0);
    (0..100).for_each(|_| _ = bench.balloon.poll(&mut &bench.allocator, 0));
    device.command_hints(1);
    bench.settle(0);
    assert_eq!(bench.count(Kind::Hinted), 0);
}

#[test]
fn the_poison_value_is_said_before_the_start_by_those_who_have_one() {
    let memory = TestRam::new(PAGES);
    let span = memory.ram().span(1, DRIVER_PAGES);
    let options = Options { poison: Some(0xaaaa_aaaa) };
    let device = FakeBalloon::new(memory.ram(), &ALL);
    let driver = Driver::start(&device, span, options).unwrap();
    assert!(driver.has(F_PAGE_POISON) && driver.has(F_REPORTING));
    assert_eq!(device.state().poison, Some(0xaaaa_aaaa));

    let device = FakeBalloon::new(memory.ram(), &ALL);
    assert!(!Driver::start(&device, span, Options::default()).unwrap().has(F_PAGE_POISON));
    assert_eq!(device.state().poison, None);

    let forgetful = FakeBalloon::new(memory.ram(), &[F_VERSION_1, F_REPORTING, F_FREE_PAGE_HINT]);
    let driver = Driver::start(&forgetful, span, options).unwrap();
    assert!(!driver.has(F_REPORTING) && !driver.has(F_FREE_PAGE_HINT), "pages would come back without their poison");
}
