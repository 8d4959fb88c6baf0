//! Descriptors that the host left open for this process, at the numbers `control` names.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

use nix::fcntl::{F_GETFD, F_SETFD, FdFlag, fcntl};

/// Takes descriptor `fd` over; fails if it is not open. To be called once a descriptor, before anything else
/// opens files.
pub fn take(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the number is one the host promised to this process; nobody else in it knows of it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    match fcntl(&fd, F_GETFD).and_then(|_| fcntl(&fd, F_SETFD(FdFlag::FD_CLOEXEC))) {
        Ok(_) => Ok(fd),
        Err(errno) => {
            // Not open: there is nothing to close.
            std::mem::forget(fd);
            Err(errno.into())
        }
    }
}
