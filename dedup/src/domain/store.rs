//! The frame store: a memfd, one page a frame, of which every VMM of the domain has a read-only descriptor.
//!
//! ```text
//!   0             home_frames                2 × home_frames
//!   ├── home ─────┼── overflow ──────────────┤
//!   frame n: content first found twice       content whose home place was taken
//!   at guest page n of some guest
//! ```
//!
//! The length is fixed and sealed, so that no mapping of it can ever fault beyond the end. Only frames that
//! were written have memory; a punched one has none again. It is written with `pwrite`: the host has no
//! mapping that a stray pointer could hit.
//!
//! Security: descriptors handed out are open for reading only, and the files' mode forbids opening them again
//! for writing through `/proc/self/fd`. A VMM that runs as root, or as the host's own user, could still do
//! that if compromised: run VMMs as another user. (`F_SEAL_FUTURE_WRITE` would close this too, but forbids
//! punching.)

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, SealFlag, fallocate, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::sys::uio::pwrite;
use nix::unistd::ftruncate;
use wire::{Frame, PAGE_BYTES, PageBytes};

use crate::Error;

/// Unit of `st_blocks`, whatever the file system.
const STAT_BLOCK_BYTES: u64 = 512;

/// The frames' bytes.
#[derive(Debug)]
pub(crate) struct Store {
    memfd: OwnedFd,
}

impl Store {
    /// A store of empty frames.
    pub(crate) fn new(frames: u32) -> Result<Self, Error> {
        Ok(Self { memfd: sealed_memfd(c"ballast-frames", offset_bytes(frames))? })
    }

    /// The file behind it.
    pub(crate) fn memfd(&self) -> &OwnedFd {
        &self.memfd
    }

    /// Writes frames from `first` on. Their published bits must be clear.
    pub(crate) fn write(&self, first: Frame, pages: &[PageBytes]) -> Result<(), Error> {
        let error = |source| Error::Store { what: "write to", source };
        let bytes = pages.as_flattened();
        let written = pwrite(&self.memfd, bytes, offset_bytes(first.0).cast_signed()).map_err(error)?;
        if written == bytes.len() { Ok(()) } else { Err(error(Errno::ENOSPC)) }
    }

    /// Gives back the memory of frames `first..first + count`.
    pub(crate) fn punch(&self, first: Frame, count: u32) -> Result<(), Error> {
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&self.memfd, mode, offset_bytes(first.0).cast_signed(), offset_bytes(count).cast_signed())
            .map_err(|source| Error::Store { what: "punch", source })
    }

    /// Memory of all frames, as the kernel counts it.
    pub(crate) fn allocated_bytes(&self) -> Result<u64, Error> {
        let stat = fstat(&self.memfd).map_err(|source| Error::Store { what: "stat", source })?;
        Ok(stat.st_blocks.cast_unsigned() * STAT_BLOCK_BYTES)
    }
}

/// Where a frame starts, and how long so many frames are.
fn offset_bytes(frames: u32) -> u64 {
    u64::from(frames) * PAGE_BYTES as u64
}

/// A memfd of zeros whose length is final.
pub(crate) fn sealed_memfd(name: &CStr, bytes: u64) -> Result<OwnedFd, Error> {
    let make = || {
        let memfd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        fchmod(&memfd, Mode::S_IRUSR)?;
        ftruncate(&memfd, bytes.cast_signed())?;
        fcntl(&memfd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW))?;
        Ok(memfd)
    };
    make().map_err(|source| Error::Store { what: "create", source })
}

/// A second descriptor of the same file that cannot write.
pub(crate) fn reopen_read_only(fd: impl AsFd) -> Result<OwnedFd, Error> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|source| Error::Store { what: "open for reading", source })
}

#[cfg(test)]
mod tests {
    use nix::sys::uio::pread;

    use super::*;

    #[test]
    fn a_punched_frame_gives_its_memory_back_and_reads_as_zeros() {
        let store = Store::new(64).unwrap();
        assert_eq!(store.allocated_bytes().unwrap(), 0);
        store.write(Frame(5), &[[1; PAGE_BYTES], [2; PAGE_BYTES]]).unwrap();
        assert_eq!(store.allocated_bytes().unwrap(), 2 * PAGE_BYTES as u64);
        store.punch(Frame(5), 1).unwrap();
        assert_eq!(store.allocated_bytes().unwrap(), PAGE_BYTES as u64);
        let (mut punched, mut kept) = ([9; PAGE_BYTES], [9; PAGE_BYTES]);
        pread(store.memfd(), &mut punched, 5 * PAGE_BYTES as i64).unwrap();
        pread(store.memfd(), &mut kept, 6 * PAGE_BYTES as i64).unwrap();
        assert!(crate::is_zero(&punched) && kept == [2; PAGE_BYTES]);
    }

    #[test]
    fn the_length_is_final() {
        let store = Store::new(8).unwrap();
        assert_eq!(ftruncate(store.memfd(), 0), Err(Errno::EPERM));
        assert_eq!(ftruncate(store.memfd(), 1 << 20), Err(Errno::EPERM));
        assert!(store.write(Frame(8), &[[1; PAGE_BYTES]]).is_err());
    }

    #[test]
    fn a_vmm_descriptor_cannot_write_punch_or_map_writable() {
        let store = Store::new(8).unwrap();
        store.write(Frame(0), &[[3; PAGE_BYTES]]).unwrap();
        let reader = reopen_read_only(store.memfd()).unwrap();
        assert_eq!(pwrite(&reader, &[0; PAGE_BYTES], 0), Err(Errno::EBADF));
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        assert_eq!(fallocate(&reader, punch, 0, PAGE_BYTES as i64), Err(Errno::EBADF));
        let words = std::num::NonZeroUsize::MIN;
        let mapped = crate::sys::MappedWords::map(&reader, words, crate::sys::Access::ReadWrite);
        assert_eq!(mapped.err(), Some(Errno::EACCES));
    }
}
