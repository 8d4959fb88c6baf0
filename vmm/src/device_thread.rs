//! The thread that works the queues: one event a queue, rung by KVM when the guest notifies it.
//!
//! It may block in a page fault on guest memory; nobody who serves faults ever waits for it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use vmm_sys_util::eventfd::EventFd;

use crate::{sys::rung, virtio_mmio::Turn};

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
                let wait = if more.contains(&true) { Duration::ZERO } else { LOOK };
                for queue in rung(&events, wait) {
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

impl Drop for DeviceThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}
