//! One turn of work on a queue.

use std::ops::Range;
use std::sync::Arc;

use chains::{BrokenRing, Buffers, Chain};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemory;

use crate::buffers::{read_command, readable, writable};
use crate::hinting::Meaning;
use crate::numbers::NUMBERS_PER_CHAIN_MAX;
use crate::{Balloon, BalloonQueue, Error, PageSink, RamLayout, numbers, reporting, statistics};

/// Requests served in one turn: half a queue, so that a driver that refills as fast as it can still lets
/// others in.
pub const CHAINS_PER_TURN: usize = 64;

/// Pages after which a turn takes no further request: that of one request at its largest. A report names at
/// most all of RAM.
pub const NUMBERS_PER_TURN: usize = NUMBERS_PER_CHAIN_MAX;

/// What a turn did.
#[derive(Debug, Default)]
pub struct Progress {
    /// Buffers went back to the driver: it wants a used buffer notification.
    pub used: bool,
    /// There is more to do: call again, whether or not the driver notifies.
    pub more: bool,
    /// The configuration space changed: the driver is to be told.
    pub config_changed: bool,
    /// The last request that was refused, in whole or in part.
    pub refused: Option<Error>,
}

impl<S: PageSink> Balloon<S> {
    /// One turn of work on a queue.
    ///
    /// # Errors
    /// The device needs a reset. Refused requests are no error, see [`Progress::refused`].
    pub fn process<M: GuestMemory>(
        &self,
        which: BalloonQueue,
        queue: &mut Queue,
        memory: &M,
    ) -> Result<Progress, BrokenRing> {
        self.turn(which, queue, memory).map_err(BrokenRing::of(which.name()))
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
            let (head, size) = (chain.head_index(), queue.size());
            let (done, result) = match which {
                BalloonQueue::Inflate | BalloonQueue::Deflate => {
                    (Some(head), self.page_numbers(which, chain, size, memory, &mut numbers))
                }
                BalloonQueue::Reporting => (Some(head), self.report(chain, size, &mut numbers)),
                BalloonQueue::Hinting => {
                    let result = self.hint(chain, size, memory, &mut numbers);
                    progress.config_changed |= matches!(result, Ok(true));
                    (Some(head), result.map(drop))
                }
                BalloonQueue::Statistics => self.keep_statistics(chain, size, memory),
            };
            if let Err(error) = result {
                self.state().counts.rejected += 1;
                progress.refused = Some(error);
            }
            if let Some(head) = done {
                // "In either case, the device acknowledges inflate and deflate requests by using the
                // descriptor" (5.5.6). It wrote nothing into it.
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

    fn ram(&self) -> Arc<RamLayout> {
        self.state().ram.clone()
    }

    fn page_numbers<M: GuestMemory>(
        &self,
        which: BalloonQueue,
        chain: DescriptorChain<&M>,
        queue_size: u16,
        memory: &M,
        numbers: &mut usize,
    ) -> Result<(), Error> {
        let buffers = readable(chain, queue_size)?;
        // Refused numbers are work too.
        *numbers += numbers::count(&buffers)?;
        let mut pages = 0;
        let result = numbers::read(memory, buffers, &self.ram(), |range| {
            pages += range.len() as u64;
            match which {
                BalloonQueue::Inflate => self.sink.inflate(range),
                _ => self.sink.deflate(range),
            }
        });
        let counts = &mut self.state().counts;
        match which {
            BalloonQueue::Inflate => counts.inflated_pages += pages,
            _ => counts.deflated_pages += pages,
        }
        result
    }

    fn report<M: GuestMemory>(
        &self,
        chain: DescriptorChain<&M>,
        queue_size: u16,
        numbers: &mut usize,
    ) -> Result<(), Error> {
        let buffers = writable(chain, queue_size)?;
        let fill = self.state().fill();
        let mut pages = 0;
        let result = self.read_ranges(&buffers, numbers, |range| {
            pages += range.len() as u64;
            self.sink.report_free(range, fill);
        });
        self.state().counts.reported_pages += pages;
        result
    }

    /// A command id, or pages that are free, or one after the other. Whether the configuration space changed.
    fn hint<M: GuestMemory>(
        &self,
        chain: DescriptorChain<&M>,
        queue_size: u16,
        memory: &M,
        numbers: &mut usize,
    ) -> Result<bool, Error> {
        let Chain { readable: command, writable: pages } = Chain::gather(chain, queue_size)?;
        let mut over = false;
        if command.bytes() > 0 {
            let id = read_command(memory, command)?;
            over = self.state().hinting.receive(id) == Meaning::Over;
        }
        let result = self.hinted_pages(&pages, numbers);
        if over {
            self.end_hinting();
            over = self.announce_done();
        }
        result.map(|()| over)
    }

    fn hinted_pages(&self, buffers: &Buffers, numbers: &mut usize) -> Result<(), Error> {
        // "The device MUST ignore pages that are provided with a command ID that does not match the current
        // value in free_page_hint_cmd_id" (5.5.6.5.2).
        let (accepted, fill) = {
            let state = self.state();
            (state.hinting.accepts(), state.fill())
        };
        let (mut pages, mut dropped) = (0, 0);
        let result = self.read_ranges(buffers, numbers, |range| {
            pages += range.len() as u64;
            if accepted {
                dropped += u64::from(self.sink.drop_hinted(range, fill));
            }
        });
        let counts = &mut self.state().counts;
        *(if accepted { &mut counts.hinted_pages } else { &mut counts.hint_ignored_pages }) += pages;
        counts.hint_dropped_pages += dropped;
        result
    }

    fn read_ranges(
        &self,
        buffers: &Buffers,
        numbers: &mut usize,
        mut hand_on: impl FnMut(Range<u32>),
    ) -> Result<(), Error> {
        reporting::read(buffers.parts(), &self.ram(), |range| {
            *numbers += range.len();
            hand_on(range);
        })
    }

    /// Keeps the buffer, whatever it says: it is what the next request is made with.
    fn keep_statistics<M: GuestMemory>(
        &self,
        chain: DescriptorChain<&M>,
        queue_size: u16,
        memory: &M,
    ) -> (Option<u16>, Result<(), Error>) {
        let head = chain.head_index();
        let read = readable(chain, queue_size).and_then(|buffers| statistics::read(memory, buffers));
        let (values, result) = match read {
            Ok(values) => (Some(values), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let mut state = self.state();
        let answers = state.statistics.is_primed() && values.is_some();
        state.counts.statistics += u64::from(answers);
        (state.statistics.keep(head, values), result)
    }

    fn take_requested_statistics(&self) -> Option<u16> {
        self.state().statistics.take_requested()
    }
}
