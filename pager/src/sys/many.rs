//! `MADV_DONTNEED` of many ranges at once, by `process_madvise(2)` on this process itself.
//!
//! Each `madvise` flushes the TLBs of all CPUs that run one of our threads: an interrupt for a vCPU, and
//! where the host is a virtual machine itself, an exit for each CPU. Linux 6.16 and later flush once for all
//! ranges of a call; from 6.13 on the call is allowed on oneself. Where it is not, ranges go one by one.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

/// Ranges that one call takes (`UIO_MAXIOV`).
const RANGES_MAX: usize = 1024;

/// This process, to whoever may advise it.
pub struct Advice {
    process: OwnedFd,
    refused: AtomicBool,
}

impl Advice {
    /// For the process that calls.
    pub fn new() -> io::Result<Advice> {
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor, which nobody else knows of.
        let process = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        Ok(Advice { process, refused: AtomicBool::new(false) })
    }

    /// Makes pages of these ranges, which are addresses and lengths of whole pages, absent; how many ranges,
    /// from the first on, are done.
    ///
    /// # Safety
    /// The ranges are private mappings that the caller may empty: nobody holds a reference into them.
    pub unsafe fn discard(&self, ranges: &[(u64, usize)]) -> usize {
        if ranges.len() < 2 || self.refused.load(Ordering::Relaxed) {
            return 0;
        }
        let ranges = &ranges[..ranges.len().min(RANGES_MAX)];
        let vector: Vec<libc::iovec> =
            ranges.iter().map(|&(start, bytes)| libc::iovec { iov_base: start as *mut _, iov_len: bytes }).collect();
        let (fd, call) = (self.process.as_raw_fd(), libc::SYS_process_madvise);
        // SAFETY: `vector` is an array of `iovec`s of the length that is given; what it names the caller
        // answers for.
        let advised = unsafe { libc::syscall(call, fd, vector.as_ptr(), vector.len(), libc::MADV_DONTNEED, 0) };
        if advised < 0 {
            // Relaxed: whoever does not see it tries once more.
            self.refused.store(true, Ordering::Relaxed);
            return 0;
        }
        let mut left = advised as usize;
        ranges
            .iter()
            .take_while(|(_, bytes)| {
                let done = left >= *bytes;
                left = left.saturating_sub(*bytes);
                done
            })
            .count()
    }
}
