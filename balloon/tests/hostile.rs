//! A driver that breaks the rules is told so, counted, and harms nobody: above all, the sink sees only RAM.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod driver;

use balloon::{Balloon, BalloonQueue, Error, FEATURES, NUMBERS_PER_CHAIN_MAX, STATISTICS_MAX};
use chains::BrokenRing;
use chains::driver::{DATA, Driver, INDIRECT, NEXT, WRITE};
use driver::{BalloonDriver, RAM_FRAMES, Recorder, Told};
use proptest::prelude::*;

/// Serves one chain and returns why it was refused. Refused requests are counted, and their buffers come
/// back.
fn refusal(which: BalloonQueue, buffers: &[(u64, u32, u16)]) -> Error {
    let sink = Recorder::shared();
    let balloon = Balloon::new(RAM_FRAMES, sink.clone());
    let mut driver = Driver::new();
    let head = driver.offer(buffers);
    let progress = balloon.process(which, &mut driver.queue, &driver.memory).unwrap();
    assert!(progress.used && !progress.more);
    assert_eq!(driver.take_heads(), [head]);
    assert_eq!(balloon.status().counts.rejected, 1);
    assert_eq!(sink.take(), []);
    progress.refused.unwrap()
}

#[test]
fn inflate_of_a_page_outside_ram_is_rejected_and_the_rest_is_served() {
    let sink = Recorder::shared();
    let balloon = Balloon::new(RAM_FRAMES, sink.clone());
    let mut driver = Driver::new();
    driver.offer_numbers(&[u32::MAX, 1, RAM_FRAMES, 2]);

    let progress = balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory).unwrap();

    assert!(matches!(progress.refused, Some(Error::OutsideRam { number: 0xffff_ffff, .. })));
    assert_eq!(sink.take(), [Told::Inflate(1, 3)]);
    assert_eq!((balloon.status().counts.inflated_pages, balloon.status().counts.rejected), (2, 1));
}

#[test]
fn buffers_of_the_wrong_shape_are_rejected() {
    use BalloonQueue::{Deflate, Hinting, Inflate, Reporting};
    assert!(matches!(refusal(Inflate, &[(DATA, 4, WRITE)]), Error::Direction { .. }));
    assert!(matches!(refusal(Reporting, &[(DATA, 4096, 0), (DATA, 4096, WRITE)]), Error::Direction { .. }));
    assert!(matches!(refusal(Inflate, &[(DATA, 7, 0)]), Error::OddLength { bytes: 7, .. }));
    assert!(matches!(refusal(Deflate, &[(u64::MAX - 2, 4, 0)]), Error::Chain(chains::Error::Outside { .. })));
    assert!(matches!(
        refusal(Deflate, &[(u64::from(RAM_FRAMES) * 4096, 4, 0)]),
        Error::Chain(chains::Error::Memory { .. })
    ));
    let too_long = (NUMBERS_PER_CHAIN_MAX as u32 + 1) * 4;
    assert!(matches!(refusal(Inflate, &[(DATA, too_long, 0)]), Error::TooManyEntries { .. }));
    assert!(matches!(
        refusal(Inflate, &[(DATA, u32::MAX, 0), (DATA, 4, 0)]),
        Error::Chain(chains::Error::Broken { descriptors: 1 })
    ));
    assert!(matches!(refusal(Hinting, &[(DATA, 3, 0)]), Error::CommandLength { bytes: 3 }));
    assert!(matches!(refusal(Hinting, &[(DATA, 4, 0), (DATA, 4, 0)]), Error::CommandLength { bytes: 8 }));
    assert!(matches!(refusal(Hinting, &[(0, 4096, WRITE), (DATA, 4, 0)]), Error::Chain(chains::Error::Order { .. })));
}

#[test]
fn chains_that_loop_or_lead_nowhere_are_rejected() {
    let balloon = Balloon::new(RAM_FRAMES, Recorder::shared());
    let mut driver = Driver::new();
    driver.set_descriptor(0, DATA, 4, NEXT, 0);
    driver.set_descriptor(1, DATA, 4, NEXT, 0x7fff);
    driver.set_descriptor(2, u64::MAX, 16, INDIRECT, 0);
    for head in 0..3 {
        driver.make_available(head);
        let progress = balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory).unwrap();
        assert!(
            matches!(progress.refused, Some(Error::Chain(chains::Error::Broken { .. }))),
            "{head}: {:?}",
            progress.refused
        );
        assert_eq!(driver.take_heads(), [head]);
    }
}

