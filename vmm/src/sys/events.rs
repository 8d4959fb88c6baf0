//! Waiting for one of several eventfds. (`vmm-sys-util`'s know their descriptor as a number only.)

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_sys_util::eventfd::EventFd;

/// Indices of the events that have been rung, which are then not rung any more; waits up to `wait` for one.
pub fn rung(events: &[EventFd], wait: Duration) -> Vec<usize> {
    // SAFETY: the descriptors are open as long as `events` is borrowed, which is longer than `fds` lives.
    let borrow = |event: &EventFd| unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
    let mut fds: Vec<_> = events.iter().map(|event| PollFd::new(borrow(event), PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
    if !poll(&mut fds, timeout).is_ok_and(|ready| ready > 0) {
        return Vec::new();
    }
    let is_rung = |index: &usize| fds[*index].any() == Some(true) && events[*index].read().is_ok();
    (0..events.len()).filter(is_rung).collect()
}
