//! The device as vhost-user sees it.
//!
//! **Threads and locks.** The connection's thread sets features, memory and rings; the worker does turns of
//! work; the API's thread asks and wishes. A ring's own lock is held for a turn, so that a ring that was
//! stopped is not touched any more. Everything here is a leaf under it.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use balloon::{Balloon, BalloonQueue, FEATURES, QUEUE_COUNT};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VringRwLock, VringT};
use virtio_queue::QueueT;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use wire::PAGE_BYTES;

use crate::Error;
use crate::memory::SharedMemory;
use crate::relay::Channel;

type Memory = GuestMemoryAtomic<GuestMemoryMmap<()>>;
type Vring = VringRwLock<Memory>;

/// Descriptors a queue may have. Front ends do not ask: user-mode Linux takes 256, QEMU 128 at most.
const QUEUE_SIZE_MAX: usize = 256;
/// Our own event among the worker's: the first number that is neither a queue nor its exit.
pub(crate) const WAKE_EVENT: u16 = QUEUE_COUNT as u16 + 1;

/// The device behind the protocol.
pub(crate) struct Backend {
    balloon: Balloon<SharedMemory>,
    memory: Memory,
    wake: EventFd,
    channel: Arc<Channel>,
    /// Queues that were set up when the device last looked.
    live: Mutex<Vec<usize>>,
    /// All of this front end's rings.
    rings: Mutex<Vec<Vring>>,
    /// A ring lied about itself: nothing is done until the next driver.
    broken: AtomicBool,
    broken_total: AtomicU64,
    log_refusal_at: AtomicU64,
    start: Instant,
}

impl Backend {
    pub(crate) fn new(memory: Memory) -> Result<Backend, Error> {
        let wake = EventFd::new(EFD_NONBLOCK).map_err(|source| Error::System { doing: "making an eventfd", source })?;
        Ok(Backend {
            balloon: Balloon::new(0, SharedMemory::default()).without_driver_ok(),
            memory,
            wake,
            channel: Arc::default(),
            live: Mutex::default(),
            rings: Mutex::default(),
            broken: AtomicBool::new(false),
            broken_total: AtomicU64::new(0),
            log_refusal_at: AtomicU64::new(1),
            start: Instant::now(),
        })
    }

    pub(crate) fn balloon(&self) -> &Balloon<SharedMemory> {
        &self.balloon
    }

