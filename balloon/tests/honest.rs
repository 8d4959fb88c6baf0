//! A driver that keeps the rules gets what the specification promises.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod driver;

use std::ops::Range;
use std::sync::Arc;

use balloon::{Balloon, BalloonQueue, CHAINS_PER_TURN, FEATURES, NUMBERS_PER_CHAIN_MAX, PageSink};
use chains::driver::{DATA, Driver, USED_RING, WRITE};
use driver::{BalloonDriver, RAM_FRAMES, Recorder, Told};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

fn statistics(entries: &[(u16, u64)]) -> Vec<u8> {
    entries.iter().flat_map(|(tag, value)| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()).collect()
}

#[test]
fn page_numbers_reach_the_sink_as_sorted_ranges() {
    let sink = Recorder::shared();
    let balloon = Balloon::new(RAM_FRAMES, sink.clone());
    let mut driver = Driver::new();
    let head = driver.offer_numbers(&[9, 8, 7, 100, 3, 101, 7, 102, RAM_FRAMES - 1]);

    let progress = balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory).unwrap();

    assert!(progress.used && !progress.more && progress.refused.is_none());
    assert_eq!(driver.take_heads(), [head]);
    let expected = [(3, 4), (7, 10), (100, 103), (RAM_FRAMES - 1, RAM_FRAMES)];
    assert_eq!(sink.take(), expected.map(|(start, end)| Told::Inflate(start, end)));
    assert_eq!(balloon.status().counts.inflated_pages, 8);

    driver.offer_numbers(&[100, 101]);
    balloon.process(BalloonQueue::Deflate, &mut driver.queue, &driver.memory).unwrap();
    assert_eq!(sink.take(), [Told::Deflate(100, 102)]);
    assert_eq!(balloon.status().counts.deflated_pages, 2);
}

#[test]
fn a_number_may_be_cut_in_two_by_a_buffer_border() {
    let sink = Recorder::shared();
    let balloon = Balloon::new(RAM_FRAMES, sink.clone());
    let mut driver = Driver::new();
    let bytes: Vec<u8> = [0x0102u32, 0x0304].iter().flat_map(|number| number.to_le_bytes()).collect();
    driver.write(DATA, &bytes[..1]);
    driver.write(DATA + 0x1000, &bytes[1..]);
    driver.offer(&[(DATA, 1, 0), (DATA + 0x1000, 7, 0)]);

    balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory).unwrap();

    assert_eq!(sink.take(), [Told::Inflate(0x0102, 0x0103), Told::Inflate(0x0304, 0x0305)]);
}

#[test]
fn a_request_of_many_batches_is_served_whole() {
    let sink = Recorder::shared();
    let balloon = Balloon::new(RAM_FRAMES, sink.clone());
    let mut driver = Driver::new();
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
            assert_eq!(self.0.read_obj::<u16>(GuestAddress(USED_RING.start + 2)).unwrap(), 0);
        }
    }
    impl PageSink for Witness {
        fn inflate(&self, _: Range<u32>) {
            self.nothing_is_used_yet();
        }
        fn deflate(&self, _: Range<u32>) {
            self.nothing_is_used_yet();
        }
        fn report_free(&self, _: Range<u32>, _: u32) {
            self.nothing_is_used_yet();
        }
        fn watch(&self) {}
        fn drop_hinted(&self, _: Range<u32>, _: u32) -> u32 {
            self.nothing_is_used_yet();
            0
        }
        fn unwatch(&self) {}
    }

    for which in [BalloonQueue::Inflate, BalloonQueue::Deflate, BalloonQueue::Reporting] {
        let mut driver = Driver::new();
        let balloon = Balloon::new(RAM_FRAMES, Witness(driver.memory.clone()));
        let flags = if which == BalloonQueue::Reporting { WRITE } else { 0 };
        driver.offer(&[(DATA, 4096, flags)]);
        balloon.process(which, &mut driver.queue, &driver.memory).unwrap();
        let status = balloon.status();
        let pages = status.counts.inflated_pages + status.counts.deflated_pages + status.counts.reported_pages;
        assert_eq!((driver.take_heads().len(), pages), (1, 1), "{which:?}");
    }
}

