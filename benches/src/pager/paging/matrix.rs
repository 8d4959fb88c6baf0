//! What is run: workloads, vCPUs, sides, and the ratio of working set to memory.

use std::path::Path;

use pager::PAGE_BYTES;
use wire::machine::{CONTENTS_RANDOM, CONTENTS_THIRD, Workload};

use crate::pager::paging::{
    peer::Peer,
    spec::{Cpu, Kind, Span, Spec},
};

/// Pages of every working set: 64 MiB.
pub const WORKING_SET_PAGES: u32 = 16 << 10;
/// Working set over memory. A guest of the last does not fit into memory even when it is compressed: there is
/// a swap file behind.
pub const RATIOS: [f64; 4] = [1.0, 1.5, 2.0, 4.0];
/// From this ratio on, contents that lz4 takes to a third and a pool for them do not fit.
const DISK_RATIO: f64 = 3.0;
/// Times that sides take turns where there are targets.
pub const ROUNDS: u32 = 3;
/// The ratio that has them.
pub const TARGET_RATIO: f64 = 2.0;

/// Who manages memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The pager, compressing; a swap file behind where it needs one.
    Ballast,
    /// The pager, with a zram device before its pool.
    Tier,
    /// The kernel, with zram; a swap file behind where the pager has one.
    Zram,
    /// The floor: as many pages present as Ballast had.
    Floor,
    /// The pager, contents incompressible, with a swap file.
    BallastFile,
    /// The kernel with a swap file, contents incompressible.
    File,
}

/// What is compared with each other.
pub const COMPRESSED: [Side; 4] = [Side::Ballast, Side::Tier, Side::Zram, Side::Floor];
/// The same for contents that do not compress.
pub const ON_DISK: [Side; 2] = [Side::BallastFile, Side::File];

/// The workloads, with how much of each is warming up and how much is measured, in operations a page of the
/// working set.
///
/// The same accesses are measured on all sides; those of `gups` and `stream` end before the workload
/// verifies, which it does not count.
pub const WORKLOADS: [(&str, Workload, f64, f64); 4] = [
    ("zipf", Workload::Zipf, 4.0, 8.0),
    ("scan", Workload::Scan, 1.0, 2.0),
    ("gups", Workload::Gups, 2.0, 4.0),
    ("stream", Workload::Stream, 0.33, 0.66),
];

/// Working set over memory where nothing is ever short.
const AMPLE_RATIO: f64 = 0.25;
/// Touches of evicted pages in one run, and how long they may take.
pub const PROBES: u32 = 2048;
const PROBES_LIMIT_MS: u64 = 3000;
/// Pages that the floor keeps meanwhile: next to none.
const FLOOR_PROBED_PAGES: u32 = 128;
const WARM_UP_LIMIT_MS: u64 = 500;
const MEASURED_LIMIT_MS: u64 = 800;
/// How often counters are looked at: what is measured ends after so many operations.
const LOOK_US: u64 = 500;

/// Whether the working set does not fit even when it is compressed.
pub fn needs_disk(ratio: f64) -> bool {
    ratio > DISK_RATIO
}

/// A run of this side.
pub fn spec(
    side: Side,
    cpu: Cpu,
    (_, workload, warm_up, measured): (&str, Workload, f64, f64),
    ratio: f64,
    swap: Option<&Path>,
) -> Spec {
    let on_disk = ON_DISK.contains(&side);
    let span = |each: f64, limit_ms| Span { operations: (each * f64::from(WORKING_SET_PAGES)) as u64, limit_ms };
    Spec {
        kind: match side {
            Side::Ballast | Side::Tier | Side::BallastFile => Kind::Ballast,
            Side::Zram | Side::File => Kind::Plain,
            Side::Floor => Kind::Floor,
        },
        cpu,
        number: 0,
        mergeable: false,
        look_us: LOOK_US,
        workload: workload as u32,
        contents: if on_disk { CONTENTS_RANDOM } else { CONTENTS_THIRD },
        working_set_pages: WORKING_SET_PAGES,
        allocation_bytes: allocation_bytes(ratio),
        evict_to_bytes: None,
        kernel_tier: None,
        swap: swap.filter(|_| on_disk || needs_disk(ratio)).map(Path::to_owned),
        cgroup: None,
        resident_pages: 0,
        warm_up: span(warm_up, WARM_UP_LIMIT_MS),
        measured: span(measured, MEASURED_LIMIT_MS),
    }
}

/// A guest with more memory than it can use, of which only the filling counts.
pub fn ample(kind: Kind, cpu: Cpu) -> Spec {
    let (side, scan) = (if kind == Kind::Plain { Side::Zram } else { Side::Ballast }, WORKLOADS[1]);
    spec(side, cpu, (scan.0, scan.1, 0.0, 0.1), AMPLE_RATIO, None)
}

/// A guest that times touches of fresh pages and of pages that were evicted meanwhile.
pub fn probe(side: Side, cpu: Cpu, swap: Option<&Path>) -> Spec {
    let one_each = ("probe", Workload::Probe, 0.0, f64::from(PROBES) / f64::from(WORKING_SET_PAGES));
    let spec = spec(side, cpu, one_each, AMPLE_RATIO, swap);
    let evict_to_bytes = match side {
        // The pool has to fit.
        Side::Ballast | Side::Tier => Some(spec.allocation_bytes / 8),
        Side::BallastFile => Some(spec.allocation_bytes / 32),
        _ => None,
    };
    let measured = Span { limit_ms: PROBES_LIMIT_MS, ..spec.measured };
    Spec { evict_to_bytes, resident_pages: FLOOR_PROBED_PAGES, measured, ..spec }
}

/// What the kernel has for it. zram before a swap file takes what compresses into half of the memory, as the
/// pager's pool does.
pub fn peer(side: Side, ratio: f64, swap: Option<&Path>) -> Peer {
    let working_set_bytes = u64::from(WORKING_SET_PAGES) * PAGE_BYTES as u64;
    let file = swap.filter(|_| side == Side::File || needs_disk(ratio));
    let zram_bytes = if file.is_some() { allocation_bytes(ratio) / 2 * 3 } else { 2 * working_set_bytes };
    Peer {
        zram_bytes: matches!(side, Side::Zram | Side::Tier).then_some(zram_bytes),
        file: file.filter(|_| side != Side::Tier).map(|directory| (directory.to_owned(), 2 * working_set_bytes)),
    }
}

fn allocation_bytes(ratio: f64) -> u64 {
    let pages = (f64::from(WORKING_SET_PAGES) / ratio) as u64;
    pages * PAGE_BYTES as u64
}
