//! A driver that keeps the rules gets what the specification promises.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod driver;

use std::ops::Range;

use balloon::{Balloon, BalloonQueue, CHAINS_PER_TURN, FEATURES, NUMBERS_PER_CHAIN_MAX, PageSink};
use driver::{DATA, Driver, RAM_FRAMES, Recorder, Told, USED, WRITE, memory, read, write};
use vm_memory::GuestMemoryMmap;

fn statistics(entries: &[(u16, u64)]) -> Vec<u8> {
    entries.iter().flat_map(|(tag, value)| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()).collect()
}

#[test]
fn page_numbers_reach_the_sink_as_sorted_ranges() {
    let sink = Recorder::shared();
    let balloon = Balloon::new(RAM_FRAMES, sink.clone());
    let mut driver = Driver::new(memory());
    let head = driver.offer_numbers(&[9, 8, 7, 100, 3, 101, 7, 102, RAM_FRAMES - 1]);

    let progress = balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory).unwrap();

    assert!(progress.used && !progress.more && progress.refused.is_none());
    assert_eq!(driver.take_used(), [head]);
    let expected = [(3, 4), (7, 10), (100, 103), (RAM_FRAMES - 1, RAM_FRAMES)];
    assert_eq!(sink.take(), expected.map(|(start, end)| Told::Inflate(start, end)));
    assert_eq!(balloon.status().inflated_pages_total, 8);

    driver.offer_numbers(&[100, 101]);
    balloon.process(BalloonQueue::Deflate, &mut driver.queue, &driver.memory).unwrap();
    assert_eq!(sink.take(), [Told::Deflate(100, 102)]);
    assert_eq!(balloon.status().deflated_pages_total, 2);
}

#[test]
fn a_number_may_be_cut_in_two_by_a_buffer_border() {
    let sink = Recorder::shared();
    let balloon = Balloon::new(RAM_FRAMES, sink.clone());
    let mut driver = Driver::new(memory());
    let bytes: Vec<u8> = [0x0102u32, 0x0304].iter().flat_map(|number| number.to_le_bytes()).collect();
    write(&driver.memory, DATA, &bytes[..1]);
    write(&driver.memory, DATA + 0x1000, &bytes[1..]);
    driver.offer(&[(DATA, 1, 0), (DATA + 0x1000, 7, 0)]);

    balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory).unwrap();

    assert_eq!(sink.take(), [Told::Inflate(0x0102, 0x0103), Told::Inflate(0x0304, 0x0305)]);
}

#[test]
fn a_request_of_many_batches_is_served_whole() {
    let sink = Recorder::shared();
    let balloon = Balloon::new(RAM_FRAMES, sink.clone());
    let mut driver = Driver::new(memory());
    let numbers: Vec<u32> = (0..NUMBERS_PER_CHAIN_MAX as u32).map(|nth| nth % RAM_FRAMES).collect();
    driver.offer_numbers(&numbers);

    let progress = balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory).unwrap();

    assert!(progress.used && progress.more && progress.refused.is_none(), "the turn's numbers are used up");
    assert!(sink.take().iter().all(|told| *told == Told::Inflate(0, RAM_FRAMES)));
    assert!(!balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory).unwrap().more);
}

#[test]
fn buffers_come_back_after_the_sink_has_seen_them() {
    struct Witness(GuestMemoryMmap<()>);
    impl Witness {
        fn nothing_is_used_yet(&self) {
            assert_eq!(read(&self.0, USED + 2), [0, 0]);
        }
    }
    impl PageSink for Witness {
        fn inflate(&self, _: Range<u32>) {
            self.nothing_is_used_yet();
        }
        fn deflate(&self, _: Range<u32>) {
            self.nothing_is_used_yet();
        }
        fn report_free(&self, _: Range<u32>) {
            self.nothing_is_used_yet();
        }
    }

    for which in [BalloonQueue::Inflate, BalloonQueue::Deflate, BalloonQueue::Reporting] {
        let mut driver = Driver::new(memory());
        let balloon = Balloon::new(RAM_FRAMES, Witness(driver.memory.clone()));
        let flags = if which == BalloonQueue::Reporting { WRITE } else { 0 };
        driver.offer(&[(DATA, 4096, flags)]);
        balloon.process(which, &mut driver.queue, &driver.memory).unwrap();
        let status = balloon.status();
        let pages = status.inflated_pages_total + status.deflated_pages_total + status.reported_pages_total;
        assert_eq!((driver.take_used().len(), pages), (1, 1), "{which:?}");
    }
}

