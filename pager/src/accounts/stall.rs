//! What overcommit costs a guest: time its vCPUs spent blocked in faults, by what they waited for, and by how
//! long each wait was.

use std::time::Duration;

use control::status::{LatencyStatus, StallStatus};

use crate::{
    accounts::latency::Latency,
    pages::table::{Entry, State},
    sync::{AtomicU64, Ordering},
};

/// What a thread that faulted waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Fresh,
    Shared,
    Broken,
    Compressed,
    Kernel,
    Swapped,
    Moving,
    Memory,
}

const CAUSES: usize = Cause::Memory as usize + 1;

impl Cause {
    /// Of a fault on a page in this state. A hint: the state may have changed a moment later.
    pub fn of(entry: Entry, write: bool) -> Cause {
        match entry.state() {
            _ if entry.locked() => Cause::Moving,
            State::Zero | State::Ballooned => Cause::Fresh,
            State::Shared if write => Cause::Broken,
            State::Shared => Cause::Shared,
            State::Compressed => Cause::Compressed,
            State::Swapped | State::Clean => Cause::Swapped,
            State::Private => Cause::Moving,
        }
    }
}

/// Time by cause, and each wait; only grows, orders nothing.
#[derive(Default)]
pub(crate) struct Stall {
    ns: [AtomicU64; CAUSES],
    waits: Latency,
}

impl Stall {
    /// A vCPU waited for so long.
    pub fn add(&self, cause: Cause, waited: Duration) {
        self.ns[cause as usize].fetch_add(waited.as_nanos() as u64, Ordering::Relaxed);
        self.waits.add(waited);
    }

    /// The waits that are over.
    pub fn waits(&self) -> LatencyStatus {
        self.waits.status()
    }

    /// As figures, with what is still being waited for.
    pub fn status(&self, under_way: impl Fn(Cause) -> Duration) -> StallStatus {
        let ns = |cause: Cause| self.ns[cause as usize].load(Ordering::Relaxed) + under_way(cause).as_nanos() as u64;
        StallStatus {
            fresh_ns: ns(Cause::Fresh),
            shared_ns: ns(Cause::Shared),
            broken_ns: ns(Cause::Broken),
            compressed_ns: ns(Cause::Compressed),
            kernel_ns: ns(Cause::Kernel),
            swapped_ns: ns(Cause::Swapped),
            moving_ns: ns(Cause::Moving),
            memory_ns: ns(Cause::Memory),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::run_once;
    use wire::Frame;

    use crate::pages::table::Left;

    #[test]
    fn a_fault_waits_for_what_its_page_is() {
        for (entry, write, cause) in [
            (Entry::UNTOUCHED, true, Cause::Fresh),
            (Entry::private().into_ballooned(), false, Cause::Fresh),
            (Entry::shared(Frame(1)), false, Cause::Shared),
            (Entry::shared(Frame(1)), true, Cause::Broken),
            (Entry::pooled(1, Left::default()), true, Cause::Compressed),
            (Entry::swapped(1, Left::default()), false, Cause::Swapped),
            (Entry::swapped(1, Left::default()).with_lock(), false, Cause::Moving),
            (Entry::private(), true, Cause::Moving),
        ] {
            assert_eq!(Cause::of(entry, write), cause, "{entry:?}");
        }
    }

    #[test]
    fn the_causes_sum_to_all_that_was_waited() {
        run_once(|| {
            let stall = Stall::default();
            stall.add(Cause::Swapped, Duration::from_nanos(30));
            stall.add(Cause::Memory, Duration::from_nanos(5));
            let status = stall.status(|cause| Duration::from_nanos(u64::from(cause == Cause::Memory)));
            assert_eq!((status.swapped_ns, status.memory_ns, status.sum_ns()), (30, 6, 36));
            let waits = stall.waits();
            assert_eq!((waits.buckets.iter().sum::<u64>(), waits.ns_total, waits.ns_max), (2, 35, 30));
        });
    }
}
