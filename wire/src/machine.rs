//! The bare machine: its memory map, its doorbell, and the pages it shares with the VMM.
//!
//! ```text
//!   0                      RAM, all of it managed by the pager (up to 256 GiB)
//!   0x40_0000_0000         BALLOON     virtio-mmio register window      } any access exits to the VMM
//!   0x40_0000_1000         CONSOLE     16550, byte registers            }
//!   0x40_0000_2000         DOORBELL    park, exit                       }
//!   0x40_0000_3000         METER       what a workload has timed        }
//!   0x40_0100_0000         FIRMWARE    unmanaged memory, no exits:
//!                            +0          BootInfo, written by the VMM before the start
//!                            +0x1000     Control, written by the VMM while the guest runs
//!                            +0x2000     VcpuReport × vCPUs, written by the guest
//!                            +0x10000    the guest image; behind it stacks and page tables
//! ```
//!
//! The guest runs in ring 3 with identity page tables of the VMM's making, and has no interrupts: the
//! "interrupt line" of its devices is [`Control::interrupt`], a word it can poll without an exit. Nothing of
//! the guest image lies in RAM, so that a RAM image loaded from a file can be compared with that file at the
//! end.

use core::sync::atomic::{AtomicU32, AtomicU64};

/// Largest RAM of a bare guest, bytes: the device window starts there.
pub const RAM_BYTES_MAX: u64 = 0x40_0000_0000;
/// The balloon's virtio-mmio registers.
pub const BALLOON_BASE: u64 = 0x40_0000_0000;
/// The 16550's registers.
pub const CONSOLE_BASE: u64 = 0x40_0000_1000;
/// The doorbell's registers.
pub const DOORBELL_BASE: u64 = 0x40_0000_2000;
/// End of the windows that every machine has, whose accesses exit.
pub const MMIO_END: u64 = 0x40_0000_3000;
/// Where workloads write what they have timed, in ticks of the processor's clock. Machines need not have it.
pub const METER_BASE: u64 = MMIO_END;
/// Offset of the register for the touch of a fresh page.
pub const METER_FRESH: u64 = 0;
/// Offset of the register for the touch of a page that had been filled.
pub const METER_RETURN: u64 = 4;
/// Offset of the register for time that a workload has waited: gaps of `clock`, latencies of `serve`.
pub const METER_WAIT: u64 = 8;
/// Unmanaged memory for boot information, control, reports and the guest image.
pub const FIRMWARE_BASE: u64 = 0x40_0100_0000;
/// Bytes of [`FIRMWARE_BASE`]'s memory; only what is touched costs anything.
pub const FIRMWARE_BYTES: u64 = 0x40_0000;
/// Where [`Control`] lies.
pub const CONTROL_BASE: u64 = FIRMWARE_BASE + 0x1000;
/// Where the [`VcpuReport`]s lie, one after the other.
pub const REPORT_BASE: u64 = FIRMWARE_BASE + 0x2000;
/// Where the guest image is linked to.
pub const IMAGE_BASE: u64 = FIRMWARE_BASE + 0x1_0000;
/// Bytes the image may take; stacks start behind it.
pub const IMAGE_BYTES_MAX: u64 = 0x10_0000;
/// Where the vCPUs' stacks start, [`STACK_BYTES`] each, growing down from their ends.
pub const STACK_BASE: u64 = IMAGE_BASE + IMAGE_BYTES_MAX;
/// Bytes of one vCPU's stack.
pub const STACK_BYTES: u64 = 0x1_0000;
/// Where the VMM builds the page tables.
pub const PAGE_TABLE_BASE: u64 = STACK_BASE + VCPUS_MAX as u64 * STACK_BYTES;
/// Most vCPUs of a bare guest; limited by the report pages.
pub const VCPUS_MAX: usize = 16;
/// Guest-physical address of the firmware's memory on machines that start the image by its PVH entry: they
/// have nothing at [`FIRMWARE_BASE`], so the image puts that much RAM there by its own page tables.
pub const PVH_FIRMWARE_BASE: u64 = 0x20_0000;