#[test]
fn a_full_queue_takes_several_turns() {
    let balloon = Balloon::new(RAM_FRAMES, Recorder::shared());
    let mut driver = Driver::new(memory());
    for _ in 0..CHAINS_PER_TURN + 10 {
        driver.offer_numbers(&[5]);
    }

    assert!(balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory).unwrap().more);
    assert_eq!(driver.take_used().len(), CHAINS_PER_TURN);
    assert!(!balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory).unwrap().more);
    assert_eq!(driver.take_used().len(), 10);
}

#[test]
fn reported_memory_is_merged_and_never_written() {
    let sink = Recorder::shared();
    let balloon = Balloon::new(RAM_FRAMES, sink.clone());
    let mut driver = Driver::new(memory());
    write(&driver.memory, DATA, &[0xa5; 0x4000]);
    driver.offer(&[(DATA + 0x2000, 0x2000, WRITE), (DATA, 0x2000, WRITE)]);

    balloon.process(BalloonQueue::Reporting, &mut driver.queue, &driver.memory).unwrap();

    let first = (DATA / 4096) as u32;
    assert_eq!(sink.take(), [Told::Free(first, first + 4)]);
    assert_eq!(read::<0x4000>(&driver.memory, DATA), [0xa5; 0x4000]);
    assert_eq!(balloon.status().reported_pages_total, 4);
}

#[test]
fn statistics_come_when_asked_for() {
    let balloon = Balloon::new(RAM_FRAMES, Recorder::shared());
    let mut driver = Driver::new(memory());
    let process =
        |driver: &mut Driver| balloon.process(BalloonQueue::Statistics, &mut driver.queue, &driver.memory).unwrap();

    // The first buffer says nothing, and stays.
    write(&driver.memory, DATA, &statistics(&[(4, 77)]));
    let head = driver.offer(&[(DATA, 10, 0)]);
    assert!(!process(&mut driver).used);
    assert!(!process(&mut driver).used);
    assert_eq!(balloon.status().statistics, []);

    // It goes back as a request, once.
    balloon.request_statistics();
    assert!(process(&mut driver).used);
    assert!(!process(&mut driver).used);
    assert_eq!(driver.take_used(), [head]);

    // What comes is kept by tag, known or not, in any order.
    write(&driver.memory, DATA, &statistics(&[(0xbeef, 1), (5, 2), (4, 3), (5, 4)]));
    driver.offer(&[(DATA, 40, 0)]);
    assert!(!process(&mut driver).used);
    assert_eq!(balloon.status().statistics, [(4, 3), (5, 4), (0xbeef, 1)]);

    // A statistic that is no longer reported is absent, not stale.
    balloon.request_statistics();
    process(&mut driver);
    driver.offer(&[(DATA, 10, 0)]);
    process(&mut driver);
    assert_eq!(balloon.status().statistics, [(0xbeef, 1)]);
    assert_eq!(balloon.status().rejected_total, 0);
}

#[test]
fn the_configuration_space_shows_the_wish_and_takes_the_answer() {
    let balloon = Balloon::new(RAM_FRAMES, Recorder::shared());
    assert!(balloon.set_requested_pages(300));
    assert!(!balloon.set_requested_pages(300));
    let mut config = [0xff; 20];
    balloon.read_config(0, &mut config);
    assert_eq!(config[..4], 300u32.to_le_bytes());
    assert_eq!(config[4..], [0; 16]);

    balloon.write_config(4, &299u32.to_le_bytes());
    assert_eq!(balloon.status().actual_pages, 299);
    assert_eq!(balloon.status().rejected_total, 0);
}

#[test]
fn a_reset_forgets_the_driver_and_keeps_the_wish() {
    let balloon = Balloon::new(RAM_FRAMES, Recorder::shared());
    let mut driver = Driver::new(memory());
    balloon.set_features(FEATURES);
    balloon.set_driver_ok();
    balloon.set_requested_pages(10);
    balloon.write_config(4, &10u32.to_le_bytes());
    driver.offer(&[(DATA, 0, 0)]);
    balloon.process(BalloonQueue::Statistics, &mut driver.queue, &driver.memory).unwrap();

    balloon.reset();

    let status = balloon.status();
    assert_eq!((status.requested_pages, status.actual_pages, status.driver_ok), (10, 0, false));
    assert_eq!(balloon.queue_at(2), None);
    balloon.request_statistics();
    assert!(!balloon.process(BalloonQueue::Statistics, &mut driver.queue, &driver.memory).unwrap().used);
}
