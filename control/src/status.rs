//! How a guest is: the figures a VMM sends, ten times a second, and everything shown anywhere is made of.

mod devices;
mod pager;

use serde::{Deserialize, Serialize};

use crate::Dedup;

pub use devices::{DiskStatus, NetworkStatus};
pub use pager::{PagerStatus, SampleStatus, SamplingStatus, StallStatus, SwapStatus, TakenStatus};

/// Latency buckets: bucket `i` counts faults served in at most [`latency_bound_ns`]`(i)`; the last one has no
/// bound.
pub const LATENCY_BUCKETS: usize = 42;

/// Upper bound of a bucket, ns: 1 µs, 1.41 µs, 2 µs, ... to 1 s by factors of √2.
pub fn latency_bound_ns(bucket: usize) -> u64 {
    if bucket + 1 >= LATENCY_BUCKETS {
        return u64::MAX;
    }
    let octave = 1000u64 << (bucket / 2);
    if bucket.is_multiple_of(2) { octave } else { octave + octave * 414 / 1000 }
}

/// The bucket that counts `ns`.
pub fn latency_bucket(ns: u64) -> usize {
    (0..LATENCY_BUCKETS).find(|&bucket| ns <= latency_bound_ns(bucket)).unwrap_or(LATENCY_BUCKETS - 1)
}

/// Everything about one guest at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GuestStatus {
    /// Guest RAM, bytes.
    pub memory_bytes: u64,
    /// See [`PagerStatus`].
    pub pager: PagerStatus,
    /// See [`DedupStatus`].
    pub dedup: DedupStatus,
    /// See [`BalloonStatus`].
    pub balloon: BalloonStatus,
    /// All its disks together.
    pub disks: DiskStatus,
    /// All its networks together.
    pub networks: NetworkStatus,
    /// See [`WorkloadStatus`].
    pub workload: WorkloadStatus,
    /// Time the vCPUs were held back because the host was short of memory, ns.
    pub held_ns_total: u64,
    /// The guest is paused, and no vCPU is in it any more.
    pub paused: bool,
}

/// Guest pages by state. They sum to the guest's RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageCounts {
    /// Its own anonymous host page.
    pub private: u64,
    /// A frame of the store.
    pub shared: u64,
    /// Zero, or never touched.
    pub zero: u64,
    /// Given up by the guest.
    pub ballooned: u64,
    /// In the compressed pool, same-filled ones included.
    pub compressed: u64,
    /// In the swap file.
    pub swapped: u64,
    /// Dropped: the image that the guest started from has them.
    pub clean: u64,
}

/// How long something took, each time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyStatus {
    /// Times by bucket; see [`latency_bound_ns`].
    pub buckets: Vec<u64>,
    /// All together, ns.
    pub ns_total: u64,
    /// The longest, ns.
    pub ns_max: u64,
}

/// What the scanner did so far, and why pages are not shared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DedupStatus {
    /// Merges with the frame at the page's own address.
    pub merged_same_address_total: u64,
    /// Merges with a frame elsewhere.
    pub merged_alias_total: u64,
    /// Pages found to be all zero and dropped.
    pub merged_zero_total: u64,
    /// Pages hashed.
    pub hashed_total: u64,
    /// Pages sent to the store.
    pub published_total: u64,
    /// Comparisons that failed: the page had changed, or hashes collided.
    pub mismatches_total: u64,
    /// Whole passes over the guest.
    pub passes_total: u64,
    /// Scanner's CPU time, ns.
    pub cpu_ns: u64,
    /// Address-space areas that aliases cost now.
    pub vmas: u64,
    /// Areas won back from aliases that shared nothing any more.
    pub vmas_won_back_total: u64,
    /// Most areas they may cost.
    pub vma_budget: u64,
    /// Runs of pages that were refused for want of areas, while all content was told once: at most two areas
    /// each would take them.
    pub vma_refused_runs: u64,
    /// What is done about equal pages.
    pub mode: Dedup,
    /// Private pages at the end of the last pass; see [`crate::explain`].
    pub unmerged: Unmerged,
}

/// Private pages by the reason why they are, as of the scanner's last visits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmerged {
    /// Content changed between the last two visits.
    pub volatile: u64,
    /// Stable, content not seen elsewhere.
    pub unique: u64,
    /// Merged before, and broken by the guest.
    pub broken: u64,
    /// An alias would exceed the VMA budget.
    pub vma_budget: u64,
    /// Content seen elsewhere, but the frame store has no room.
    pub store_budget: u64,
}

/// The balloon, and what the guest says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BalloonStatus {
    /// Asked for, bytes.
    pub requested_bytes: u64,
    /// Given by the guest, bytes.
    pub actual_bytes: u64,
    /// Pages taken in all.
    pub inflated_pages_total: u64,
    /// Pages given back in all.
    pub deflated_pages_total: u64,
    /// Pages reported free in all.
    pub reported_pages_total: u64,
    /// Pages named in rounds of free page hinting in all.
    pub hinted_pages_total: u64,
    /// Part of them that was dropped: the guest had not written to them since.
    pub hint_dropped_pages_total: u64,
    /// Rounds of free page hinting that ended.
    pub hint_rounds_total: u64,
    /// How long reported pages are left alone, ms; `u64::MAX` for ever.
    pub report_delay_ms: u64,
    /// Pages that were reported free and left as they were.
    pub reports_left_pages_total: u64,
    /// CPU time of the device thread in the balloon's queues, ns: inflating and deflating, ...
    pub inflate_cpu_ns: u64,
    /// ... and taking what is reported free or hinted at.
    pub report_cpu_ns: u64,
    /// Requests of the guest that were refused as malformed.
    pub rejected_total: u64,
    /// A driver is working the device.
    pub driver_ok: bool,
    /// Times that the guest has reported statistics.
    pub statistics_total: u64,
    /// The last of them, `(tag, value)`; what it did not report is absent.
    pub statistics: Vec<(u16, u64)>,
}

impl BalloonStatus {
    /// What the guest said last under this tag.
    pub fn statistic(&self, tag: u16) -> Option<u64> {
        self.statistics.iter().find(|(known, _)| *known == tag).map(|&(_, value)| value)
    }
}

/// The sum of the vCPUs' report pages; see `wire::machine::VcpuReport`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    /// Operations done.
    pub operations_total: u64,
    /// Pages read whole and found right.
    pub pages_verified_total: u64,
    /// Pages found wrong.
    pub pages_corrupt_total: u64,
    /// Address of the first wrong page.
    pub first_corrupt_gpa: u64,
    /// Allocations in the guest that found no page.
    pub allocation_failures_total: u64,
    /// Workload under way, by number.
    pub phase: u32,
    /// What the workload has timed by itself: gaps of `clock`, latencies of `serve`.
    pub timed: LatencyStatus,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_bounds_rise_from_a_microsecond_to_a_second() {
        assert_eq!(latency_bound_ns(0), 1_000);
        assert!((0..LATENCY_BUCKETS - 1).all(|bucket| latency_bound_ns(bucket) < latency_bound_ns(bucket + 1)));
        assert!(latency_bound_ns(LATENCY_BUCKETS - 2) >= 1_000_000_000);
    }

    #[test]
    fn a_latency_falls_into_the_first_bucket_that_holds_it() {
        for ns in [0, 1, 1_000, 1_001, 1_414, 1_415, 65_000, 1 << 29, u64::MAX] {
            let bucket = latency_bucket(ns);
            assert!(ns <= latency_bound_ns(bucket) && (bucket == 0 || ns > latency_bound_ns(bucket - 1)));
        }
    }
}