/// Doorbell, W 32 bits: wait until an interrupt is pending, a stop is asked for, or this many milliseconds
/// have passed.
pub const DOORBELL_PARK: u64 = 0;
/// Doorbell, W 32 bits: this vCPU is done; the value is its exit code, 0 for success.
pub const DOORBELL_EXIT: u64 = 4;

/// [`BootInfo::magic`].
pub const BOOT_MAGIC: u64 = u64::from_le_bytes(*b"ballast1");

/// What a guest is to do; see the guest image for what each does.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Nothing: park.
    Idle = 0,
    /// Pages that every guest has too.
    Identical = 1,
    /// Reads and writes of skewed popularity.
    Zipf = 2,
    /// Allocate, write, verify, free.
    Churn = 3,
    /// McCalpin's STREAM kernels.
    Stream = 4,
    /// Random updates (HPCC RandomAccess).
    Gups = 5,
    /// Touch everything there is, incompressible.
    Hog = 6,
    /// Phases of the others, different for each guest.
    Mixed = 7,
    /// RAM came from an image file: read it, change nothing.
    Image = 8,
    /// Fill memory, leave it alone, then all at once what `Hog` does.
    Wake = 9,
    /// Read all there is in order, again and again.
    Scan = 10,
    /// Fill memory, then use a known part of it, and another one later.
    Tide = 11,
    /// Time single touches.
    Probe = 12,
    /// Read the clock, and nothing else.
    Clock = 13,
    /// Requests at a constant rate.
    Serve = 14,
}

impl Workload {
    /// Every workload with its name at the command line. `image` is chosen by `--image`, not by name.
    pub const NAMES: [(&'static str, Workload); 14] = [
        ("idle", Workload::Idle),
        ("identical", Workload::Identical),
        ("zipf", Workload::Zipf),
        ("churn", Workload::Churn),
        ("stream", Workload::Stream),
        ("gups", Workload::Gups),
        ("hog", Workload::Hog),
        ("mixed", Workload::Mixed),
        ("wake", Workload::Wake),
        ("scan", Workload::Scan),
        ("tide", Workload::Tide),
        ("probe", Workload::Probe),
        ("clock", Workload::Clock),
        ("serve", Workload::Serve),
    ];

    /// The workload with this number, if there is one.
    pub fn from_number(number: u32) -> Option<Workload> {
        let named = Self::NAMES.iter().map(|&(_, workload)| workload);
        named.chain([Workload::Image]).find(|&workload| workload as u32 == number)
    }
}

/// Written by the VMM before the guest starts; constant afterwards.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BootInfo {
    /// [`BOOT_MAGIC`].
    pub magic: u64,
    /// Bytes of RAM, from address 0.
    pub ram_bytes: u64,
    /// Seed of everything random in the guest, the same for every guest of a run.
    pub seed: u64,
    /// Number of the guest in its run, from 0: what makes its own pages its own.
    pub guest: u32,
    /// vCPUs.
    pub vcpus: u32,
    /// A [`Workload`].
    pub workload: u32,
    /// 1 when there is a balloon device to drive.
    pub balloon: u32,
    /// Bytes the guest will never give to the balloon.
    pub floor_bytes: u64,
    /// What pages of `zipf`, `gups` and `scan` are like to a compressor: [`CONTENTS_OWN`], ...
    pub contents: u64,
    /// How much of RAM `tide` and `zipf` use: [`ACTIVE_OWN`], or what [`active`] makes.
    pub active: u64,
    /// Bytes at the bottom of RAM that are not the guest's to use: 0 on this machine, whose firmware lies
    /// elsewhere.
    pub reserved_bytes: u64,
}

/// [`BootInfo::active`]: as each workload has it.
pub const ACTIVE_OWN: u64 = 0;
const ACTIVE_SET: u64 = 1 << 32;

