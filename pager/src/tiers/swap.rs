//! The swap file: where pages go that neither compress nor fit in the pool.
//!
//! ```text
//!   file       | cluster 0 (1 MiB) | cluster 1 | ...         unlinked, preallocated, opened for direct I/O
//!   cluster    | slot 0 (4 KiB) | slot 1 | ... | slot 255 |  the unit that is discarded once all is free
//!   slot       | a page as the guest left it                |  offset = slot number × 4096
//!
//!   in memory  | taken: 1 bit a slot | checksum: 8 B a slot in use |      never on the disk they vouch for
//! ```
//!
//! A checksum is the xxh3 of the page, seeded with its slot and its page number: a flipped bit, a write that
//! never reached the disk, one that reached another slot, and a slot read for another page are all found.
//! What does not match stops the guest.
//!
//! **Invariant:** a page's own copy is given up only after its slot was written whole.
//! **Invariant:** no lock is held over I/O. A slot belongs to whoever allocated it, a cluster under discard
//! to nobody.
//! **Invariant:** an error while writing loses nothing: the pages stay where they are, and the file is left
//! alone for a while.

#[cfg(test)]
#[path = "../../tests/faulty/mod.rs"]
pub(crate) mod fake;
mod slots;

use std::{
    io,
    time::{Duration, Instant},
};

use control::status::SwapStatus;
use wire::{Gfn, PAGE_BYTES, PageBytes};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    accounts::latency::Latency,
    sync::{AtomicU64, Mutex, Ordering, lock},
    sys::{PageBuffer, SlotFile},
};
use slots::Slots;

/// Times a slot is read before its guest is given up: a transfer that went wrong once may go right the next
/// time.
const READ_TRIES: u32 = 3;
/// How long the file is left alone after a write failed; doubled with each further failure, ...
const SUSPENSION_MS_MIN: u64 = 1_000;
/// ... up to this.
const SUSPENSION_MS_MAX: u64 = 60_000;

/// Why a slot could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// the file cannot be read
    #[error("{0}")]
    Io(#[from] io::Error),
    /// other bytes than were written
    #[error(
        "its checksum is {found:#018x} and should be {expected:#018x}: the disk or its file was tampered with or is failing"
    )]
    Checksum {
        /// Of what was written.
        expected: u64,
        /// Of what was read.
        found: u64,
    },
}

/// One guest's swap file.
pub struct Swap {
    file: Box<dyn SlotFile>,
    slots: Mutex<Slots>,
    health: Mutex<Health>,
    writes: Latency,
    reads: Latency,
    counters: Counters,
}

