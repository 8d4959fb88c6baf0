//! A fault that waits, for a credit or for the disk.

use std::time::Instant;

use wire::Gfn;

use crate::sys::FaultEvent;

/// Faults that can wait for credits, one a thread: more threads than a VMM has, so that the room never grows.
pub(crate) const WAITING_MAX: usize = 128;

/// A fault that is not served yet.
#[derive(Clone, Copy)]
pub(crate) struct Waiting {
    pub event: FaultEvent,
    pub gfn: Gfn,
    pub since: Instant,
    /// What [`WaitClock`](super::wait_clock::WaitClock) showed then.
    pub clock_ms: u64,
    /// There was no credit for it when it came.
    pub starved: bool,
}