    pub(crate) fn wake_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }

    /// The way back to the front end.
    pub(crate) fn channel(&self) -> Arc<Channel> {
        self.channel.clone()
    }

    /// How often a ring lied about itself.
    pub(crate) fn broken_total(&self) -> u64 {
        self.broken_total.load(Ordering::Relaxed)
    }

    /// Asks the guest for this much, rounded down to pages.
    pub(crate) fn set_requested_bytes(&self, bytes: u64) {
        let pages = u32::try_from(bytes / PAGE_BYTES as u64).unwrap_or(u32::MAX);
        self.tell_if(self.balloon.set_requested_pages(pages));
    }

    /// Tells the front end if the configuration space has changed.
    pub(crate) fn tell_if(&self, changed: bool) {
        if changed && let Err(error) = self.channel.configuration_changed() {
            tracing::warn!(%error, "the front end does not listen to news");
        }
    }

    /// Asks for statistics if it is time.
    pub(crate) fn poll_statistics(&self) {
        if self.balloon.poll_statistics(self.start.elapsed().as_millis() as u64) {
            // Fails only when the counter would overflow, and then it has been rung.
            let _ = self.wake.write(1);
        }
    }

    /// The front end is gone.
    pub(crate) fn disconnected(&self) {
        self.forget_driver();
        lock(&self.rings).clear();
    }

    /// The driver is gone, and no ring is touched once this has returned.
    ///
    /// Front ends do not always say so. When user-mode Linux unbinds a driver, the one message after its last
    /// is GET_FEATURES, and the rings' memory is the guest's again at the answer; no front end asks for
    /// features in between. Its next driver's kicks come through other descriptors, which
    /// `vhost-user-backend` listens to only if the rings had stopped.
    fn stop(&self) {
        for ring in &*lock(&self.rings) {
            ring.set_queue_ready(false);
            ring.set_kick(None);
        }
        self.forget_driver();
    }

    fn forget_driver(&self) {
        self.balloon.end_hinting();
        self.balloon.reset();
        lock(&self.live).clear();
        self.broken.store(false, Ordering::Release);
    }

    /// vhost-user has no DRIVER_OK: the driver has started when it uses its rings, and what rings there are
    /// says how it counts them.
    fn look_at_rings(&self, vrings: &[Vring]) {
        let ready = |index: &usize| vrings[*index].get_ref().get_queue().ready();
        let now: Vec<usize> = (0..vrings.len()).filter(ready).collect();
        if lock(&self.rings).is_empty() {
            *lock(&self.rings) = vrings.to_vec();
        }
        let mut live = lock(&self.live);
        if *live != now {
            self.balloon.set_driver_ok(&now);
            *live = now;
        }
    }

    /// Turns of work on this queue, and on all others between them, until there is nothing more to do.
    fn work(&self, first: usize, vrings: &[Vring]) {
        let mut more = vec![false; vrings.len()];
        more[first] = true;
        while more.contains(&true) {
            for (index, more) in more.iter_mut().enumerate() {
                *more = *more && self.turn(index, &vrings[index]);
            }
        }
    }

    /// One turn; whether there is more to do.
    fn turn(&self, index: usize, vring: &Vring) -> bool {
        let Some(which) = self.balloon.queue_at(index) else { return false };
        let mut ring = vring.get_mut();
        // Acquire pairs with the Release of whoever breaks or resets the device.
        if !ring.is_enabled() || !ring.get_queue().ready() || self.broken.load(Ordering::Acquire) {
            return false;
        }
        let memory = self.memory.memory();
        match self.balloon.process(which, ring.get_queue_mut(), &*memory) {
            Ok(progress) => {
                if progress.used && ring.needs_notification().unwrap_or(true) {
                    // Nobody to call is nobody's loss.
                    let _ = ring.signal_used_queue();
                }
                drop(ring);
                self.tell_if(progress.config_changed);
                if let Some(error) = &progress.refused {
                    self.log_refusal(error);
                }
                progress.more
            }
            Err(error) => {
                self.broken.store(true, Ordering::Release);
                let times = self.broken_total.fetch_add(1, Ordering::Relaxed) + 1;
                if times.is_power_of_two() {
                    tracing::warn!(times, error = &error as &dyn std::error::Error, "device needs a reset");
                }
                false
            }
        }
    }

    fn log_refusal(&self, error: &balloon::Error) {
        let refused = self.balloon.status().counts.rejected;
        // Relaxed: only the worker comes here. The distance doubles: 64 lines in a device's life.
        if refused >= self.log_refusal_at.load(Ordering::Relaxed) {
            self.log_refusal_at.store(refused.saturating_mul(2), Ordering::Relaxed);
            tracing::warn!(refused, error = error as &dyn std::error::Error, "balloon request refused");
        }
    }
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        QUEUE_COUNT
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE_MAX
    }

    /// Asked by a front end that is about to begin, or that has ended.
    fn features(&self) -> u64 {
        self.stop();
        FEATURES | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn acked_features(&self, features: u64) {
        self.balloon.set_features(features & FEATURES);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    }

    fn reset_device(&self) {
        self.stop();
    }

    fn set_event_idx(&self, _: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        // The protocol's bound on a configuration space.
        const CONFIG_BYTES_MAX: u32 = 256;
        let mut data = vec![0; size.min(CONFIG_BYTES_MAX) as usize];
        self.balloon.read_config(offset.into(), &mut data);
        data
    }

    fn set_config(&self, offset: u32, data: &[u8]) -> io::Result<()> {
        self.balloon.write_config(offset.into(), data);
        Ok(())
    }

    fn update_memory(&self, memory: Memory) -> io::Result<()> {
        let layout = self.balloon.sink().replace(&memory.memory());
        self.tell_if(self.balloon.set_ram(layout));
        Ok(())
    }

    fn exit_event(&self, _: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }

    fn handle_event(&self, event: u16, _: EventSet, vrings: &[Vring], _: usize) -> io::Result<()> {
        self.look_at_rings(vrings);
        let index = if event == WAKE_EVENT {
            // Empty when somebody else was faster.
            let _ = self.wake.read();
            (0..vrings.len()).find(|&index| self.balloon.queue_at(index) == Some(BalloonQueue::Statistics))
        } else {
            Some(usize::from(event))
        };
        if let Some(index) = index.filter(|&index| index < vrings.len()) {
            self.work(index, vrings);
        }
        Ok(())
    }
}

/// No panic leaves any of this half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
