//! The thread that works the queues: one event a queue, rung by KVM when the guest notifies it.
//!
//! It may block in a page fault on guest memory; nobody who serves faults ever waits for it.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_sys_util::eventfd::EventFd;

use crate::virtio_mmio::Turn;

/// How often the thread looks whether it is to end; it is woken for everything else.
const LOOK: Duration = Duration::from_millis(50);

/// The running thread; dropping it ends it.
pub struct DeviceThread {
    stop: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

impl DeviceThread {
    /// Calls `process(i)` whenever `events[i]` is rung, and again, after the other queues, while there is more.
    pub fn spawn(events: Vec<EventFd>, process: impl Fn(usize) -> Turn + Send + 'static) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let handle = thread::Builder::new().name("devices".into()).spawn(move || {
            let mut more = vec![false; events.len()];
            while !stopping.load(Ordering::Acquire) {
                for queue in rung(&events, more.contains(&true)) {
                    more[queue] = true;
                }
                for (queue, more) in more.iter_mut().enumerate() {
                    *more = *more && process(queue) == Turn::More;
                }
            }
        })?;
        Ok(Self { stop, handle: Some(handle) })
    }
}

/// Queues whose events were rung; waits for one unless there is work left.
fn rung(events: &[EventFd], busy: bool) -> Vec<usize> {
    // SAFETY: the descriptors are open as long as `events` is borrowed, which is longer than `fds` lives.
    let borrow = |event: &EventFd| unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
    let mut fds: Vec<_> = events.iter().map(|event| PollFd::new(borrow(event), PollFlags::POLLIN)).collect();
    let wait = if busy { Duration::ZERO } else { LOOK };
    let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
    if !poll(&mut fds, timeout).is_ok_and(|ready| ready > 0) {
        return Vec::new();
    }
    let is_rung = |queue: &usize| fds[*queue].any() == Some(true) && events[*queue].read().is_ok();
    (0..events.len()).filter(is_rung).collect()
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}