macro_rules! counters {
    ($($(#[$meaning:meta])* $counter:ident)*) => {
        /// Only ever grow; relaxed everywhere, they order nothing.
        #[derive(Default)]
        struct Counters {
            $($(#[$meaning])* $counter: AtomicU64,)*
        }
    };
}

control::swap_counters!(counters);

/// What errors have taught.
#[derive(Default)]
struct Health {
    /// No writing before this moment, ms on the pager's clock.
    suspended_until_ms: u64,
    suspension_ms: u64,
    trouble: Option<String>,
}

impl Swap {
    /// An empty swap file over `file`, whose length is a whole number of pages.
    pub fn new(file: Box<dyn SlotFile>) -> Swap {
        // Slot numbers are 32 bits, as page numbers are: 16 TiB.
        let count = u32::try_from(file.bytes() / PAGE_BYTES as u64).unwrap_or(u32::MAX);
        Swap {
            file,
            slots: Mutex::new(Slots::new(count)),
            health: Mutex::default(),
            writes: Latency::default(),
            reads: Latency::default(),
            counters: Counters::default(),
        }
    }

    /// Whether a page may be written at `now_ms`: there is a free slot, and the last error is long enough
    /// ago.
    pub fn usable(&self, now_ms: u64) -> bool {
        lock(&self.health).suspended_until_ms <= now_ms && lock(&self.slots).free() > 0
    }

    /// Writes `pages` (at most `buffer`'s), whose bytes are in `buffer` in the same order, and tells
    /// `written` the slot of each that is safe. Those it does not hear of were not written: the file is full,
    /// or an error ended the try.
    pub fn write(&self, pages: &[Gfn], buffer: &PageBuffer, now_ms: u64, mut written: impl FnMut(usize, u64)) {
        let mut done = 0;
        while done < pages.len() {
            let Some(run) = lock(&self.slots).allocate((pages.len() - done) as u32) else { return };
            let count = run.len();
            let start = Instant::now();
            let result = write_whole(&*self.file, buffer.bytes(done, count), u64::from(run.start) * PAGE_BYTES as u64);
            self.writes.add(start.elapsed());
            if let Err(error) = result {
                let mut slots = lock(&self.slots);
                run.for_each(|slot| slots.free_slot(slot));
                drop(slots);
                return self.suspend(now_ms, &error);
            }
            lock(&self.health).suspension_ms = 0;
            self.counters.pages_out_total.fetch_add(count as u64, Ordering::Relaxed);
            for (index, slot) in (done..).zip(run) {
                let sum = checksum(buffer.page(index), slot, pages[index]);
                lock(&self.slots).set_checksum(slot, sum);
                written(index, u64::from(slot));
            }
            done += count;
        }
    }

    /// Reads back what was written for `gfn` and the pages behind it to `slot` and the slots behind it,
    /// `count` (at most `buffer`'s). How many are right, from the first on, which must be.
    pub fn read(&self, slot: u64, gfn: Gfn, count: u32, buffer: &mut PageBuffer) -> Result<u32, ReadError> {
        let slot = slot as u32;
        let expected = lock(&self.slots).checksum(slot);
        let mut tries = 1;
        loop {
            let start = Instant::now();
            // What cannot be read together may be read alone.
            let together = if tries == 1 { count } else { 1 };
            let offset = u64::from(slot) * PAGE_BYTES as u64;
            let result = read_whole(&*self.file, buffer.bytes_mut(0, together as usize), offset);
            self.reads.add(start.elapsed());
            let more = if result.is_ok() { together } else { 1 };
            let found = result.map(|()| checksum(buffer.page(0), slot, gfn));
            let error = match found {
                Ok(found) if found == expected => {
                    let right = 1 + (1..more).take_while(|&page| self.is_right(slot, gfn, page, buffer)).count() as u32;
                    self.counters.pages_in_total.fetch_add(u64::from(right), Ordering::Relaxed);
                    return Ok(right);
                }
                Ok(found) => ReadError::Checksum { expected, found },
                Err(error) => ReadError::Io(error),
            };
            self.counters.read_errors_total.fetch_add(1, Ordering::Relaxed);
            if tries == READ_TRIES {
                return Err(error);
            }
            tries += 1;
        }
    }

    /// Whether page `number` of the buffer is what was written to that slot behind `slot`.
    fn is_right(&self, slot: u32, gfn: Gfn, number: u32, buffer: &PageBuffer) -> bool {
        let (slot, gfn) = (slot + number, gfn.plus(number));
        checksum(buffer.page(number as usize), slot, gfn) == lock(&self.slots).checksum(slot)
    }

    /// Nobody needs the slot any more.
    pub fn free(&self, slot: u64) {
        lock(&self.slots).free_slot(slot as u32);
    }

    /// Gives the disk back what freed slots held, whole clusters at a time; they stay reserved.
    pub fn discard_freed(&self) {
        let mut from = 0;
        loop {
            let Some(run) = lock(&self.slots).withdraw(from) else { return };
            from = run.end;
            let bytes = run.len() as u64 * PAGE_BYTES as u64;
            // A discard that fails costs disk space, not content: the slots are written over before they are
            // read.
            if self.file.discard(u64::from(run.start) * PAGE_BYTES as u64, bytes).is_ok() {
                self.counters.discarded_bytes_total.fetch_add(bytes, Ordering::Relaxed);
            }
            lock(&self.slots).restore(run);
        }
    }

    fn suspend(&self, now_ms: u64, error: &io::Error) {
        self.counters.write_errors_total.fetch_add(1, Ordering::Relaxed);
        let mut health = lock(&self.health);
        health.suspension_ms = (health.suspension_ms * 2).clamp(SUSPENSION_MS_MIN, SUSPENSION_MS_MAX);
        health.suspended_until_ms = now_ms + health.suspension_ms;
        health.trouble = Some(format!(
            "writing the swap file: {error}; no page was lost, eviction does without it for {:?}",
            Duration::from_millis(health.suspension_ms)
        ));
    }

    /// What went wrong with writing since last asked, in a line for the log.
    pub fn take_trouble(&self) -> Option<String> {
        lock(&self.health).trouble.take()
    }

    /// Figures.
    pub fn status(&self, now_ms: u64) -> SwapStatus {
        let (slots, free) = {
            let slots = lock(&self.slots);
            (u64::from(slots.count()), u64::from(slots.free()))
        };
        macro_rules! status {
            ($($(#[$meaning:meta])* $counter:ident)*) => {
                SwapStatus {
                    capacity_bytes: slots * PAGE_BYTES as u64,
                    used_bytes: (slots - free) * PAGE_BYTES as u64,
                    suspended: lock(&self.health).suspended_until_ms > now_ms,
                    $($counter: self.counters.$counter.load(Ordering::Relaxed),)*
                    write_latency: self.writes.status(),
                    read_latency: self.reads.status(),
                }
            };
        }
        control::swap_counters!(status)
    }
}

fn checksum(page: &PageBytes, slot: u32, gfn: Gfn) -> u64 {
    xxh3_64_with_seed(page, u64::from(slot) << 32 | u64::from(gfn.0))
}

/// Writes all of `bytes`, whole pages, at `offset`. After a short write it goes on with the page that was
/// cut: direct I/O begins at pages only.
fn write_whole(file: &dyn SlotFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match file.write_at(&bytes[done..], offset + done as u64) {
            Ok(written) if written < PAGE_BYTES => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => done += written / PAGE_BYTES * PAGE_BYTES,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills `bytes`, whole pages, from `offset` on.
fn read_whole(file: &dyn SlotFile, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(read) if read < PAGE_BYTES => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before it; was it truncated?"));
            }
            Ok(read) => done += read / PAGE_BYTES * PAGE_BYTES,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
