//! A driver that breaks the rules is told so, counted, and harms nobody: above all, no byte outside of its
//! disk and its buffers moves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rig;

use block::{Access, Error, FEATURES, FileDisk, REQUEST_BYTES_MAX};
use chains::driver::{DATA, INDIRECT, NEXT, QUEUE_SIZE, RAM_BYTES, USED_RING, WRITE, descriptor};
use proptest::prelude::*;
use rig::{Answer, Rig, SECTORS, contents, header, pattern, segment};
use wire::block::{S_IOERR, S_UNSUPP, T_DISCARD, T_FLUSH, T_GET_ID, T_IN, T_OUT, T_WRITE_ZEROES};

/// A request that must be refused, and must change nothing.
fn refusal(number: u32, sector: u64, data: &[u8], answer_bytes: u32) -> (u8, Error) {
    let (mut rig, file) = Rig::new();
    let Answer { status, refused, .. } = rig.request(number, sector, data, answer_bytes);
    assert!(contents(&file) == pattern());
    assert_eq!((rig.block.counts().rejected, rig.block.counts().failed), (1, 0));
    (status, refused.unwrap())
}

#[test]
fn sectors_that_the_disk_does_not_have_are_refused() {
    for (sector, sectors) in [(SECTORS, 1), (SECTORS - 1, 2), (u64::MAX, 1), (u64::MAX / 512, 1), (1 << 55, 1)] {
        let outside = |refusal| assert!(matches!(refusal, (S_IOERR, Error::BeyondEnd { .. })), "{refusal:?}");
        outside(refusal(T_IN, sector, &[], sectors * 512));
        outside(refusal(T_OUT, sector, &vec![1; sectors as usize * 512], 0));
        outside(refusal(T_DISCARD, 0, &segment(sector, sectors, 0), 0));
        outside(refusal(T_WRITE_ZEROES, 0, &segment(sector, sectors, 1), 0));
        outside(refusal(T_DISCARD, 0, &[segment(0, 0, 0), segment(sector, sectors, 0)].concat(), 0));
    }
}

#[test]
fn data_of_the_wrong_length_is_refused() {
    assert!(matches!(refusal(T_IN, 0, &[], 513), (S_IOERR, Error::OddLength { bytes: 513, .. })));
    assert!(matches!(refusal(T_OUT, 0, &[0; 511], 0), (S_IOERR, Error::OddLength { bytes: 511, .. })));
    assert!(matches!(refusal(T_GET_ID, 0, &[], 19), (S_IOERR, Error::OddLength { bytes: 19, .. })));
    for number in [T_DISCARD, T_WRITE_ZEROES] {
        assert!(matches!(refusal(number, 0, &[0; 17], 0), (S_IOERR, Error::OddLength { bytes: 17, .. })));
        assert!(matches!(refusal(number, 0, &[0; 17 * 16], 0), (S_IOERR, Error::LongData { bytes: 272, .. })));
        let long = segment(0, u32::MAX, 0);
        assert!(matches!(refusal(number, 0, &long, 0), (S_IOERR, Error::LongSegment { .. })));
    }
}

#[test]
fn a_request_for_more_than_the_bound_is_refused_before_any_work() {
    // One buffer again and again: a driver need not have the memory that it asks to fill.
    let bytes = RAM_BYTES as u32 - 1024;
    let count = REQUEST_BYTES_MAX as u32 / bytes + 1;
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 40).unwrap();
    let mut rig = Rig::with(FileDisk::new(file, Access::ReadWrite, 512).unwrap());
    rig.driver.write(DATA, &header(T_OUT, 0));
    let mut buffers = vec![(DATA, 16, 0)];
    buffers.extend((0..count).map(|_| (0, bytes, 0)));
    buffers.push((DATA + 32, 1, WRITE));
    rig.driver.offer(&buffers);
    let refused = rig.process().unwrap().refused;
    assert!(matches!(refused, Some(Error::LongData { .. })), "{refused:?}");
    assert_eq!(rig.driver.read(DATA + 32, 1), [S_IOERR]);
}

