//! What an honest driver gets: every request of 5.2.6 on a real file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rig;

use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use block::{Access, Block, FEATURES, FileDisk, SCRATCH_BYTES};
use chains::driver::{DATA, WRITE};
use nix::fcntl::OFlag;
use proptest::prelude::*;
use rig::{Rig, SECTORS, contents, file, header, pattern, segment};
use wire::block::{
    F_CONFIG_WCE, F_FLUSH, F_RO, S_IOERR, S_OK, SECTOR_BYTES, T_DISCARD, T_FLUSH, T_GET_ID, T_IN, T_OUT, T_WRITE_ZEROES,
};

#[test]
fn what_is_read_is_what_is_on_the_disk() {
    let (mut rig, _) = Rig::new();
    let answer = rig.request(T_IN, 3, &[], 1024);
    assert_eq!((answer.status, answer.used_bytes), (S_OK, 1025));
    assert_eq!(answer.data, pattern()[3 * 512..5 * 512]);
    assert_eq!((rig.block.counts().reads, rig.block.counts().read_bytes), (1, 1024));
}

#[test]
fn what_is_written_is_on_the_disk_and_nothing_else_changes() {
    let (mut rig, file) = Rig::new();
    let answer = rig.request(T_OUT, SECTORS - 2, &[0xab; 1024], 0);
    assert_eq!((answer.status, answer.used_bytes), (S_OK, 1));
    let mut expected = pattern();
    expected[62 * 512..].fill(0xab);
    assert!(contents(&file) == expected);
    assert_eq!((rig.block.counts().writes, rig.block.counts().written_bytes), (1, 1024));
    assert_eq!(rig.block.counts().flushes, 0, "the driver flushes when it wants to");
}

#[test]
fn requests_longer_than_our_buffer_are_whole() {
    let file = tempfile::tempfile().unwrap();
    let bytes = 3 * SCRATCH_BYTES + 512;
    let data: Vec<u8> = (0..bytes).map(|byte| (byte / 7) as u8).collect();
    file.set_len(bytes as u64 + 512).unwrap();
    let mut rig = Rig::with(FileDisk::new(file.try_clone().unwrap(), Access::ReadWrite, 512).unwrap());
    assert_eq!(rig.request(T_OUT, 1, &data, 0).status, S_OK);
    let mut found = vec![0; bytes];
    file.read_exact_at(&mut found, 512).unwrap();
    assert!(found == data);
    let answer = rig.request(T_IN, 1, &[], bytes as u32);
    assert!(answer.status == S_OK && answer.data == data);
}

#[test]
fn the_bytes_of_a_request_may_be_cut_anywhere() {
    let (mut rig, file) = Rig::new();
    let request = [header(T_OUT, 5), vec![0x77; 512]].concat();
    rig.driver.write(DATA, &request);
    // Header and data in pieces that have nothing to do with what they are; the status behind an empty
    // buffer.
    let cuts = [0, 3, 17, 300, request.len() as u64];
    let mut buffers: Vec<_> = cuts.windows(2).map(|cut| (DATA + cut[0], (cut[1] - cut[0]) as u32, 0)).collect();
    buffers.extend([(DATA + 0x1000, 0, WRITE), (DATA + 0x1000, 1, WRITE)]);
    rig.driver.write(DATA + 0x1000, &[9]);
    rig.driver.offer(&buffers);
    assert!(rig.process().unwrap().refused.is_none());
    assert_eq!(rig.driver.read(DATA + 0x1000, 1), [S_OK]);
    assert!(contents(&file)[5 * 512..6 * 512] == [0x77; 512]);
}

#[test]
fn a_disk_has_a_name() {
    let (mut rig, _) = Rig::new();
    let answer = rig.request(T_GET_ID, 0, &[], 20);
    assert_eq!((answer.status, answer.used_bytes), (S_OK, 21));
    assert_eq!(answer.data, b"a serial\0\0\0\0\0\0\0\0\0\0\0\0");
    let mut long = Rig::with(FileDisk::new(file(), Access::ReadOnly, 512).unwrap());
    long.block = Block::new(FileDisk::new(file(), Access::ReadOnly, 512).unwrap(), "twenty bytes and some more");
    assert_eq!(long.request(T_GET_ID, 0, &[], 20).data, b"twenty bytes and som");
}

