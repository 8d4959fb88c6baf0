//! The device, and its turns of work.

use std::sync::{Mutex, MutexGuard, PoisonError};

use chains::{Bounds, BrokenRing, Chain, Served};
use virtio_queue::{DescriptorChain, Queue};
use vm_memory::GuestMemory;
use wire::virtio::{F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1};

use crate::{Error, Source};

/// Features offered: 5.4.3 has none of the device's own.
pub const FEATURES: u64 = 1 << F_VERSION_1 | 1 << F_INDIRECT_DESC | 1 << F_EVENT_IDX;

/// Most bytes that one request gets: four times what Linux asks for at once, and as much as the kernel gives
/// without a pause.
pub const BYTES_PER_REQUEST: usize = 256;

/// Requests served in one turn.
pub const REQUESTS_PER_TURN: usize = 16;

/// The device. Random bytes come from the [`Source`].
#[derive(Debug)]
pub struct Rng<S> {
    source: S,
    counts: Mutex<Counts>,
}

/// What has happened since the device was made. Resets do not touch it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Random bytes handed out.
    pub bytes: u64,
    /// Requests that the source failed.
    pub failed: u64,
    /// Requests refused.
    pub rejected: u64,
}

/// What a turn did, and the last request that failed or was refused.
pub type Progress = chains::Progress<Error>;

impl<S: Source> Rng<S> {
    /// A device with this source.
    pub fn new(source: S) -> Self {
        Rng { source, counts: Mutex::default() }
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        *self.lock()
    }

    /// One turn of work on the queue, by one device thread at a time.
    ///
    /// # Errors
    /// The device needs a reset. Refused requests are no error, see [`Progress::refused`].
    pub fn process<M: GuestMemory>(&self, queue: &mut Queue, memory: &M) -> Result<Progress, BrokenRing> {
        let bounds = Bounds { chains: REQUESTS_PER_TURN, work: u64::MAX };
        let turn = chains::turn(queue, memory, bounds, |chain, size| {
            let result = self.serve(chain, size, memory);
            let mut counts = self.lock();
            match result {
                Ok(_) => {}
                Err(Error::Source(_)) => counts.failed += 1,
                Err(_) => counts.rejected += 1,
            }
            let written_bytes = *result.as_ref().unwrap_or(&0);
            counts.bytes += u64::from(written_bytes);
            (Served { written_bytes, work: 0 }, result.err())
        });
        turn.map_err(BrokenRing::of("request"))
    }

    fn serve<M: GuestMemory>(&self, chain: DescriptorChain<&M>, queue_size: u16, memory: &M) -> Result<u32, Error> {
        let Chain { readable, mut writable } = Chain::check(chain, memory, queue_size)?;
        if readable.bytes() > 0 {
            return Err(Error::Readable { bytes: readable.bytes() });
        }
        let mut random = [0; BYTES_PER_REQUEST];
        let bytes = random.len().min(usize::try_from(writable.bytes()).unwrap_or(usize::MAX));
        if bytes == 0 {
            return Err(Error::Empty);
        }
        self.source.fill(&mut random[..bytes]).map_err(Error::Source)?;
        writable.write(memory, &random[..bytes])?;
        Ok(bytes as u32)
    }

    /// Every change of the counts is whole.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