#[test]
fn a_full_queue_takes_several_turns() {
    let balloon = Balloon::new(RAM_FRAMES, Recorder::shared());
    let mut driver = Driver::new();
    for _ in 0..CHAINS_PER_TURN + 10 {
        driver.offer_numbers(&[5]);
    }

    assert!(balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory).unwrap().more);
    assert_eq!(driver.take_heads().len(), CHAINS_PER_TURN);
    assert!(!balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory).unwrap().more);
    assert_eq!(driver.take_heads().len(), 10);
}

#[test]
fn reported_memory_is_merged_and_never_written() {
    let sink = Recorder::shared();
    let balloon = Balloon::new(RAM_FRAMES, sink.clone());
    let mut driver = Driver::new();
    driver.write(DATA, &[0xa5; 0x4000]);
    driver.offer(&[(DATA + 0x2000, 0x2000, WRITE), (DATA, 0x2000, WRITE)]);

    balloon.process(BalloonQueue::Reporting, &mut driver.queue, &driver.memory).unwrap();

    let first = (DATA / 4096) as u32;
    assert_eq!(sink.take(), [Told::Free(first, first + 4)]);
    assert_eq!(driver.read(DATA, 0x4000), [0xa5; 0x4000]);
    assert_eq!(balloon.status().counts.reported_pages, 4);
}

#[test]
fn statistics_come_when_asked_for() {
    let balloon = Balloon::new(RAM_FRAMES, Recorder::shared());
    let mut driver = Driver::new();
    let process =
        |driver: &mut Driver| balloon.process(BalloonQueue::Statistics, &mut driver.queue, &driver.memory).unwrap();

    // The first buffer says nothing, and stays.
    driver.write(DATA, &statistics(&[(4, 77)]));
    let head = driver.offer(&[(DATA, 10, 0)]);
    assert!(!process(&mut driver).used);
    assert!(!process(&mut driver).used);
    assert_eq!(balloon.status().statistics, []);

    // It goes back as a request, once.
    driver::ask_for_statistics(&balloon);
    assert!(process(&mut driver).used);
    assert!(!process(&mut driver).used);
    assert_eq!(driver.take_heads(), [head]);

    // What comes is kept by tag, known or not, in any order.
    driver.write(DATA, &statistics(&[(0xbeef, 1), (5, 2), (4, 3), (5, 4)]));
    driver.offer(&[(DATA, 40, 0)]);
    assert!(!process(&mut driver).used);
    assert_eq!(balloon.status().statistics, [(4, 3), (5, 4), (0xbeef, 1)]);

    // A statistic that is no longer reported is absent, not stale.
    driver::ask_for_statistics(&balloon);
    process(&mut driver);
    driver.offer(&[(DATA, 10, 0)]);
    process(&mut driver);
    assert_eq!(balloon.status().statistics, [(0xbeef, 1)]);
    assert_eq!(balloon.status().counts.rejected, 0);
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
    assert_eq!(balloon.status().counts.rejected, 0);
}

#[test]
fn a_reset_forgets_the_driver_and_keeps_the_wish() {
    let balloon = Balloon::new(RAM_FRAMES, Recorder::shared());
    let mut driver = Driver::new();
    balloon.set_features(FEATURES);
    balloon.set_driver_ok(&[0, 1, 2, 3, 4]);
    balloon.set_requested_pages(10);
    balloon.write_config(4, &10u32.to_le_bytes());
    driver.offer(&[(DATA, 0, 0)]);
    balloon.process(BalloonQueue::Statistics, &mut driver.queue, &driver.memory).unwrap();

    balloon.reset();

    let status = balloon.status();
    assert_eq!((status.requested_pages, status.actual_pages, status.driver_ok), (10, 0, false));
    assert_eq!(balloon.queue_at(2), None);
    driver::ask_for_statistics(&balloon);
    assert!(!balloon.process(BalloonQueue::Statistics, &mut driver.queue, &driver.memory).unwrap().used);
}

const COMMAND: u64 = DATA + 0x8000;

/// A device with all features, a driver that has started, and the hinting queue.
fn hinting() -> (Balloon<Arc<Recorder>>, Arc<Recorder>, Driver) {
    let sink = Recorder::shared();
    let balloon = Balloon::new(RAM_FRAMES, sink.clone());
    balloon.set_features(FEATURES);
    balloon.set_driver_ok(&[0, 1, 2, 3, 4]);
    (balloon, sink, Driver::new())
}

