//! The device: what was asked for, what was given, and one turn of work on a queue.
//!
//! [`Balloon::process`] is called by one device thread at a time; everything else by any thread. The state's lock is a leaf:
//! never held over guest memory, a queue or the sink.

use std::sync::{Mutex, MutexGuard, PoisonError};

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemory;
use wire::balloon::{
    CONFIG_ACTUAL, CONFIG_BYTES, CONFIG_NUM_PAGES, F_DEFLATE_ON_OOM, F_MUST_TELL_HOST, F_REPORTING, F_STATS_VQ,
};
use wire::virtio::F_VERSION_1;

use crate::buffers::{Direction, collect};
use crate::numbers::NUMBERS_PER_CHAIN_MAX;
use crate::statistics::Statistics;
use crate::{BalloonQueue, Error, PageSink, numbers, reporting, statistics};

/// Features offered. Free page hinting and page poison are not.
pub const FEATURES: u64 =
    1 << F_VERSION_1 | 1 << F_MUST_TELL_HOST | 1 << F_STATS_VQ | 1 << F_DEFLATE_ON_OOM | 1 << F_REPORTING;

/// Requests served in one turn: half a queue, so that a driver that refills as fast as it can still lets others in.
pub const CHAINS_PER_TURN: usize = 64;

/// Page numbers after which a turn takes no further request: that of one request at its largest.
pub const NUMBERS_PER_TURN: usize = NUMBERS_PER_CHAIN_MAX;

/// The device. Frames go to the [`PageSink`].
#[derive(Debug)]
pub struct Balloon<S> {
    ram_frames: u32,
    sink: S,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    features: u64,
    driver_ok: bool,
    requested_pages: u32,
    /// Little-endian, as the driver writes it, byte by byte if it likes.
    actual_pages: [u8; 4],
    inflated_pages_total: u64,
    deflated_pages_total: u64,
    reported_pages_total: u64,
    rejected_total: u64,
    statistics: Statistics,
}

/// How the balloon is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Pages asked for.
    pub requested_pages: u32,
    /// Pages given, by the driver's own account, and never more than RAM has.
    pub actual_pages: u32,
    /// Pages taken in all.
    pub inflated_pages_total: u64,
    /// Pages given back in all.
    pub deflated_pages_total: u64,
    /// Pages reported free in all.
    pub reported_pages_total: u64,
    /// Requests refused, in whole or in part.
    pub rejected_total: u64,
    /// A driver is working the device.
    pub driver_ok: bool,
    /// The guest's statistics, `(tag, value)` by tag; what it did not report is absent.
    pub statistics: Vec<(u16, u64)>,
}

/// What a turn did.
#[derive(Debug, Default)]
pub struct Progress {
    /// Buffers went back to the driver: it wants a used buffer notification.
    pub used: bool,
    /// There is more to do: call again, whether or not the driver notifies.
    pub more: bool,
    /// The last request that was refused, in whole or in part.
    pub refused: Option<Error>,
}

impl<S: PageSink> Balloon<S> {
    /// A balloon for a guest with RAM from address 0 to frame `ram_frames`.
    pub fn new(ram_frames: u32, sink: S) -> Self {
        Balloon { ram_frames, sink, state: Mutex::default() }
    }

    /// Asks for `pages`, or for all there are. True if the configuration space changed, of which the driver is to be told.
    pub fn set_requested_pages(&self, pages: u32) -> bool {
        let pages = pages.min(self.ram_frames);
        std::mem::replace(&mut self.state().requested_pages, pages) != pages
    }

    /// Wishes for fresh statistics: the next [`Balloon::process`] of the statistics queue asks the driver.
    pub fn request_statistics(&self) {
        self.state().statistics.request();
    }

    /// How the balloon is.
    pub fn status(&self) -> Status {
        let state = self.state();
        Status {
            requested_pages: state.requested_pages,
            actual_pages: u32::from_le_bytes(state.actual_pages).min(self.ram_frames),
            inflated_pages_total: state.inflated_pages_total,
            deflated_pages_total: state.deflated_pages_total,
            reported_pages_total: state.reported_pages_total,
            rejected_total: state.rejected_total,
            driver_ok: state.driver_ok,
            statistics: state.statistics.values().to_vec(),
        }
    }

    /// Driver and device have agreed on `features`.
    pub fn set_features(&self, features: u64) {
        self.state().features = features;
    }

    /// The driver has started.
    pub fn set_driver_ok(&self) {
        self.state().driver_ok = true;
    }

    /// The driver is gone, and its buffers and statements with it. What the host asked for and counted stays.
    pub fn reset(&self) {
        let mut state = self.state();
        state.features = 0;
        state.driver_ok = false;
        state.actual_pages = [0; 4];
        state.statistics = Statistics::default();
    }

    /// The queue that the driver means by `index`.
    pub fn queue_at(&self, index: usize) -> Option<BalloonQueue> {
        BalloonQueue::at(index, self.state().features)
    }

