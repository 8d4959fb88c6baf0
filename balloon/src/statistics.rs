//! The statistics queue (5.5.6.3): one buffer that travels between driver and device.
//!
//! ```text
//!   Absent --driver makes its first buffer available--> Kept --poll_statistics, process--> Returned
//!                                                         ^                                      |
//!                                                         `--- driver fills it again: parsed ----'
//! ```
//!
//! "The driver MUST make at most one buffer available to the device in the statsq, at all times." If it makes
//! another one available, the older one is returned, so that no buffer is ever lost. The first buffer's
//! content is not used: to 5.5.5 it is an empty buffer, and old drivers left it uninitialised.
//!
//! "The device MUST ignore entries with tag values that it does not recognize" (5.5.6.3.2): they change
//! nothing here, and are handed on by number to whoever asks.

use chains::Buffers;
use vm_memory::GuestMemory;
use wire::balloon::STAT_BYTES;

use crate::Error;
use crate::buffers::{entries, read_batches};

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

    /// Keeps the buffer of chain `head`, which said `values`. The buffer to return instead, if there was one
    /// already.
    pub(crate) fn keep(&mut self, head: u16, values: Option<Vec<(u16, u64)>>) -> Option<u16> {
        if self.primed
            && let Some(values) = values
        {
            self.values = values;
        }
        self.primed = true;
        self.kept.replace(head)
    }

    /// Whether the next buffer is an answer.
    pub(crate) fn is_primed(&self) -> bool {
        self.primed
    }

    /// The buffer to return, if fresh values are wished for.
    pub(crate) fn take_requested(&mut self) -> Option<u16> {
        let head = self.kept.take_if(|_| self.requested)?;
        self.requested = false;
        Some(head)
    }
}

/// When the driver is asked.
#[derive(Debug, Default)]
pub(crate) struct Poll {
    interval_ms: u64,
    next_ms: Option<u64>,
}

impl Poll {
    pub(crate) fn interval_ms(&self) -> u64 {
        self.interval_ms
    }

    /// Asks every so often from now on, ms; 0 for never.
    pub(crate) fn set_interval_ms(&mut self, interval_ms: u64) {
        (self.interval_ms, self.next_ms) = (interval_ms, None);
    }

    /// Whether it is time. Time that was missed is not made up for.
    pub(crate) fn is_due(&mut self, now_ms: u64) -> bool {
        let due = self.interval_ms > 0 && self.next_ms.is_none_or(|next| now_ms >= next);
        if due {
            self.next_ms = Some(now_ms.saturating_add(self.interval_ms));
        }
        due
    }
}

/// The entries in `buffers`. Tags come in any order (5.5.6.3.2); of equal tags the last one counts; unknown
/// ones stay numbers.
pub(crate) fn read<M: GuestMemory>(memory: &M, buffers: Buffers) -> Result<Vec<(u16, u64)>, Error> {
    entries(&buffers, STAT_BYTES, STATISTICS_MAX)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_may_change_at_any_time() {
        let mut poll = Poll::default();
        assert!(!poll.is_due(0), "nobody asked for it");
        poll.set_interval_ms(100);
        assert_eq!(
            [5, 6, 104, 105, 400, 401, 500].map(|now| poll.is_due(now)),
            [true, false, false, true, true, false, true]
        );
        poll.set_interval_ms(10);
        assert_eq!([501, 502, 511].map(|now| poll.is_due(now)), [true, false, true]);
        poll.set_interval_ms(0);
        assert!(!poll.is_due(u64::MAX));
    }
}