fn command_id(balloon: &Balloon<Arc<Recorder>>) -> u32 {
    let mut id = [0; 4];
    balloon.read_config(8, &mut id);
    u32::from_le_bytes(id)
}

/// Sends a command id, then one buffer of pages for each range, and serves them. Whether the driver is to be
/// told of the configuration.
fn send_hints(balloon: &Balloon<Arc<Recorder>>, driver: &mut Driver, id: Option<u32>, pages: &[(u64, u64)]) -> bool {
    if let Some(id) = id {
        driver.write(COMMAND, &id.to_le_bytes());
        driver.offer(&[(COMMAND, 4, 0)]);
    }
    for (start, end) in pages {
        driver.offer(&[(start * 4096, ((end - start) * 4096) as u32, WRITE)]);
    }
    let progress = balloon.process(BalloonQueue::Hinting, &mut driver.queue, &driver.memory).unwrap();
    assert!(progress.used && progress.refused.is_none());
    driver.take_heads();
    progress.config_changed
}

#[test]
fn a_round_of_hinting_drops_what_is_named_in_it_and_ends_with_done() {
    let (balloon, sink, mut driver) = hinting();
    assert_eq!(command_id(&balloon), 0);
    balloon.begin_hinting().unwrap();
    assert_eq!((sink.take(), command_id(&balloon)), (vec![Told::Watch], 0), "watched before the driver can know");
    assert!(balloon.announce_hinting());
    assert_eq!(command_id(&balloon), 2);

    assert!(!send_hints(&balloon, &mut driver, Some(2), &[(512, 1024), (16, 32)]));
    assert_eq!(sink.take(), [Told::Hint(512, 1024), Told::Hint(16, 32)]);

    assert!(send_hints(&balloon, &mut driver, Some(0), &[]), "the driver learns that it may have its pages back");
    assert_eq!((sink.take(), command_id(&balloon)), (vec![Told::Unwatch], 1));
    let counts = balloon.status().counts;
    assert_eq!((counts.hinted_pages, counts.hint_dropped_pages, counts.hint_rounds), (528, 528, 1));

    balloon.begin_hinting().unwrap();
    assert!(balloon.announce_hinting());
    assert_eq!(command_id(&balloon), 3, "no command id is used twice");
}

#[test]
fn hints_without_the_current_command_id_are_ignored() {
    let (balloon, sink, mut driver) = hinting();
    send_hints(&balloon, &mut driver, None, &[(16, 32)]);
    balloon.begin_hinting().unwrap();
    balloon.announce_hinting();
    send_hints(&balloon, &mut driver, None, &[(16, 32)]);
    send_hints(&balloon, &mut driver, Some(7), &[(16, 32)]);
    send_hints(&balloon, &mut driver, Some(0), &[(16, 32)]);
    assert_eq!((sink.take(), balloon.status().counts.hint_ignored_pages), (vec![Told::Watch], 64));

    send_hints(&balloon, &mut driver, Some(2), &[]);
    balloon.end_hinting();
    send_hints(&balloon, &mut driver, None, &[(16, 32)]);
    assert!(balloon.announce_done());
    assert_eq!((sink.take(), command_id(&balloon)), (vec![Told::Unwatch], 1));
    assert_eq!(balloon.status().counts.hint_ignored_pages, 80);
}

#[test]
fn command_and_pages_may_share_a_chain() {
    let (balloon, sink, mut driver) = hinting();
    balloon.begin_hinting().unwrap();
    balloon.announce_hinting();
    driver.write(COMMAND, &2u32.to_le_bytes());
    driver.offer(&[(COMMAND, 1, 0), (COMMAND + 1, 3, 0), (0x10000, 0x4000, WRITE)]);
    let progress = balloon.process(BalloonQueue::Hinting, &mut driver.queue, &driver.memory).unwrap();
    assert!(progress.refused.is_none());
    assert_eq!(sink.take(), [Told::Watch, Told::Hint(16, 20)]);
}

#[test]
fn a_reset_ends_hinting_and_the_next_driver_gets_another_number() {
    let (balloon, sink, mut driver) = hinting();
    balloon.begin_hinting().unwrap();
    balloon.announce_hinting();
    send_hints(&balloon, &mut driver, Some(2), &[]);
    balloon.reset();
    assert!(balloon.begin_hinting().is_err(), "nobody is there to hint");
    balloon.set_features(FEATURES);
    balloon.set_driver_ok(&[0, 1, 2, 3, 4]);
    assert_eq!(command_id(&balloon), 0);
    send_hints(&balloon, &mut driver, None, &[(16, 32)]);
    assert_eq!(sink.take(), [Told::Watch]);
    balloon.begin_hinting().unwrap();
    assert!(balloon.announce_hinting());
    assert_eq!(command_id(&balloon), 3);
}

