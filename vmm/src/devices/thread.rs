//! The thread that works a device's queues: one event a queue, rung by KVM or the transport, and one that
//! ends it. A network device also has something to do when its link has frames: its [`Inlet`].
//!
//! It may block in a page fault on guest memory; nobody who serves faults ever waits for it.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    thread::{self, JoinHandle},
    time::Duration,
};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::virtio_mmio::TurnEnd;
use crate::sys::rung;

/// Longest wait for an event. None is lost: this only bounds what a bug could cost.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Where something for a queue comes from, unasked.
pub struct Inlet {
    /// Readable, there is something.
    pub fd: OwnedFd,
    /// Whose it is.
    pub queue: usize,
    /// Whether that queue could take it; it is called when it can again.
    pub is_wanted: Box<dyn Fn() -> bool + Send>,
}

/// The running thread; dropping it ends it.
pub struct DeviceThread {
    stop: EventFd,
    handle: Option<JoinHandle<()>>,
}

impl DeviceThread {
    /// Calls `process(i)` when `events[i]` is rung, and again, after the other queues, while there is more;
    /// and when there is something for it in `inlet`.
    pub fn spawn(
        name: String,
        mut events: Vec<EventFd>,
        inlet: Option<Inlet>,
        process: impl Fn(usize) -> TurnEnd + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, queues) = (EventFd::new(EFD_NONBLOCK)?, events.len());
        events.push(stop.try_clone()?);
        let handle = thread::Builder::new().name(name).spawn(move || {
            let mut more = vec![false; queues];
            loop {
                let wait = if more.contains(&true) { Duration::ZERO } else { WAIT_MAX };
                let inlet = inlet.as_ref().filter(|inlet| (inlet.is_wanted)());
                let (rung, is_full) = rung(&events, inlet.map(|inlet| inlet.fd.as_fd()), wait);
                for event in rung {
                    match more.get_mut(event) {
                        Some(more) => *more = true,
                        None => return,
                    }
                }
                if let Some(inlet) = inlet.filter(|_| is_full) {
                    more[inlet.queue] = true;
                }
                for (queue, more) in more.iter_mut().enumerate() {
                    *more = *more && process(queue) == TurnEnd::More;
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
