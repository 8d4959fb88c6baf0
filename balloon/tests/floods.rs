//! A guest that floods its device, rings for nothing, or gives the pages away that its rings are in: bounded
//! work, and at worst a device that needs a reset.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod driver;

use std::ops::Range;

use balloon::{Balloon, BalloonQueue, PageSink, QUEUE_SIZE_MAX};
use chains::BrokenRing;
use chains::driver::{DATA, Driver, memory};
use driver::{BalloonDriver, RAM_FRAMES, Recorder};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

#[test]
fn a_flood_of_statistics_takes_bounded_turns_and_leaves_one_buffer() {
    let balloon = Balloon::new(RAM_FRAMES, Recorder::shared());
    let mut driver = Driver::new();
    driver.write(DATA, &[0; 10]);
    let flood = QUEUE_SIZE_MAX;
    (0..flood).for_each(|_| _ = driver.offer(&[(DATA, 10, 0)]));

    let first = balloon.process(BalloonQueue::Statistics, &mut driver.queue, &driver.memory).unwrap();
    let back = driver.take_heads().len();
    assert!(first.more && back > 0 && back < usize::from(flood) - 1, "{back} buffers came back in one turn");
    let mut turns = 1;
    while balloon.process(BalloonQueue::Statistics, &mut driver.queue, &driver.memory).unwrap().more {
        turns += 1;
        assert!(turns <= flood, "no end");
    }

    // All but the last, which is kept to ask again.
    assert_eq!(back + driver.take_heads().len(), usize::from(flood) - 1);
    driver::ask_for_statistics(&balloon);
    balloon.process(BalloonQueue::Statistics, &mut driver.queue, &driver.memory).unwrap();
    assert_eq!(driver.take_heads().len(), 1);
}

#[test]
fn kicks_without_buffers_do_nothing() {
    let sink = Recorder::shared();
    let balloon = Balloon::new(RAM_FRAMES, sink.clone());
    let mut driver = Driver::new();
    for which in [
        BalloonQueue::Inflate,
        BalloonQueue::Deflate,
        BalloonQueue::Statistics,
        BalloonQueue::Hinting,
        BalloonQueue::Reporting,
    ] {
        for _ in 0..100 {
            let progress = balloon.process(which, &mut driver.queue, &driver.memory).unwrap();
            assert!(!progress.used && !progress.more && progress.refused.is_none(), "{which:?}");
        }
    }
    assert_eq!((driver.take_heads().len(), sink.take().len(), balloon.status().counts.rejected), (0, 0, 0));
}

/// What a host does to pages of the balloon: they are empty from then on.
struct Emptying(GuestMemoryMmap<()>);

impl PageSink for Emptying {
    fn inflate(&self, range: Range<u32>) {
        range.for_each(|gfn| self.0.write_slice(&[0; 4096], GuestAddress(u64::from(gfn) * 4096)).unwrap());
    }
    fn deflate(&self, _: Range<u32>) {}
    fn report_free(&self, _: Range<u32>, _: u32) {}
    fn watch(&self) {}
    fn drop_hinted(&self, _: Range<u32>, _: u32) -> u32 {
        0
    }
    fn unwatch(&self) {}
}

#[test]
fn a_guest_that_gives_its_rings_away_needs_a_reset_and_nothing_more_is_done() {
    let memory = memory();
    let balloon = Balloon::new(RAM_FRAMES, Emptying(memory.clone()));
    let mut driver = Driver::with(memory);
    // Descriptors, available ring and used ring, in this order (`chains::driver`).
    driver.offer_numbers(&[1, 2, 3]);

    // Taken in one turn, so that the end of it meets rings that are empty; or in the next.
    let first = balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory);
    let last = match first {
        Ok(_) => balloon.process(BalloonQueue::Inflate, &mut driver.queue, &driver.memory),
        error => error,
    };

    assert!(matches!(last, Err(BrokenRing { ring: "inflate", .. })));
    assert_eq!(balloon.status().counts.inflated_pages, 3);
}