#[test]
fn dropped_pages_come_back_with_the_poison_value_once_it_is_agreed_on() {
    const POISON: u32 = 0xaaaa_aaaa;
    let (balloon, sink, mut driver) = hinting();
    balloon.reset();
    balloon.write_config(12, &POISON.to_le_bytes());
    assert_eq!(balloon.status().counts.rejected, 1, "not agreed on yet");
    balloon.set_features(FEATURES);
    balloon.write_config(12, &POISON.to_le_bytes());
    balloon.set_driver_ok(&[0, 1, 2, 3, 4]);
    balloon.write_config(12, &[0; 4]);
    assert_eq!((balloon.status().poison, balloon.status().counts.rejected), (Some(POISON), 2), "settled at DRIVER_OK");

    driver.offer(&[(0x10000, 0x4000, WRITE)]);
    balloon.process(BalloonQueue::Reporting, &mut driver.queue, &driver.memory).unwrap();
    balloon.begin_hinting().unwrap();
    balloon.announce_hinting();
    send_hints(&balloon, &mut driver, Some(2), &[(16, 20)]);
    assert_eq!(sink.take_fills(), [POISON, POISON]);

    balloon.reset();
    balloon.set_features(FEATURES & !(1 << wire::balloon::F_PAGE_POISON));
    balloon.set_driver_ok(&[0, 1, 2, 3, 4]);
    driver.offer(&[(0x10000, 0x4000, WRITE)]);
    balloon.process(BalloonQueue::Reporting, &mut driver.queue, &driver.memory).unwrap();
    assert_eq!((sink.take_fills(), balloon.status().poison), (vec![0], None));
}

#[test]
fn statistics_are_asked_for_as_often_as_wished_at_the_moment() {
    let balloon = Balloon::new(RAM_FRAMES, Recorder::shared());
    let mut driver = Driver::new();
    let mut answers = |now_ms: u64| {
        driver.write(DATA, &statistics(&[(4, now_ms)]));
        driver.offer(&[(DATA, 10, 0)]);
        balloon.process(BalloonQueue::Statistics, &mut driver.queue, &driver.memory).unwrap();
        let asked = balloon.poll_statistics(now_ms);
        let progress = balloon.process(BalloonQueue::Statistics, &mut driver.queue, &driver.memory).unwrap();
        driver.take_heads();
        assert!(!asked || progress.used);
        asked
    };
    assert!(!answers(0));
    balloon.set_statistics_interval_ms(1000);
    assert_eq!([1, 999, 1001].map(&mut answers), [true, false, true]);
    balloon.set_statistics_interval_ms(10);
    assert_eq!([1002, 1003, 1012].map(&mut answers), [true, false, true]);
    assert_eq!((balloon.status().statistics_interval_ms, balloon.status().statistics), (10, vec![(4, 1012)]));
}

#[test]
fn ram_may_have_holes_and_pages_in_them_are_refused() {
    let sink = Recorder::shared();
    let balloon = Balloon::new(balloon::RamLayout::new([512..RAM_FRAMES, 0..256]), sink.clone());
    let mut driver = Driver::new();
    driver.offer_numbers(&[255, 256, 511, 512]);
    let progress = balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory).unwrap();
    assert!(matches!(progress.refused, Some(balloon::Error::OutsideRam { number: 256, .. })));
    assert_eq!(sink.take(), [Told::Inflate(255, 256), Told::Inflate(512, 513)]);
    driver.offer(&[(255 * 4096, 2 * 4096, WRITE), (600 * 4096, 4096, WRITE)]);
    let progress = balloon.process(BalloonQueue::Reporting, &mut driver.queue, &driver.memory).unwrap();
    assert!(progress.refused.is_some());
    assert_eq!(sink.take(), [Told::Free(600, 601)]);
    balloon.set_requested_pages(u32::MAX);
    assert_eq!(balloon.status().requested_pages, RAM_FRAMES - 256);
}
