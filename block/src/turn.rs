//! One turn of work on the queue.

use std::{io, mem};

use chains::{Bounds, BrokenRing, Buffers, Chain, Served};
use virtio_queue::{DescriptorChain, Queue};
use vm_memory::GuestMemory;
use wire::block::S_OK;

use crate::device::{Block, Cache, Counts};
use crate::disk::Disk;
use crate::request::Request;
use crate::scratch::Scratch;
use crate::{Error, SCRATCH_BYTES};

/// Requests served in one turn: a quarter of a queue. A reset waits for a turn to end.
pub const REQUESTS_PER_TURN: usize = 64;

/// Bytes moved after which a turn takes no further request.
pub const BYTES_PER_TURN: u64 = 4 << 20;

/// What a flush or a hole counts as, in bytes moved: a turn has 16 of them at most.
const SLOW_BYTES: u64 = BYTES_PER_TURN / 16;

/// What a turn did, and the last request that failed or was refused.
pub type Progress = chains::Progress<Error>;

/// What a request came to, for the driver.
struct Done {
    /// Data written before the status.
    data_bytes: u64,
    work: u64,
}

impl<D: Disk> Block<D> {
    /// One turn of work on the queue.
    ///
    /// # Errors
    /// The device needs a reset. Refused requests are no error, see [`Progress::refused`].
    pub fn process<M: GuestMemory>(&self, queue: &mut Queue, memory: &M) -> Result<Progress, BrokenRing> {
        let bounds = Bounds { chains: REQUESTS_PER_TURN, work: BYTES_PER_TURN };
        let mut scratch = mem::take(&mut self.state().scratch);
        let turn = chains::turn(queue, memory, bounds, |chain, size| {
            let (served, error) = self.serve(chain, size, memory, &mut scratch);
            match error {
                Some(Error::Disk { .. }) => self.count(|counts| counts.failed += 1),
                Some(_) => self.count(|counts| counts.rejected += 1),
                None => {}
            }
            (served, error)
        });
        self.state().scratch = scratch;
        turn.map_err(BrokenRing::of("request"))
    }

    /// Serves a request and answers it, if it can be answered.
    fn serve<M: GuestMemory>(
        &self,
        chain: DescriptorChain<&M>,
        queue_size: u16,
        memory: &M,
        scratch: &mut Scratch,
    ) -> (Served, Option<Error>) {
        let refused = |error| (Served::default(), Some(error));
        let Chain { readable, mut writable } = match Chain::check(chain, memory, queue_size) {
            Ok(chain) => chain,
            Err(error) => return refused(error.into()),
        };
        // "The final status byte" (5.2.6) is the last one there is.
        let Some(data_bytes) = writable.bytes().checked_sub(1) else { return refused(Error::NoStatus) };
        let data = writable.take(data_bytes);
        let (status, work, written_bytes, error) = match self.execute(readable, data, memory, scratch) {
            // 2.7.8.2: bytes count from the first on, so the status counts only behind data that is whole.
            Ok(done) if done.data_bytes == data_bytes => (S_OK, done.work, data_bytes + 1, None),
            Ok(done) => (S_OK, done.work, done.data_bytes, None),
            Err(error) => (error.status(), SLOW_BYTES, u64::from(data_bytes == 0), Some(error)),
        };
        match writable.write(memory, &[status]) {
            // A chain has less than 4 GiB (`virtio-queue` ends it there).
            Ok(_) => (Served { written_bytes: written_bytes as u32, work }, error),
            Err(error) => (Served { written_bytes: 0, work }, Some(error.into())),
        }
    }

    fn execute<M: GuestMemory>(
        &self,
        mut readable: Buffers,
        mut data: Buffers,
        memory: &M,
        scratch: &mut Scratch,
    ) -> Result<Done, Error> {
        let geometry = self.disk.geometry();
        match Request::parse(memory, &mut readable, data.bytes(), geometry, self.disk.access())? {
            Request::Read(range) => {
                let bytes = range.end - range.start;
                in_pieces(range.start, bytes, scratch, |at_byte, piece| {
                    self.disk.read_at(at_byte, piece).map_err(failed("read", at_byte))?;
                    data.write(memory, piece)?;
                    Ok(())
                })?;
                self.count(|counts| {
                    counts.reads += 1;
                    counts.read_bytes += bytes;
                });
                Ok(Done { data_bytes: bytes, work: bytes })
            }
            Request::Write(range) => {
                let bytes = range.end - range.start;
                in_pieces(range.start, bytes, scratch, |at_byte, piece| {
                    readable.read(memory, piece)?;
                    self.disk.write_at(at_byte, piece).map_err(failed("write", at_byte))
                })?;
                self.count(|counts| {
                    counts.writes += 1;
                    counts.written_bytes += bytes;
                });
                self.stabilise(bytes)
            }
            Request::Flush => {
                self.flush()?;
                Ok(Done { data_bytes: 0, work: SLOW_BYTES })
            }
            Request::Id => {
                let data_bytes = data.write(memory, &self.id)? as u64;
                Ok(Done { data_bytes, work: 0 })
            }
            Request::Discard(ranges) => {
                let work = SLOW_BYTES * ranges.len() as u64;
                for range in ranges {
                    let (at_byte, bytes) = (range.start, range.end - range.start);
                    if bytes > 0 {
                        self.disk.discard(range).map_err(failed("discard", at_byte))?;
                    }
                    self.count(|counts| counts.discarded_bytes += bytes);
                }
                self.stabilise(work)
            }
            Request::WriteZeroes(ranges) => {
                let mut work = SLOW_BYTES * ranges.len() as u64;
                for (range, may_deallocate) in ranges {
                    let (at_byte, bytes) = (range.start, range.end - range.start);
                    if bytes > 0 {
                        self.disk.write_zeroes(range, may_deallocate).map_err(failed("write zeroes", at_byte))?;
                    }
                    work += bytes;
                    self.count(|counts| counts.zeroed_bytes += bytes);
                }
                self.stabilise(work)
            }
        }
    }

    /// Ends a write of this much work: with a flush, if the driver relies on it.
    fn stabilise(&self, work: u64) -> Result<Done, Error> {
        let through = self.state().cache == Cache::Through;
        if through {
            self.flush()?;
        }
        Ok(Done { data_bytes: 0, work: work + if through { SLOW_BYTES } else { 0 } })
    }

    fn flush(&self) -> Result<(), Error> {
        self.disk.flush().map_err(failed("flush", 0))?;
        self.count(|counts| counts.flushes += 1);
        Ok(())
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.state().counts);
    }
}

/// Hands on `bytes` from `at_byte` on in pieces of at most [`SCRATCH_BYTES`], each with a buffer of its
/// length.
fn in_pieces(
    mut at_byte: u64,
    mut bytes: u64,
    scratch: &mut Scratch,
    mut with: impl FnMut(u64, &mut [u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let scratch = scratch.bytes();
    while bytes > 0 {
        let step = bytes.min(SCRATCH_BYTES as u64);
        with(at_byte, &mut scratch[..step as usize])?;
        (at_byte, bytes) = (at_byte + step, bytes - step);
    }
    Ok(())
}

fn failed(doing: &'static str, at_byte: u64) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Disk { doing, at_byte, source }
}
