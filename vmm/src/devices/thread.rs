//! The thread that works the queues: one event a queue, rung by KVM or the transport, and one that ends it.
//!
//! It may block in a page fault on guest memory; nobody who serves faults ever waits for it.

use std::{
    io,
    thread::{self, JoinHandle},
    time::Duration,
};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::virtio_mmio::Turn;
use crate::sys::rung;

/// Longest wait for an event. None is lost: this only bounds what a bug could cost.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// The running thread; dropping it ends it.
pub struct DeviceThread {
    stop: EventFd,
    handle: Option<JoinHandle<()>>,
}

impl DeviceThread {
    /// Calls `process(i)` when `events[i]` is rung, and again, after the other queues, while there is more.
    pub fn spawn(mut events: Vec<EventFd>, process: impl Fn(usize) -> Turn + Send + 'static) -> io::Result<Self> {
        let (stop, queues) = (EventFd::new(EFD_NONBLOCK)?, events.len());
        events.push(stop.try_clone()?);
        let handle = thread::Builder::new().name("devices".into()).spawn(move || {
            let mut more = vec![false; queues];
            loop {
                let wait = if more.contains(&true) { Duration::ZERO } else { WAIT_MAX };
                for event in rung(&events, wait) {
                    match more.get_mut(event) {
                        Some(more) => *more = true,
                        None => return,
                    }
                }
                for (queue, more) in more.iter_mut().enumerate() {
                    *more = *more && process(queue) == Turn::More;
                }
            }
        })?;
        Ok(Self { stop, handle: Some(handle) })
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        // Fails only when the counter would overflow, and then the event has been rung.
        let _ = self.stop.write(1);
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}