#[test]
fn an_indirect_chain_longer_than_the_queue_is_rejected() {
    let balloon = Balloon::new(RAM_FRAMES, Recorder::shared());
    let mut driver = Driver::new();
    let entries = 4096u32;
    for nth in 0..entries {
        let descriptor =
            [&DATA.to_le_bytes()[..], &[0, 0, 0, 0, NEXT as u8, 0], &(nth as u16 + 1).to_le_bytes()].concat();
        driver.write(DATA + u64::from(nth) * 16, &descriptor);
    }
    driver.offer(&[(DATA, entries * 16, INDIRECT)]);
    let progress = balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory).unwrap();
    assert!(matches!(progress.refused, Some(Error::Chain(chains::Error::Long { .. }))));
}

#[test]
fn a_ring_that_lies_about_itself_needs_a_reset() {
    let balloon = Balloon::new(RAM_FRAMES, Recorder::shared());
    let mut driver = Driver::new();
    driver.set_available_index(129);
    let result = balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory);
    assert!(matches!(result, Err(BrokenRing { ring: "inflate", .. })), "more chains than the ring holds");

    let mut driver = Driver::new();
    driver.make_available(128);
    let result = balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory);
    assert!(matches!(result, Err(BrokenRing { .. })), "a head outside the table");
}

#[test]
fn malformed_statistics_change_nothing_and_keep_the_buffer() {
    let balloon = Balloon::new(RAM_FRAMES, Recorder::shared());
    let mut driver = Driver::new();
    for bytes in [0, 10, 9, (STATISTICS_MAX as u32 + 1) * 10] {
        let head = driver.offer(&[(DATA, bytes, 0)]);
        balloon.process(BalloonQueue::Statistics, &mut driver.queue, &driver.memory).unwrap();
        driver::ask_for_statistics(&balloon);
        balloon.process(BalloonQueue::Statistics, &mut driver.queue, &driver.memory).unwrap();
        assert_eq!(driver.take_heads(), [head]);
    }
    assert_eq!(balloon.status().statistics, [(0, 0)], "from the second buffer");
    assert_eq!(balloon.status().counts.rejected, 2);
}

#[test]
fn a_second_statistics_buffer_sends_the_first_one_back() {
    let balloon = Balloon::new(RAM_FRAMES, Recorder::shared());
    let mut driver = Driver::new();
    let first = driver.offer(&[(DATA, 0, 0)]);
    driver.offer(&[(DATA, 0, 0)]);
    balloon.process(BalloonQueue::Statistics, &mut driver.queue, &driver.memory).unwrap();
    assert_eq!(driver.take_heads(), [first]);
}

#[test]
fn a_boast_in_the_configuration_space_is_cut_to_ram() {
    let balloon = Balloon::new(RAM_FRAMES, Recorder::shared());
    balloon.write_config(4, &u32::MAX.to_le_bytes());
    assert_eq!(balloon.status().actual_pages, RAM_FRAMES);
    for (offset, bytes) in [(0, 4), (2, 4), (5, 4), (8, 4), (u64::MAX, 2), (4, 9)] {
        balloon.write_config(offset, &[0; 16][..bytes]);
    }
    for offset in [15, 16, u64::MAX - 1] {
        let mut data = [0xff; 4];
        balloon.read_config(offset, &mut data);
        assert_eq!(data, [0; 4]);
    }
    assert_eq!((balloon.status().actual_pages, balloon.status().counts.rejected), (RAM_FRAMES, 6));
}

fn any_queue() -> impl Strategy<Value = BalloonQueue> {
    use BalloonQueue::{Deflate, Hinting, Inflate, Reporting, Statistics};
    prop::sample::select(vec![Inflate, Deflate, Statistics, Hinting, Reporting])
}

