//! A device with a disk and a driver that makes requests.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs::File;
use std::os::unix::fs::FileExt;

use block::{Access, Block, Disk, Error, FileDisk, Progress};
use chains::BrokenRing;
use chains::driver::{DATA, Driver, WRITE};
use wire::block::SECTOR_BYTES;

/// Sectors of the disk.
pub const SECTORS: u64 = 64;
/// What a status byte is before the device has set it.
pub const UNSET: u8 = 0xee;

/// A file of [`SECTORS`] in which each sector is filled with its number.
pub fn file() -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&pattern(), 0).unwrap();
    file
}

/// What is in it.
pub fn pattern() -> Vec<u8> {
    (0..SECTORS * SECTOR_BYTES).map(|byte| (byte / SECTOR_BYTES) as u8 + 1).collect()
}

pub struct Rig<D> {
    pub block: Block<D>,
    pub driver: Driver,
}

impl Rig<FileDisk> {
    /// A rig with such a file, and a second descriptor of it.
    pub fn new() -> (Self, File) {
        let file = file();
        let disk = FileDisk::new(file.try_clone().unwrap(), Access::ReadWrite, 512).unwrap();
        (Rig::with(disk), file)
    }
}

impl<D: Disk> Rig<D> {
    pub fn with(disk: D) -> Self {
        let rig = Rig { block: Block::new(disk, "a serial"), driver: Driver::new() };
        rig.block.set_features(rig.block.features());
        rig
    }

    pub fn process(&mut self) -> Result<Progress, BrokenRing> {
        self.block.process(&mut self.driver.queue, &self.driver.memory)
    }

    /// One request with this data to read, in two buffers, and this many bytes to write: its status, what was
    /// written and how it went.
    pub fn request(&mut self, number: u32, sector: u64, data: &[u8], answer_bytes: u32) -> Answer {
        let header = header(number, sector);
        let (at, answer_at) = (DATA + header.len() as u64, DATA + 0x10_0000);
        self.driver.write(DATA, &header);
        self.driver.write(at, data);
        let status_at = answer_at + u64::from(answer_bytes);
        self.driver.write(status_at, &[UNSET]);
        let half = data.len() as u32 / 2;
        let head = self.driver.offer(&[
            (DATA, header.len() as u32, 0),
            (at, half, 0),
            (at + u64::from(half), data.len() as u32 - half, 0),
            (answer_at, answer_bytes, WRITE),
            (status_at, 1, WRITE),
        ]);
        let progress = self.process().unwrap();
        assert!(progress.used && !progress.more);
        let used = self.driver.take_used();
        assert_eq!((used.len(), used[0].0), (1, head));
        Answer {
            status: self.driver.read(status_at, 1)[0],
            data: self.driver.read(answer_at, answer_bytes as usize),
            used_bytes: used[0].1,
            refused: progress.refused,
        }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u8,
    pub data: Vec<u8>,
    pub used_bytes: u32,
    pub refused: Option<Error>,
}

pub fn header(number: u32, sector: u64) -> Vec<u8> {
    [&number.to_le_bytes()[..], &[0xff; 4], &sector.to_le_bytes()].concat()
}

pub fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

pub fn contents(file: &File) -> Vec<u8> {
    let mut contents = vec![0; (SECTORS * SECTOR_BYTES) as usize];
    file.read_exact_at(&mut contents, 0).unwrap();
    contents
}