/// [`BootInfo::active`]: so many thousandths of RAM before and after the workload changes.
pub const fn active([before, after]: [u16; 2]) -> u64 {
    ACTIVE_SET | (after as u64) << 16 | before as u64
}

impl BootInfo {
    /// Of a machine with `ram_bytes` of RAM, one vCPU and no balloon, the first of its run, with seed 1 and a
    /// [`Workload`]'s own ways.
    pub const fn new(ram_bytes: u64, workload: u32) -> BootInfo {
        BootInfo {
            magic: BOOT_MAGIC,
            ram_bytes,
            seed: 1,
            guest: 0,
            vcpus: 1,
            workload,
            balloon: 0,
            floor_bytes: 0,
            contents: CONTENTS_OWN,
            active: ACTIVE_OWN,
            reserved_bytes: 0,
        }
    }

    /// Thousandths of RAM that the workload is to use before and after it changes; none where it is to know
    /// by itself.
    pub fn active_permille(&self) -> Option<[u32; 2]> {
        let [before, after] = [self.active & 0xffff, self.active >> 16 & 0xffff].map(|permille| permille as u32);
        (self.active & ACTIVE_SET != 0).then_some([before, after])
    }
}

/// [`BootInfo::contents`]: as each workload has them.
pub const CONTENTS_OWN: u64 = 0;
/// [`BootInfo::contents`]: incompressible.
pub const CONTENTS_RANDOM: u64 = 1;
/// [`BootInfo::contents`]: lz4 takes them to about a third.
pub const CONTENTS_THIRD: u64 = 2;

/// Written by the VMM while the guest runs.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Control {
    /// Nonzero once the guest is to verify what it still holds and exit.
    pub stop: AtomicU32,
    /// Nonzero while a device's interrupt is pending: the machine's interrupt line.
    pub interrupt: AtomicU32,
    /// Milliseconds since the guest started, to within a few tens.
    pub now_ms: AtomicU64,
}

/// Written by one vCPU, read by the VMM at any time. Counters only grow; relaxed everywhere.
#[repr(C)]
#[derive(Debug, Default)]
pub struct VcpuReport {
    /// Operations of the workload done.
    pub operations: AtomicU64,
    /// Pages read whole and found right.
    pub pages_verified: AtomicU64,
    /// Pages read and found wrong.
    pub pages_corrupt: AtomicU64,
    /// Guest-physical address of the first wrong page.
    pub first_corrupt_gpa: AtomicU64,
    /// Pages the allocator holds free.
    pub pages_free: AtomicU64,
    /// Anonymous pages.
    pub pages_anonymous: AtomicU64,
    /// Clean (droppable) pages.
    pub pages_clean: AtomicU64,
    /// Pages in the balloon.
    pub pages_ballooned: AtomicU64,
    /// Allocations that found no page, after dropping clean ones.
    pub allocation_failures: AtomicU64,
    /// Clean pages dropped for the balloon or for an allocation.
    pub clean_drops: AtomicU64,
    /// The [`Workload`] under way (for `mixed`: the phase).
    pub phase: AtomicU64,
    /// Pages verified after [`Control::stop`]; the vCPU writes its exit code when the last one is done.
    pub pages_verified_at_end: AtomicU64,
    /// Pages that were reported free to the host, in all.
    pub pages_reported: AtomicU64,
    /// Keeps each vCPU on cache lines of its own.
    pub reserved: [u64; 19],
}

const _: () = {
    assert!(size_of::<BootInfo>() == 72);
    assert!(size_of::<Control>() == 16);
    assert!(size_of::<VcpuReport>() == 256);
    assert!(REPORT_BASE + (VCPUS_MAX * size_of::<VcpuReport>()) as u64 <= IMAGE_BASE);
    assert!(PAGE_TABLE_BASE < FIRMWARE_BASE + FIRMWARE_BYTES);
};
