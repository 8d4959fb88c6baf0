//! A disk that fails in the midst of it all: the guest gets an I/O error, and nothing else happens.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rig;

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use block::{Access, Disk, Error, FileDisk, Geometry};
use rig::{Rig, SECTORS, UNSET, contents, file, pattern, segment};
use wire::block::{S_IOERR, S_OK, T_DISCARD, T_FLUSH, T_IN, T_OUT, T_WRITE_ZEROES};

/// A disk that does a number of things and then fails at everything.
struct Failing {
    disk: FileDisk,
    errno: i32,
    good: AtomicU64,
}

impl Failing {
    fn new(errno: i32, good: u64) -> Self {
        let disk = FileDisk::new(file(), Access::ReadWrite, 512).unwrap();
        Failing { disk, errno, good: AtomicU64::new(good) }
    }

    fn step(&self) -> io::Result<()> {
        let good = self.good.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |good| good.checked_sub(1));
        good.map(drop).map_err(|_| io::Error::from_raw_os_error(self.errno))
    }
}

impl Disk for Failing {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }
    fn access(&self) -> Access {
        self.disk.access()
    }
    fn read_at(&self, at_byte: u64, into: &mut [u8]) -> io::Result<()> {
        self.step().and_then(|()| self.disk.read_at(at_byte, into))
    }
    fn write_at(&self, at_byte: u64, from: &[u8]) -> io::Result<()> {
        self.step().and_then(|()| self.disk.write_at(at_byte, from))
    }
    fn flush(&self) -> io::Result<()> {
        self.step().and_then(|()| self.disk.flush())
    }
    fn discard(&self, bytes: Range<u64>) -> io::Result<()> {
        self.step().and_then(|()| self.disk.discard(bytes))
    }
    fn write_zeroes(&self, bytes: Range<u64>, may_deallocate: bool) -> io::Result<()> {
        self.step().and_then(|()| self.disk.write_zeroes(bytes, may_deallocate))
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

#[test]
fn each_request_that_the_disk_fails_is_an_error_for_the_guest_and_counted() {
    for errno in [EIO, ENOSPC] {
        let mut rig = Rig::with(Failing::new(errno, 0));
        let segment = segment(0, 8, 0);
        for (number, data, answer_bytes) in [
            (T_IN, &[][..], 512),
            (T_OUT, &[1; 512], 0),
            (T_FLUSH, &[], 0),
            (T_DISCARD, &segment, 0),
            (T_WRITE_ZEROES, &segment, 0),
        ] {
            let answer = rig.request(number, 0, data, answer_bytes);
            assert_eq!(answer.status, S_IOERR);
            assert!(matches!(answer.refused, Some(Error::Disk { source, .. }) if source.raw_os_error() == Some(errno)));
        }
        let counts = rig.block.counts();
        assert_eq!((counts.failed, counts.rejected, counts.reads, counts.writes, counts.flushes), (5, 0, 0, 0, 0));
        // And when it works again, it works again.
        rig.block.disk().good.store(1, Ordering::Relaxed);
        assert_eq!(rig.request(T_IN, 0, &[], 512).status, S_OK);
    }
}

#[test]
fn a_write_through_that_cannot_be_flushed_has_failed() {
    let mut rig = Rig::with(Failing::new(EIO, 1));
    rig.block.set_features(1 << wire::virtio::F_VERSION_1);
    assert_eq!(rig.request(T_OUT, 0, &[1; 512], 0).status, S_IOERR);
}

#[test]
fn of_a_read_that_fails_half_way_the_driver_is_told_of_no_byte() {
    let (mut rig, file) = Rig::new();
    file.set_len(SECTORS / 2 * 512).unwrap();
    let answer = rig.request(T_IN, 0, &[], (SECTORS * 512) as u32);
    assert_eq!((answer.status, answer.used_bytes), (S_IOERR, 0));
}

#[test]
fn behind_the_end_of_a_disk_that_shrank_are_errors_and_before_it_data() {
    let (mut rig, file) = Rig::new();
    file.set_len(10 * 512 + 100).unwrap();
    assert_eq!(rig.request(T_IN, 9, &[], 512).status, S_OK);
    for sector in [10, 11, SECTORS - 1] {
        let answer = rig.request(T_IN, sector, &[], 512);
        assert_eq!(answer.status, S_IOERR, "{sector}");
        assert!(matches!(answer.refused, Some(Error::Disk { doing: "read", .. })));
    }
    assert_eq!(rig.request(T_IN, 0, &[], 512).data, pattern()[..512]);
    assert_eq!(rig.block.counts().failed, 3);
}

#[test]
fn a_full_file_system_is_an_error_for_the_guest_and_what_was_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(folder.path()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: a full file system takes the right to mount one");
        return;
    }
    let path = folder.path().join("disk");
    let outcome = std::panic::catch_unwind(|| {
        let file = std::fs::File::create_new(&path).unwrap();
        file.write_all_at(&pattern(), 0).unwrap();
        file.set_len(1 << 20).unwrap();
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut rig = Rig::with(FileDisk::new(file.try_clone().unwrap(), Access::ReadWrite, 512).unwrap());
        let answer = rig.request(T_OUT, 1024, &[7; 128 << 10], 0);
        assert_eq!(answer.status, S_IOERR);
        assert!(
            matches!(&answer.refused, Some(Error::Disk { source, .. }) if source.kind() == io::ErrorKind::StorageFull),
            "{answer:?}"
        );
        assert!(contents(&file) == pattern());
        // Room that the guest gives back it can use again; tmpfs cannot zero a range but by writing it.
        assert_eq!(rig.request(T_DISCARD, 0, &segment(1024, 1024, 0), 0).status, S_OK);
        assert_eq!(rig.request(T_WRITE_ZEROES, 0, &segment(8, 8, 0), 0).status, S_OK);
        assert_eq!(rig.request(T_OUT, 1024, &[7; 16 << 10], 0).status, S_OK);
        assert!(contents(&file)[8 * 512..16 * 512] == [0; 8 * 512] && contents(&file)[..512] == [1; 512]);
    });
    let unmounted = std::process::Command::new("umount").arg(folder.path()).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    outcome.unwrap();
}

#[test]
fn an_answer_is_never_left_out() {
    let mut rig = Rig::with(Failing::new(EIO, 3));
    for nth in 0..100u64 {
        let answer = rig.request(T_IN, nth % SECTORS, &[], 512);
        assert_ne!(answer.status, UNSET);
        assert_eq!(answer.status == S_OK, nth < 3);
    }
}
