//! The statistics queue (5.5.6.3): one buffer that travels between driver and device.
//!
//! ```text
//!   Absent --driver makes its first buffer available--> Kept --request_statistics, process--> Returned
//!                                                         ^                                      |
//!                                                         `--- driver fills it again: parsed ----'
//! ```
//!
//! "The driver MUST make at most one buffer available to the device in the statsq, at all times." If it makes another
//! one available, the older one is returned, so that no buffer is ever lost. The first buffer's content is not used: to
//! 5.5.5 it is an empty buffer, and old drivers left it uninitialised.

use vm_memory::GuestMemory;
use wire::balloon::STAT_BYTES;

use crate::Error;
use crate::buffers::{Buffer, entries, read_batches};

/// Statistics kept of one buffer: four times as many as the specification and Linux have tags.
pub const STATISTICS_MAX: usize = 64;

/// The buffer and what it said.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    values: Vec<(u16, u64)>,
    kept: Option<u16>,
    requested: bool,
    primed: bool,
}

impl Statistics {
    /// What the driver said last, by tag: what it did not say is absent.
    pub(crate) fn values(&self) -> &[(u16, u64)] {
        &self.values
    }

    /// Wishes for fresh values.
    pub(crate) fn request(&mut self) {
        self.requested = true;
    }

    /// Keeps the buffer of chain `head`, which said `values`. The buffer to return instead, if there was one already.
    pub(crate) fn keep(&mut self, head: u16, values: Option<Vec<(u16, u64)>>) -> Option<u16> {
        if self.primed
            && let Some(values) = values
        {
            self.values = values;
        }
        self.primed = true;
        self.kept.replace(head)
    }

    /// The buffer to return, if fresh values are wished for.
    pub(crate) fn take_requested(&mut self) -> Option<u16> {
        let head = self.kept.take_if(|_| self.requested)?;
        self.requested = false;
        Some(head)
    }
}

/// The entries in `buffers`. Tags come in any order (5.5.6.3.2); of equal tags the last one counts; unknown ones stay numbers.
pub(crate) fn read<M: GuestMemory>(memory: &M, buffers: &[Buffer]) -> Result<Vec<(u16, u64)>, Error> {
    entries(buffers, STAT_BYTES, STATISTICS_MAX)?;
    let mut values: Vec<(u16, u64)> = Vec::new();
    read_batches(memory, buffers, STATISTICS_MAX * STAT_BYTES, |bytes| {
        for &[t0, t1, ref value @ ..] in bytes.as_chunks::<STAT_BYTES>().0 {
            let (tag, value) = (u16::from_le_bytes([t0, t1]), u64::from_le_bytes(*value));
            match values.iter_mut().find(|(known, _)| *known == tag) {
                Some(entry) => entry.1 = value,
                None => values.push((tag, value)),
            }
        }
    })?;
    values.sort_unstable();
    Ok(values)
}