#[test]
fn a_discard_gives_blocks_back_and_a_write_zeroes_reads_as_zeroes() {
    let file = tempfile::tempfile().unwrap();
    let bytes = 1 << 20;
    file.write_all_at(&vec![0x55; bytes], 0).unwrap();
    let mut rig = Rig::with(FileDisk::new(file.try_clone().unwrap(), Access::ReadWrite, 512).unwrap());
    let blocks = file.metadata().unwrap().blocks();

    let segments = [segment(0, 512, 0), segment(1024, 512, 0)].concat();
    assert_eq!(rig.request(T_DISCARD, 0, &segments, 0).status, S_OK);
    let left = file.metadata().unwrap().blocks();
    assert!(left + 1000 <= blocks, "{left} of {blocks} blocks are left");
    assert_eq!(rig.block.counts().discarded_bytes, 1 << 19);

    for (sector, flags) in [(600, 0), (700, 1)] {
        assert_eq!(rig.request(T_WRITE_ZEROES, 0, &segment(sector, 3, flags), 0).status, S_OK);
        let answer = rig.request(T_IN, sector - 1, &[], 5 * 512);
        assert!(answer.data[..512] == [0x55; 512] && answer.data[512..4 * 512] == [0; 1536]);
        assert!(answer.data[4 * 512..] == [0x55; 512]);
    }
    assert_eq!((rig.block.counts().zeroed_bytes, file.metadata().unwrap().len()), (2 * 1536, bytes as u64));
    assert_eq!(rig.request(T_DISCARD, 0, &segment(SECTORS, 0, 0), 0).status, S_OK, "of nothing");
}

#[test]
fn a_disk_that_may_only_be_read_says_so_and_is_not_changed() {
    let file = file();
    let disk = FileDisk::new(file.try_clone().unwrap(), Access::ReadOnly, 512).unwrap();
    let mut rig = Rig::with(disk);
    assert_eq!((rig.block.features() >> F_RO & 1, FEATURES >> F_RO & 1), (1, 0));
    let zeroes = segment(0, 8, 0);
    for (number, data) in [(T_OUT, &[1; 512][..]), (T_DISCARD, &zeroes), (T_WRITE_ZEROES, &zeroes)] {
        let answer = rig.request(number, 0, data, 0);
        assert_eq!(answer.status, S_IOERR);
        assert!(matches!(answer.refused, Some(block::Error::ReadOnly)));
    }
    assert_eq!(rig.request(T_IN, 0, &[], 512).status, S_OK);
    assert_eq!(rig.request(T_FLUSH, 0, &[], 0).status, S_OK);
    assert!(contents(&file) == pattern());
    assert_eq!(rig.block.counts().rejected, 3);
}

#[test]
fn a_driver_that_does_not_flush_has_its_writes_flushed() {
    let (mut rig, _) = Rig::new();
    assert_eq!(rig.request(T_FLUSH, 0, &[], 0).status, S_OK);
    assert_eq!(rig.block.counts().flushes, 1);

    rig.block.set_features(FEATURES & !(1 << F_FLUSH | 1 << F_CONFIG_WCE));
    assert_eq!(rig.request(T_OUT, 0, &[1; 512], 0).status, S_OK);
    assert_eq!(rig.block.counts().flushes, 2, "neither feature");

    rig.block.set_features(FEATURES & !(1 << F_FLUSH));
    assert_eq!(read_config(&rig, 32, 1), [0], "5.2.5.2: writeback starts as 0 then");

    rig.block.set_features(FEATURES);
    assert_eq!(read_config(&rig, 32, 1), [1]);
    rig.block.write_config(32, &[0]);
    assert_eq!(rig.request(T_WRITE_ZEROES, 0, &segment(0, 1, 0), 0).status, S_OK);
    assert_eq!((read_config(&rig, 32, 1), rig.block.counts().flushes), (vec![0], 3));
    rig.block.write_config(32, &[1]);
    assert_eq!(rig.request(T_OUT, 0, &[1; 512], 0).status, S_OK);
    rig.block.write_config(32, &[0]);
    rig.block.reset();
    assert_eq!((read_config(&rig, 32, 1), rig.block.counts().flushes), (vec![1], 3));
}

fn read_config(rig: &Rig<FileDisk>, offset: u64, bytes: usize) -> Vec<u8> {
    let mut data = vec![0xff; bytes];
    rig.block.read_config(offset, &mut data);
    data
}

