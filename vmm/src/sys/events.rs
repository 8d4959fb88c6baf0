//! Waiting for one of several eventfds. (`vmm-sys-util`'s know their descriptor as a number only.)

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_sys_util::eventfd::EventFd;

/// Indices of the events that have been rung, which are then not rung any more; waits up to `wait` for one,
/// or for something to read in `inlet`. Whether there is.
pub fn rung(events: &[EventFd], inlet: Option<BorrowedFd<'_>>, wait: Duration) -> (Vec<usize>, bool) {
    // SAFETY: the descriptors are open as long as `events` is borrowed, which is longer than `fds` lives.
    let borrow = |event: &EventFd| unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
    let mut fds: Vec<_> = events.iter().map(borrow).chain(inlet).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
    if !poll(&mut fds, timeout).is_ok_and(|ready| ready > 0) {
        return (Vec::new(), false);
    }
    let is_rung = |index: &usize| fds[*index].any() == Some(true) && events[*index].read().is_ok();
    let is_full = inlet.is_some() && fds.last().and_then(PollFd::any) == Some(true);
    ((0..events.len()).filter(is_rung).collect(), is_full)
}
