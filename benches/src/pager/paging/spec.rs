//! What a guest's process is told, and what it answers: both are JSON between two processes of this program.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::pager::paging::meter::Touches;

/// What the guest's memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// The pager's.
    Ballast,
    /// Anonymous memory in pages of 4 KiB, the kernel's to swap.
    Plain,
    /// [`super::floor`].
    Floor,
}

/// What the guest's CPU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cpu {
    /// KVM.
    Kvm,
    /// A thread of the process.
    Hosted,
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// What memory is.
    pub kind: Kind,
    /// What runs the guest.
    pub cpu: Cpu,
    /// Its number among guests that run together: what is its own differs from theirs.
    pub number: u32,
    /// ksmd may merge its memory (plain).
    pub mergeable: bool,
    /// How often counters are looked at, and the guest's clock is set, microseconds.
    pub look_us: u64,
    /// A `wire::machine::Workload`.
    pub workload: u32,
    /// `BootInfo::contents`.
    pub contents: u64,
    /// Pages the workload uses.
    pub working_set_pages: u32,
    /// Memory for all of it (Ballast).
    pub allocation_bytes: u64,
    /// What is to be evicted to, if anything, while the guest is paused after filling its memory (Ballast).
    pub evict_to_bytes: Option<u64>,
    /// Where the figures of a zram device are, if it is to take pages before the pool does (Ballast).
    pub kernel_tier: Option<PathBuf>,
    /// Where a swap file goes, if there is to be one (Ballast).
    pub swap: Option<PathBuf>,
    /// File to join a cgroup by.
    pub cgroup: Option<PathBuf>,
    /// Pages that may be present (floor).
    pub resident_pages: u32,
    /// Operations to warm up with, and how long at most.
    pub warm_up: Span,
    /// Operations to measure, and how long at most.
    pub measured: Span,
}

/// So many operations, but no longer than that.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Span {
    /// Operations.
    pub operations: u64,
    /// Milliseconds.
    pub limit_ms: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Filling the working set for the first time.
    pub fill_seconds: f64,
    /// Operations that were measured.
    pub operations: u64,
    /// How long they took.
    pub seconds: f64,
    /// CPU in that time: of the process, and of whoever reclaimed its memory.
    pub cpu_seconds: f64,
    /// Pages whose content was wrong.
    pub corrupt_pages: u64,
    /// Memory it had, bytes: at the end (Ballast), on average (the kernel's). What is compressed counts as
    /// what it takes.
    pub held_bytes: f64,
    /// What `probe` timed.
    pub touches: Touches,
    /// Latencies while measuring, by bucket of `control::status::latency_bucket`.
    pub waits: Vec<u64>,
    /// The pager's counters at the end, and their growth while measuring.
    pub ballast: Option<Pager>,
}

/// What the pager did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pager {
    /// Pages private at the end.
    pub private_pages: u64,
    /// Pages compressed.
    pub compressed_pages: u64,
    /// Pages on disk.
    pub swapped_pages: u64,
    /// The pool, bytes.
    pub pool_bytes: u64,
    /// Faults while measuring.
    pub faults: u64,
    /// Pages that came back meanwhile.
    pub promotions: u64,
    /// Pages that left meanwhile.
    pub evictions: u64,
    /// CPU of the thread that serves faults, a page that came back.
    pub in_cpu_us: f64,
    /// CPU of the thread that evicts, a page that left.
    pub out_cpu_us: f64,
}

impl Outcome {
    /// Operations a second.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.seconds
    }

    /// CPU an operation, microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.operations.max(1) as f64
    }
}
