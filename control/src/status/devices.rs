//! What a Linux guest's disks and networks did so far.

use serde::{Deserialize, Serialize};

/// Requests to disks, and what they moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Reads done.
    pub reads_total: u64,
    /// Bytes of them.
    pub read_bytes_total: u64,
    /// Writes done.
    pub writes_total: u64,
    /// Bytes of them.
    pub written_bytes_total: u64,
    /// Flushes done.
    pub flushes_total: u64,
    /// Bytes discarded.
    pub discarded_bytes_total: u64,
    /// Requests that the disk failed.
    pub failed_total: u64,
    /// Requests refused as malformed.
    pub rejected_total: u64,
}

/// Frames sent and received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Frames sent.
    pub sent_frames_total: u64,
    /// Bytes of them.
    pub sent_bytes_total: u64,
    /// Frames received.
    pub received_frames_total: u64,
    /// Bytes of them.
    pub received_bytes_total: u64,
    /// Frames that the tap, or the guest's driver, did not take.
    pub dropped_total: u64,
    /// Requests refused as malformed.
    pub rejected_total: u64,
}