#[test]
fn requests_and_flags_that_mean_nothing_are_unsupported() {
    for number in [2, 3, 5, 10, 14, u32::MAX] {
        assert!(matches!(refusal(number, 0, &[], 0), (S_UNSUPP, Error::UnknownType { .. })), "{number}");
    }
    for (number, flags) in [(T_DISCARD, 1), (T_DISCARD, 2), (T_WRITE_ZEROES, 2), (T_WRITE_ZEROES, u32::MAX)] {
        let refusal = refusal(number, 0, &segment(0, 1, flags), 0);
        assert!(matches!(refusal, (S_UNSUPP, Error::Flags { .. })), "{number} {flags:#x}");
    }
}

#[test]
fn a_request_without_a_place_for_its_status_goes_back_and_does_nothing() {
    let (mut rig, file) = Rig::new();
    rig.driver.write(DATA, &[header(T_OUT, 0), vec![9; 512]].concat());
    let no_writable = rig.driver.offer(&[(DATA, 528, 0)]);
    let refused = rig.process().unwrap().refused;
    assert!(matches!(refused, Some(Error::NoStatus)));
    let empty_writable = rig.driver.offer(&[(DATA, 528, 0), (DATA, 0, WRITE)]);
    assert!(matches!(rig.process().unwrap().refused, Some(Error::NoStatus)));
    let outside = rig.driver.offer(&[(DATA, 528, 0), (RAM_BYTES, 1, WRITE)]);
    assert!(matches!(rig.process().unwrap().refused, Some(Error::Chain(_))));
    assert_eq!(rig.driver.take_used(), [(no_writable, 0), (empty_writable, 0), (outside, 0)]);
    assert!(contents(&file) == pattern());
}

#[test]
fn a_header_that_is_cut_off_is_an_error_and_is_answered() {
    let (mut rig, _) = Rig::new();
    rig.driver.write(DATA, &header(T_IN, 0));
    rig.driver.write(DATA + 512, &[7]);
    rig.driver.offer(&[(DATA, 15, 0), (DATA + 512, 1, WRITE)]);
    assert!(matches!(rig.process().unwrap().refused, Some(Error::ShortHeader { bytes: 15 })));
    assert_eq!(rig.driver.read(DATA + 512, 1), [S_IOERR]);
    rig.driver.offer(&[(DATA + 512, 1, WRITE)]);
    assert!(matches!(rig.process().unwrap().refused, Some(Error::ShortHeader { bytes: 0 })));
}

#[test]
fn a_flood_takes_bounded_turns_and_every_request_is_answered() {
    let (mut rig, _) = Rig::new();
    rig.driver.write(DATA, &header(T_FLUSH, 0));
    for nth in 0..QUEUE_SIZE / 2 {
        rig.driver.offer(&[(DATA, 16, 0), (DATA + 64 + u64::from(nth), 1, WRITE)]);
    }
    let mut turns = 1;
    while rig.process().unwrap().more {
        turns += 1;
        assert!(turns < 100, "no end");
    }
    assert!(turns >= 4, "flushes are slow, and 64 of them were one turn");
    assert_eq!(rig.driver.take_used().len(), usize::from(QUEUE_SIZE) / 2);
    assert_eq!(rig.block.counts().flushes, u64::from(QUEUE_SIZE) / 2);
}

#[test]
fn nonsense_in_the_configuration_space_is_counted() {
    let (rig, _) = Rig::new();
    for (offset, data) in [(0, &[0; 8][..]), (32, &[2]), (32, &[0, 0]), (33, &[0]), (u64::MAX, &[0]), (32, &[])] {
        rig.block.write_config(offset, data);
    }
    rig.block.set_features(FEATURES & !(1 << wire::block::F_CONFIG_WCE));
    rig.block.write_config(32, &[0]);
    assert_eq!(rig.block.counts().rejected, 7);
}

/// Types from the real ones to absurd ones, sectors near the borders.
fn any_header() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![8 => prop::sample::select(vec![0u32, 1, 4, 8, 11, 13]), 1 => any::<u32>()];
    let sector = prop_oneof![8 => 0..SECTORS + 2, 1 => any::<u64>()];
    (number, sector).prop_map(|(number, sector)| header(number, sector))
}