    /// Reads the configuration space (5.5.4); what lies behind it reads 0.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        const FIELD_BYTES: usize = size_of::<u32>();
        let mut config = [0; CONFIG_BYTES as usize];
        {
            let state = self.state();
            config[CONFIG_NUM_PAGES as usize..][..FIELD_BYTES].copy_from_slice(&state.requested_pages.to_le_bytes());
            config[CONFIG_ACTUAL as usize..][..FIELD_BYTES].copy_from_slice(&state.actual_pages);
        }
        let rest = usize::try_from(offset).ok().and_then(|start| config.get(start..)).unwrap_or_default();
        let present = rest.len().min(data.len());
        data.fill(0);
        data[..present].copy_from_slice(&rest[..present]);
    }

    /// Writes the configuration space, of which only `actual` is the driver's; everything else is refused and counted.
    pub fn write_config(&self, offset: u64, data: &[u8]) {
        let mut state = self.state();
        let field = offset.checked_sub(CONFIG_ACTUAL).and_then(|start| usize::try_from(start).ok());
        let written = field.and_then(|start| state.actual_pages.get_mut(start..start.checked_add(data.len())?));
        match written {
            Some(bytes) => bytes.copy_from_slice(data),
            None => state.rejected_total += 1,
        }
    }

    /// One turn of work on a queue.
    ///
    /// # Errors
    /// [`Error::Ring`]: the device needs a reset. Refused requests are no error, see [`Progress::refused`].
    pub fn process<M: GuestMemory>(
        &self,
        which: BalloonQueue,
        queue: &mut Queue,
        memory: &M,
    ) -> Result<Progress, Error> {
        self.turn(which, queue, memory).map_err(|source| Error::Ring { queue: which, source })
    }

    fn turn<M: GuestMemory>(
        &self,
        which: BalloonQueue,
        queue: &mut Queue,
        memory: &M,
    ) -> Result<Progress, virtio_queue::Error> {
        let mut progress = Progress { more: true, ..Progress::default() };
        let mut numbers = 0;
        queue.disable_notification(memory)?;
        for _ in 0..CHAINS_PER_TURN {
            if numbers >= NUMBERS_PER_TURN {
                break;
            }
            let Some(chain) = queue.iter(memory)?.next() else {
                progress.more = queue.enable_notification(memory)?;
                if progress.more {
                    continue;
                }
                break;
            };
            let head = chain.head_index();
            let (done, result) = match which {
                BalloonQueue::Inflate | BalloonQueue::Deflate => {
                    (Some(head), self.page_numbers(which, chain, queue.size(), memory, &mut numbers))
                }
                BalloonQueue::Reporting => (Some(head), self.report(chain, queue.size())),
                BalloonQueue::Statistics => self.keep_statistics(chain, queue.size(), memory),
            };
            if let Err(error) = result {
                self.state().rejected_total += 1;
                progress.refused = Some(error);
            }
            if let Some(head) = done {
                // "In either case, the device acknowledges inflate and deflate requests by using the descriptor" (5.5.6).
                // It wrote nothing into it.
                queue.add_used(memory, head, 0)?;
                progress.used = true;
            }
        }
        if which == BalloonQueue::Statistics
            && let Some(head) = self.take_requested_statistics()
        {
            queue.add_used(memory, head, 0)?;
            progress.used = true;
        }
        Ok(progress)
    }

    fn page_numbers<M: GuestMemory>(
        &self,
        which: BalloonQueue,
        chain: DescriptorChain<&M>,
        queue_size: u16,
        memory: &M,
        numbers: &mut usize,
    ) -> Result<(), Error> {
        let buffers = collect(chain, queue_size, Direction::Readable)?;
        // Refused numbers are work too.
        *numbers += numbers::count(&buffers)?;
        let mut pages = 0;
        let result = numbers::read(memory, &buffers, self.ram_frames, |range| {
            pages += range.len() as u64;
            match which {
                BalloonQueue::Inflate => self.sink.inflate(range),
                _ => self.sink.deflate(range),
            }
        });
        let mut state = self.state();
        match which {
            BalloonQueue::Inflate => state.inflated_pages_total += pages,
            _ => state.deflated_pages_total += pages,
        }
        result
    }

    fn report<M: GuestMemory>(&self, chain: DescriptorChain<&M>, queue_size: u16) -> Result<(), Error> {
        let buffers = collect(chain, queue_size, Direction::Writable)?;
        let mut pages = 0;
        let result = reporting::read(&buffers, self.ram_frames, |range| {
            pages += range.len() as u64;
            self.sink.report_free(range);
        });
        self.state().reported_pages_total += pages;
        result
    }

    /// Keeps the buffer, whatever it says: it is what the next request is made with.
    fn keep_statistics<M: GuestMemory>(
        &self,
        chain: DescriptorChain<&M>,
        queue_size: u16,
        memory: &M,
    ) -> (Option<u16>, Result<(), Error>) {
        let head = chain.head_index();
        let read =
            collect(chain, queue_size, Direction::Readable).and_then(|buffers| statistics::read(memory, &buffers));
        let (values, result) = match read {
            Ok(values) => (Some(values), Ok(())),
            Err(error) => (None, Err(error)),
        };
        (self.state().statistics.keep(head, values), result)
    }

    fn take_requested_statistics(&self) -> Option<u16> {
        self.state().statistics.take_requested()
    }

    /// Every change of the state is whole, so a panic elsewhere leaves nothing half done in it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