#[test]
fn the_configuration_space_has_size_and_limits() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(10 * 4096 + 4095).unwrap();
    let rig = Rig::with(FileDisk::new(file, Access::ReadWrite, 4096).unwrap());
    let le32 = |offset| u32::from_le_bytes(read_config(&rig, offset, 4).try_into().unwrap());
    assert_eq!(read_config(&rig, 0, 8), 80u64.to_le_bytes(), "whole blocks only");
    assert_eq!((le32(8), le32(12), le32(20)), (65536, 254, 4096));
    assert_eq!((le32(36), le32(40), le32(44)), (block::DISCARD_SECTORS_MAX, block::SEGMENTS_MAX, 8));
    assert_eq!((le32(48), le32(52), read_config(&rig, 56, 4)), (block::ZEROES_SECTORS_MAX, 16, vec![1, 0, 0, 0]));
    for offset in [60, 64, 1 << 20, u64::MAX] {
        assert_eq!(read_config(&rig, offset, 4), [0; 4]);
    }
    assert_eq!(read_config(&rig, 58, 8), [0; 8]);
}

#[test]
fn a_disk_opened_for_direct_access_is_read_and_written() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, vec![0x11; 1 << 20]).unwrap();
    let open = || std::fs::File::options().read(true).write(true).custom_flags(OFlag::O_DIRECT.bits()).open(&path);
    let Ok(file) = open() else {
        eprintln!("SKIPPED: {} does not take O_DIRECT", path.display());
        return;
    };
    let mut rig = Rig::with(FileDisk::new(file, Access::ReadWrite, 4096).unwrap());
    // Longer than our buffer, in pieces that are not aligned to anything.
    let data: Vec<u8> = (0..SCRATCH_BYTES + 4096).map(|byte| (byte / 5) as u8).collect();
    assert_eq!(rig.request(T_OUT, 8, &data, 0).status, S_OK);
    let answer = rig.request(T_IN, 0, &[], data.len() as u32 + 8192);
    assert_eq!(answer.status, S_OK);
    assert!(answer.data == [vec![0x11; 4096], data.clone(), vec![0x11; 4096]].concat());
}

#[test]
fn a_file_without_a_sector_is_no_disk() {
    let small = tempfile::tempfile().unwrap();
    small.set_len(511).unwrap();
    let error = FileDisk::new(small.try_clone().unwrap(), Access::ReadOnly, 512).unwrap_err();
    assert_eq!(error.to_string(), "511 bytes are less than a block of 512");
    for block_bytes in [0, 511, 256, 513, 8192] {
        assert!(FileDisk::new(small.try_clone().unwrap(), Access::ReadOnly, block_bytes).is_err());
    }
    let pipe = std::io::pipe().unwrap().0;
    let pipe = std::fs::File::from(std::os::fd::OwnedFd::from(pipe));
    assert!(matches!(FileDisk::new(pipe, Access::ReadOnly, 512), Err(block::DiskError::Size(_))));
}

/// What a driver may do to a disk: sector, sectors, and which of the requests.
fn any_step() -> impl Strategy<Value = (u32, u64, u64)> {
    let kind = prop::sample::select(vec![T_IN, T_OUT, T_DISCARD, T_WRITE_ZEROES, T_FLUSH]);
    (kind, 0..SECTORS).prop_flat_map(|(kind, sector)| (Just(kind), Just(sector), 0..=SECTORS - sector))
}

proptest! {
    /// Against a disk that is an array: each read finds what was written last. What was discarded may read as
    /// anything, here as zeroes.
    #[test]
    fn a_disk_remembers_what_was_written_last(steps in prop::collection::vec((any_step(), 1u8..=255), 1..24)) {
        let (mut rig, file) = Rig::new();
        let mut model = pattern();
        for ((kind, sector, sectors), byte) in steps {
            let range = (sector * SECTOR_BYTES) as usize..((sector + sectors) * SECTOR_BYTES) as usize;
            let (data, answer_bytes) = match kind {
                T_OUT => (vec![byte; range.len()], 0),
                T_IN => (vec![], range.len()),
                T_FLUSH => (vec![], 0),
                T_WRITE_ZEROES => (segment(sector, sectors as u32, u32::from(byte & 1)), 0),
                _ => (segment(sector, sectors as u32, 0), 0),
            };
            let answer = rig.request(kind, sector, &data, answer_bytes as u32);
            prop_assert_eq!(answer.status, S_OK, "{:?}", answer.refused);
            match kind {
                T_OUT => model[range].fill(byte),
                T_IN => prop_assert!(answer.data == model[range]),
                T_FLUSH => {}
                _ => model[range].fill(0),
            }
        }
        prop_assert!(contents(&file) == model);
    }
}