/// Buffers from near-honest to absurd, so that chains get past the first check.
fn any_buffer(start: u64) -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![8 => start..start + 0x4000, 1 => RAM_BYTES - 0x400..RAM_BYTES + 0x400, 1 => any::<u64>()];
    let bytes = prop_oneof![
        4 => prop::sample::select(vec![0u32, 1, 16, 20, 512, 1024, 2048]),
        2 => 0u32..0x1000,
        1 => any::<u32>(),
    ];
    let flags = prop_oneof![9 => 0u16..4, 1 => any::<u16>()];
    let next = prop_oneof![12 => 0u16..16, 1 => any::<u16>()];
    (address, bytes, flags, next)
}

proptest! {
    /// Chains of any shape over any memory, rings included: no panic, bounded turns, and the disk stays as
    /// large as it is.
    #[test]
    fn no_ring_makes_the_device_panic(
        descriptors in prop::collection::vec(any_buffer(0x1000), 16),
        heads in prop::collection::vec(prop_oneof![30 => 0u16..16, 1 => any::<u16>()], 1..40),
        headers in prop::collection::vec(any_header(), 64),
        available in prop_oneof![9 => Just(None), 1 => any::<u16>().prop_map(Some)],
    ) {
        let (mut rig, file) = Rig::new();
        rig.driver.write(0x4000, &headers.concat());
        for (index, &(address, bytes, flags, next)) in descriptors.iter().enumerate() {
            rig.driver.set_descriptor(index as u16, address, bytes, flags, next);
        }
        heads.iter().for_each(|&head| rig.driver.make_available(head));
        available.inspect(|&index| rig.driver.set_available_index(index));
        // A device that is told to write over its available ring may find new chains in it, again and again.
        for _ in 0..2 * QUEUE_SIZE {
            match rig.process() {
                Ok(progress) if progress.more => {}
                _ => break,
            }
        }
        prop_assert_eq!(file.metadata().unwrap().len(), SECTORS * 512);
    }

    /// What is in guest memory outside of the buffers that the device may write, and of the used ring, stays
    /// as it is.
    #[test]
    fn no_byte_outside_of_the_writable_buffers_changes(
        descriptors in prop::collection::vec(any_buffer(DATA), 16),
        indirect in prop::collection::vec(any_buffer(DATA), 8),
        headers in prop::collection::vec(any_header(), 0x400),
        heads in prop::collection::vec(0u16..16, 1..20),
    ) {
        const TABLE: u64 = 0x8000;
        let (mut rig, _) = Rig::new();
        let mut writable = vec![USED_RING];
        let mut allow = |address: u64, bytes: u32, flags: u16| {
            if flags & WRITE != 0 {
                writable.push(address..address.saturating_add(bytes.into()));
            }
        };
        rig.driver.write(DATA, &headers.concat());
        for (index, &(address, bytes, flags, next)) in descriptors.iter().enumerate() {
            let flags = flags & (NEXT | WRITE);
            allow(address, bytes, flags);
            rig.driver.set_descriptor(index as u16, address, bytes, flags, next);
        }
        for (index, &(address, bytes, flags, next)) in indirect.iter().enumerate() {
            let flags = flags & (NEXT | WRITE);
            allow(address, bytes, flags);
            rig.driver.write(TABLE + index as u64 * 16, &descriptor(address, bytes, flags, next % 8));
        }
        rig.driver.set_descriptor(16, TABLE, 8 * 16, INDIRECT, 0);
        heads.iter().chain(&[16]).for_each(|&head| rig.driver.make_available(head));
        let before = rig.driver.read(0, RAM_BYTES as usize);
        while rig.process().unwrap().more {}
        let after = rig.driver.read(0, RAM_BYTES as usize);
        for (at, (before, after)) in before.iter().zip(&after).enumerate() {
            let is_writable = || writable.iter().any(|range| range.contains(&(at as u64)));
            prop_assert!(before == after || is_writable(), "byte {:#x} changed", at);
        }
    }
}
