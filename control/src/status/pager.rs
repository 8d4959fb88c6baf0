//! Memory of a guest, as its pager reports it.

use serde::{Deserialize, Serialize};

use super::{LatencyStatus, PageCounts};

/// Calls a macro with the name of each thing that a pager counts, and what it means: [`PagerStatus`] has a
/// field of each, and the pager a counter. A new one is a line here, and one in the table of metrics.
///
/// [`PagerStatus`]: crate::status::PagerStatus
#[macro_export]
macro_rules! pager_counters {
    ($then:ident) => {
        $then! {
            /// Faults served: page absent, nothing in the store at that place.
            faults_missing_total
            /// Faults served: page absent, something in the store at that place.
            faults_minor_total
            /// Faults served: write to a protected page.
            faults_write_protect_total
            /// Faults that had to wait for memory.
            faults_without_credit_total
            /// Pages evicted.
            evictions_total
            /// Part of them that went before memory was short.
            evictions_proactive_total
            /// Pages of the pool that were compressed anew, denser.
            pool_packed_total
            /// Pages of the pool that were made patches of frames.
            pool_patched_total
            /// Pages of the pool that share the frame at their address instead.
            pool_rejoined_total
            /// Pages of the pool that were moved to empty a slab.
            pool_moved_total
            /// Pages brought back from a tier by a fault.
            promotions_total
            /// Pages brought back along with others that a fault brought back.
            read_ahead_total
            /// Pages brought back in bulk before a fault asked for them: the working set of a guest that was
            /// paused, or given much memory at once.
            prefetched_total
            /// Pages brought back soon after their eviction.
            refaults_total
            /// Part of them that came from the swap file.
            refaults_swapped_total
            /// Pages that would not compress.
            incompressible_total
            /// Shared pages that were written to.
            breaks_total
        }
    };
}

macro_rules! pager_status {
    ($($(#[$meaning:meta])* $counter:ident)*) => {
        /// Memory as the page-state table has it, and what its upkeep did so far.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        pub struct PagerStatus {
            /// Allocation asked for last by the host, bytes.
            pub allocation_bytes: u64,
            /// Upper bound of what the guest uses now or may use before the next check, bytes: the host must
            /// count with this much.
            pub committed_bytes: u64,
            /// Host memory in use by the table's account, bytes: private pages, pool and overhead.
            pub resident_bytes: u64,
            /// What it could be squeezed to now, bytes: overhead, and what neither compresses nor has a swap
            /// file to go to. A lower bound.
            pub floor_bytes: u64,
            /// Part of it that is the compressed pool.
            pub pool_bytes: u64,
            /// Part of it that is neither guest pages nor pool.
            pub overhead_bytes: u64,
            /// Pages in the pool that are patches of frames of the store.
            pub patch_pages: u64,
            /// What these pages are compressed to, bytes.
            pub patch_bytes: u64,
            /// Pages by state.
            pub pages: PageCounts,
            /// Part of `pages.private` that is away: in the kernel's swap, not in memory.
            pub kernel_pages: u64,
            /// Part of `pages.zero` that the guest had touched before.
            pub zero_touched: u64,
            /// Part of `pages.ballooned` that the guest had touched before.
            pub ballooned_touched: u64,
            /// Faults by service time; see [`super::latency_bound_ns`].
            pub fault_latency: Vec<u64>,
            /// Service time of all faults, ns.
            pub fault_ns_total: u64,
            /// Longest service, ns.
            pub fault_ns_max: u64,
            /// Time vCPUs were blocked in faults, ns.
            pub stall_ns_total: u64,
            /// The same by what the vCPUs waited for.
            pub stall: StallStatus,
            /// Each wait of a vCPU that is over.
            pub stall_latency: LatencyStatus,
            /// Pages that the guest reported free, or hinted at, and that had something behind them.
            pub reported: TakenStatus,
            /// Pages that the guest gave up, and that had something behind them.
            pub ballooned: TakenStatus,
            /// Pages that were found to be all zero.
            pub zeroed: TakenStatus,
            /// Evictor threads' CPU time, ns.
            pub evict_cpu_ns: u64,
            /// Fault threads' CPU time, ns.
            pub fault_cpu_ns: u64,
            /// See [`SamplingStatus`].
            pub sampling: SamplingStatus,
            /// See [`SwapStatus`]; nothing but zeros where there is no swap file.
            pub swap: SwapStatus,
            $($(#[$meaning])* pub $counter: u64,)*
        }
    };
}

pager_counters!(pager_status);

/// Pages of which what was behind them was taken, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenStatus {
    /// All of them.
    pub pages_total: u64,
    /// Those that the guest touched again within two eras.
    pub back_soon_total: u64,
}

/// How much of its memory the guest uses, by random samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplingStatus {
    /// Sampling periods that have ended.
    pub periods_total: u64,
    /// What the last of them came to.
    pub last: SampleStatus,
    /// What the one under way has come to.
    pub current: SampleStatus,
}

/// A sample of the guest's pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleStatus {
    /// Pages in it.
    pub pages: u32,
    /// Part of them that the guest has used since the period began.
    pub touched: u32,
    /// Part of those that are shared frames.
    pub touched_shared: u32,
}

/// Time vCPUs were blocked in faults, by what they waited for, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StallStatus {
    /// A page never used before, or given up.
    pub fresh_ns: u64,
    /// The mapping of a shared frame.
    pub shared_ns: u64,
    /// A copy of a shared frame of its own.
    pub broken_ns: u64,
    /// A page to be decompressed.
    pub compressed_ns: u64,
    /// A page in the kernel's swap, by what one costs: the kernel brings it back without telling us.
    pub kernel_ns: u64,
    /// A page to be read from the swap file.
    pub swapped_ns: u64,
    /// A page that was there when its fault was served: protected, or brought by another.
    pub moving_ns: u64,
    /// Memory: whatever the page was, there was no credit for it at first.
    pub memory_ns: u64,
}

impl StallStatus {
    /// All together, ns.
    pub fn sum_ns(&self) -> u64 {
        let StallStatus { fresh_ns, shared_ns, broken_ns, compressed_ns, kernel_ns, swapped_ns, moving_ns, memory_ns } =
            *self;
        fresh_ns + shared_ns + broken_ns + compressed_ns + kernel_ns + swapped_ns + moving_ns + memory_ns
    }
}

/// The same for the counters of a swap file: those of [`SwapStatus`].
///
/// [`SwapStatus`]: crate::status::SwapStatus
#[macro_export]
macro_rules! swap_counters {
    ($then:ident) => {
        $then! {
            /// Pages written.
            pages_out_total
            /// Pages read back.
            pages_in_total
            /// Writes that failed; their pages stayed in memory.
            write_errors_total
            /// Reads that failed or gave other bytes than were written, those that went right when tried
            /// again included.
            read_errors_total
            /// Freed room that was given back to the disk, bytes.
            discarded_bytes_total
        }
    };
}

macro_rules! swap_status {
    ($($(#[$meaning:meta])* $counter:ident)*) => {
        /// The swap file, and what it did so far.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        pub struct SwapStatus {
            /// Its length, bytes.
            pub capacity_bytes: u64,
            /// Part of it that holds pages.
            pub used_bytes: u64,
            /// An error was met while writing, and the file is left alone for a while.
            pub suspended: bool,
            $($(#[$meaning])* pub $counter: u64,)*
            /// Writes by duration.
            pub write_latency: LatencyStatus,
            /// Reads by duration.
            pub read_latency: LatencyStatus,
        }
    };
}

swap_counters!(swap_status);
