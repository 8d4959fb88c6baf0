//! The device: its features, its configuration space, and what it has counted. Its turns of work are in
//! [`crate::turn`].
//!
//! [`Block::process`] is called by one device thread at a time; everything else by any thread. The state's
//! lock is a leaf: never held over guest memory, a queue or the disk.

use std::sync::{Mutex, MutexGuard, PoisonError};

use wire::block::{
    F_BLK_SIZE, F_CONFIG_WCE, F_DISCARD, F_FLUSH, F_RO, F_SEG_MAX, F_SIZE_MAX, F_WRITE_ZEROES, ID_BYTES,
};
use wire::virtio::{F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1};

use crate::config;
use crate::disk::{Access, Disk};
use crate::scratch::Scratch;

/// Features of a disk that may be written; one that may not has `F_RO` instead of those that only writes
/// need.
pub const FEATURES: u64 = READING | WRITING;

const READING: u64 = 1 << F_VERSION_1
    | 1 << F_INDIRECT_DESC
    | 1 << F_EVENT_IDX
    | 1 << F_SIZE_MAX
    | 1 << F_SEG_MAX
    | 1 << F_BLK_SIZE
    | 1 << F_FLUSH
    | 1 << F_CONFIG_WCE;

const WRITING: u64 = 1 << F_DISCARD | 1 << F_WRITE_ZEROES;

/// The device.
#[derive(Debug)]
pub struct Block<D> {
    pub(crate) disk: D,
    pub(crate) id: [u8; ID_BYTES],
    state: Mutex<BlockState>,
}

#[derive(Debug, Default)]
pub(crate) struct BlockState {
    pub(crate) counts: Counts,
    pub(crate) cache: Cache,
    config_wce: bool,
    /// Taken by a turn, and put back.
    pub(crate) scratch: Scratch,
}

/// When a write is stable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cache {
    /// After the next flush.
    #[default]
    Back,
    /// Once it is completed.
    Through,
}

/// What has happened since the device was made. Resets do not touch it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads done.
    pub reads: u64,
    /// Bytes of them.
    pub read_bytes: u64,
    /// Writes done.
    pub writes: u64,
    /// Bytes of them.
    pub written_bytes: u64,
    /// Flushes done, also those that a cache written through makes of each write.
    pub flushes: u64,
    /// Bytes discarded.
    pub discarded_bytes: u64,
    /// Bytes set to zero by write-zeroes.
    pub zeroed_bytes: u64,
    /// Requests that the disk failed.
    pub failed: u64,
    /// Requests refused, and nonsense written to the configuration space.
    pub rejected: u64,
}

impl<D: Disk> Block<D> {
    /// A device for `disk`; the driver sees the first 20 bytes of `id` as its serial number.
    pub fn new(disk: D, id: &str) -> Self {
        let mut padded = [0; ID_BYTES];
        let bytes = id.len().min(ID_BYTES);
        padded[..bytes].copy_from_slice(&id.as_bytes()[..bytes]);
        Block { disk, id: padded, state: Mutex::default() }
    }

    /// The disk.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Features offered.
    pub fn features(&self) -> u64 {
        match self.disk.access() {
            Access::ReadWrite => FEATURES,
            Access::ReadOnly => READING | 1 << F_RO,
        }
    }

    /// Driver and device have agreed on `features`.
    pub fn set_features(&self, features: u64) {
        let mut state = self.state();
        let has = |feature: u32| features >> feature & 1 == 1;
        // 5.2.5.2 and 5.2.6.2: a driver that cannot flush has a cache that is written through.
        state.cache = if has(F_FLUSH) { Cache::Back } else { Cache::Through };
        state.config_wce = has(F_CONFIG_WCE);
    }

    /// The driver is gone, and its buffers and wishes with it.
    pub fn reset(&self) {
        let mut state = self.state();
        (state.cache, state.config_wce) = (Cache::default(), false);
    }

    /// Reads the configuration space (5.2.4); what lies behind it reads 0.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        let writeback = self.state().cache == Cache::Back;
        config::read(self.disk.geometry(), writeback, offset, data);
    }

    /// Writes the configuration space, where it is the driver's; everything else is refused and counted.
    pub fn write_config(&self, offset: u64, data: &[u8]) {
        let mut state = self.state();
        match config::written(offset, data) {
            Some(writeback) if state.config_wce => {
                state.cache = if writeback { Cache::Back } else { Cache::Through };
            }
            _ => state.counts.rejected += 1,
        }
    }

    /// Every change of the state is whole, so a panic elsewhere leaves nothing half done in it.
    pub(crate) fn state(&self) -> MutexGuard<'_, BlockState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
