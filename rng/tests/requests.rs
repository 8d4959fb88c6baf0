//! What drivers get, honest ones and others.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io;

use chains::driver::{DATA, Driver, RAM_BYTES, USED_RING, WRITE};
use proptest::prelude::*;
use rng::{BYTES_PER_REQUEST, Error, REQUESTS_PER_TURN, Rng, Source};

/// Bytes that are easy to see.
struct Fives;

impl Source for Fives {
    fn fill(&self, into: &mut [u8]) -> io::Result<()> {
        into.fill(5);
        Ok(())
    }
}

struct Dry;

impl Source for Dry {
    fn fill(&self, into: &mut [u8]) -> io::Result<()> {
        into.fill(5);
        Err(io::Error::other("no randomness today"))
    }
}

#[test]
fn a_buffer_is_filled_from_the_kernel() {
    let rng = Rng::new(File::open("/dev/urandom").unwrap());
    let mut driver = Driver::new();
    let heads = [0, 0x100].map(|at| driver.offer(&[(DATA + at, 20, WRITE), (DATA + at + 20, 44, WRITE)]));
    let progress = rng.process(&mut driver.queue, &driver.memory).unwrap();
    assert!(progress.used && !progress.more && progress.refused.is_none());
    assert_eq!(driver.take_used(), heads.map(|head| (head, 64)));
    let (first, second) = (driver.read(DATA, 64), driver.read(DATA + 0x100, 64));
    assert!(first != second && first != [0; 64] && driver.read(DATA + 64, 64) == [0; 64]);
    assert_eq!(rng.counts().bytes, 128);
}

#[test]
fn a_long_buffer_gets_as_much_as_one_request_may() {
    let rng = Rng::new(Fives);
    let mut driver = Driver::new();
    let head = driver.offer(&[(DATA, 100, WRITE), (DATA + 0x1000, 1 << 20, WRITE)]);
    rng.process(&mut driver.queue, &driver.memory).unwrap();
    assert_eq!(driver.take_used(), [(head, BYTES_PER_REQUEST as u32)]);
    assert!(driver.read(DATA + 0x1000, 156) == [5; 156] && driver.read(DATA + 0x1000 + 156, 100) == [0; 100]);
}

#[test]
fn a_source_that_fails_hands_nothing_out() {
    let rng = Rng::new(Dry);
    let mut driver = Driver::new();
    let head = driver.offer(&[(DATA, 64, WRITE)]);
    let progress = rng.process(&mut driver.queue, &driver.memory).unwrap();
    assert!(matches!(progress.refused, Some(Error::Source(_))));
    assert_eq!((driver.take_used(), driver.read(DATA, 64)), (vec![(head, 0)], vec![0; 64]));
    assert_eq!((rng.counts().failed, rng.counts().bytes), (1, 0));
}

#[test]
fn requests_of_the_wrong_shape_are_refused() {
    let refusal = |buffers: &[(u64, u32, u16)]| {
        let rng = Rng::new(Fives);
        let mut driver = Driver::new();
        let head = driver.offer(buffers);
        let refused = rng.process(&mut driver.queue, &driver.memory).unwrap().refused.unwrap();
        assert_eq!((driver.take_used(), rng.counts().rejected), (vec![(head, 0)], 1));
        refused
    };
    assert!(matches!(refusal(&[(DATA, 1, 0), (DATA, 64, WRITE)]), Error::Readable { bytes: 1 }));
    assert!(matches!(refusal(&[(DATA, 0, WRITE)]), Error::Empty));
    assert!(matches!(refusal(&[(RAM_BYTES - 1, 2, WRITE)]), Error::Chain(_)));
}

#[test]
fn a_flood_takes_bounded_turns() {
    let rng = Rng::new(Fives);
    let mut driver = Driver::new();
    (0..100).for_each(|_| _ = driver.offer(&[(DATA, 1, WRITE)]));
    let mut turns = 1;
    while rng.process(&mut driver.queue, &driver.memory).unwrap().more {
        assert!(driver.take_used().len() <= REQUESTS_PER_TURN);
        turns += 1;
    }
    assert_eq!((rng.counts().bytes, turns), (100, 100 / REQUESTS_PER_TURN + 1));
}

proptest! {
    #[test]
    fn no_byte_outside_of_the_buffers_changes(
        descriptors in prop::collection::vec(
            (
                prop_oneof![4 => DATA..DATA + 0x2000, 1 => any::<u64>()],
                prop_oneof![4 => 0u32..600, 1 => any::<u32>()],
                0u16..4,
                0u16..20,
            ),
            16,
        ),
        heads in prop::collection::vec(0u16..16, 1..40),
    ) {
        let rng = Rng::new(Fives);
        let mut driver = Driver::new();
        for (index, &(address, bytes, flags, next)) in descriptors.iter().enumerate() {
            driver.set_descriptor(index as u16, address, bytes, flags, next);
        }
        heads.iter().for_each(|&head| driver.make_available(head));
        let before = driver.read(0, RAM_BYTES as usize);
        while rng.process(&mut driver.queue, &driver.memory).unwrap().more {}
        prop_assert_eq!(driver.take_used().len(), heads.len());
        let after = driver.read(0, RAM_BYTES as usize);
        for at in (0..RAM_BYTES).filter(|&at| before[at as usize] != after[at as usize]) {
            let holds = |&(address, bytes, flags, _): &(u64, u32, u16, u16)| {
                flags & WRITE != 0 && (address..address.saturating_add(bytes.into())).contains(&at)
            };
            prop_assert!(USED_RING.contains(&at) || descriptors.iter().any(holds), "byte {:#x} changed", at);
        }
    }

    /// Descriptors, rings and buffers may be anywhere, also in each other.
    #[test]
    fn no_ring_makes_the_device_panic(
        descriptors in prop::collection::vec((0u64..0x4000, any::<u32>(), any::<u16>(), 0u16..20), 16),
        heads in prop::collection::vec(prop_oneof![30 => 0u16..16, 1 => any::<u16>()], 1..40),
        available in prop_oneof![Just(None), any::<u16>().prop_map(Some)],
    ) {
        let rng = Rng::new(Fives);
        let mut driver = Driver::new();
        for (index, &(address, bytes, flags, next)) in descriptors.iter().enumerate() {
            driver.set_descriptor(index as u16, address, bytes, flags, next);
        }
        heads.iter().for_each(|&head| driver.make_available(head));
        available.inspect(|&index| driver.set_available_index(index));
        for _ in 0..256 {
            match rng.process(&mut driver.queue, &driver.memory) {
                Ok(progress) if progress.more => {}
                _ => break,
            }
        }
    }
}