/// Addresses and lengths from near-honest to absurd, so that chains get past the first check.
fn any_descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![4 => 0..u64::from(RAM_FRAMES + 2) * 4096, 1 => any::<u64>()];
    let bytes = prop_oneof![4 => 0u32..0x3000, 2 => (0u32..2000).prop_map(|n| n * 4), 1 => any::<u32>()];
    let flags = prop_oneof![6 => 0u16..4, 1 => any::<u16>()];
    let next = prop_oneof![8 => 0u16..16, 1 => any::<u16>()];
    (address, bytes, flags, next)
}

proptest! {
    /// The recorder panics if it is handed anything but RAM.
    #[test]
    fn no_ring_makes_the_device_panic_or_leave_ram(
        which in any_queue(),
        descriptors in prop::collection::vec(any_descriptor(), 16),
        heads in prop::collection::vec(prop_oneof![30 => 0u16..16, 1 => any::<u16>()], 1..40),
        available in prop_oneof![Just(None), any::<u16>().prop_map(Some)],
        data in prop::collection::vec(prop_oneof![0u32..RAM_FRAMES + 4, any::<u32>()], 1024),
    ) {
        let sink = Recorder::shared();
        let balloon = Balloon::new(RAM_FRAMES, sink.clone());
        let mut driver = Driver::new();
        let bytes: Vec<u8> = data.iter().flat_map(|number| number.to_le_bytes()).collect();
        for at in (DATA..u64::from(RAM_FRAMES) * 4096).step_by(bytes.len()) {
            driver.write(at, &bytes);
        }
        for (index, &(address, bytes, flags, next)) in descriptors.iter().enumerate() {
            driver.set_descriptor(index as u16, address, bytes, flags, next);
        }
        for &head in &heads {
            driver.make_available(head);
        }
        if let Some(index) = available {
            driver.set_available_index(index);
        }
        balloon.set_features(FEATURES);
        balloon.set_driver_ok(&[0, 1, 2, 3, 4]);
        balloon.begin_hinting().unwrap();
        balloon.announce_hinting();
        driver::ask_for_statistics(&balloon);

        let queued = available.map_or(heads.len(), usize::from);
        let turns = queued + 1;
        let mut finished = false;
        for _ in 0..turns {
            match balloon.process(which, &mut driver.queue, &driver.memory) {
                Ok(progress) if progress.more => {}
                _ => { finished = true; break }
            }
        }
        prop_assert!(finished, "each turn serves at least one chain");
        let status = balloon.status();
        let handed: u64 = sink.take().iter().map(|told| match *told {
            Told::Inflate(start, end) | Told::Deflate(start, end) | Told::Free(start, end) | Told::Hint(start, end) => {
                u64::from(end - start)
            }
            Told::Watch | Told::Unwatch => 0,
        }).sum();
        prop_assert_eq!(
            handed,
            status.counts.inflated_pages
                + status.counts.deflated_pages
                + status.counts.reported_pages
                + status.counts.hinted_pages
        );
        prop_assert!(status.statistics.len() <= STATISTICS_MAX);
    }

    /// Whatever numbers: exactly those inside RAM arrive, and a bad one is never overlooked.
    #[test]
    fn the_sink_gets_exactly_the_numbers_inside_ram(
        numbers in prop::collection::vec(prop_oneof![4 => 0u32..RAM_FRAMES, 1 => any::<u32>()], 0..9000),
    ) {
        let sink = Recorder::shared();
        let balloon = Balloon::new(RAM_FRAMES, sink.clone());
        let mut driver = Driver::new();
        driver.offer_numbers(&numbers);
        let progress = balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory).unwrap();

        let mut handed = [false; RAM_FRAMES as usize];
        for told in sink.take() {
            let Told::Inflate(start, end) = told else { panic!("{told:?}") };
            handed[start as usize..end as usize].fill(true);
        }
        let mut expected = [false; RAM_FRAMES as usize];
        for &number in &numbers {
            if let Some(frame) = expected.get_mut(number as usize) {
                *frame = true;
            }
        }
        prop_assert_eq!(handed, expected);
        prop_assert_eq!(progress.refused.is_some(), numbers.iter().any(|&number| number >= RAM_FRAMES));
    }
}
