//! What the host process and a VMM process say to each other.
//!
//! One unix stream socket a guest, inherited by the VMM as descriptor [`CONTROL_FD`]. Both directions carry
//! *frames*: a 32-bit little-endian length, then that many bytes of a postcard-encoded [`ToVmm`] or
//! [`ToHost`].
//!
//! ```text
//!   host                              vmm
//!    | -- Start ----------------------> |   first, exactly once
//!    | <--------------------- Ready --- |   guest memory exists, vCPUs not yet running
//!    | -- Run ------------------------> |
//!    | <-------------------- Status --- |   every STATUS_INTERVAL, unasked
//!    | -- Allocate -------------------> |   growth: in force at once; shrinking: once Status says so
//!    | <--------------------- Merge --- |   dedup: hashes, pages, dropped frames, answers to Retire
//!    | -- Merge ----------------------> |   dedup: answers, Retire
//!    | -- Hurry ----------------------> |   dedup: the host is short of memory
//!    | -- Sample, Reclaim ------------> |   pager: how often activity is sampled, when pages are evicted
//!    | -- Pause, Resume, Hold --------> |   vCPUs; Status says when all have obeyed a pause
//!    | -- PollStatistics, HintPages,    |   balloon; at any time
//!    |    TakeReports ----------------> |
//!    | -- Stop -----------------------> |
//!    | <------------------ Finished --- |   last; then the VMM closes the socket and exits
//! ```
//!
//! Never in here: a message longer than [`FRAME_BYTES_MAX`], a message with a pointer or descriptor in it,
//! trust. Whoever reads checks: gfns against the guest's size, frame numbers against the store's, counts
//! against the bounds stated here.

#![forbid(unsafe_code)]

pub mod codec;
pub mod explain;
pub mod merge;
pub mod status;
pub mod sync;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use codec::{Error, decode, encode, read_frame, write_frame};
pub use merge::{MergeAnswer, MergeRequest};
pub use status::GuestStatus;

/// Version of the messages; a VMM of another version refuses to start.
pub const PROTOCOL_VERSION: u32 = 13;
/// Longest frame, bytes: a full batch of published pages and change.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// How often a VMM sends its status.
pub const STATUS_INTERVAL: Duration = Duration::from_millis(100);

/// How often the host says that it is there.
pub const ATTEND_INTERVAL: Duration = Duration::from_secs(1);

/// What a page costs while it is whole, in the unit that [`ToVmm::Allocate`] prices pages in zram by.
pub const WHOLE_PAGE_PRICE: u16 = 256;
/// What a page is taken to cost in zram until something was measured: half of itself, more than most do.
pub const KERNEL_PAGE_PRICE_UNMEASURED: u16 = WHOLE_PAGE_PRICE / 2;

/// Descriptor of the control socket in a VMM process.
pub const CONTROL_FD: i32 = 3;
/// Descriptor of the domain's frame store in a VMM process, open read-only.
pub const STORE_FD: i32 = 4;
/// Descriptor of the store's published bitmap in a VMM process, open read-only: one bit a frame.
pub const PUBLISHED_FD: i32 = 5;
/// Descriptor of the guest's swap file in a VMM process, if it has one.
pub const SWAP_FD: i32 = 6;
/// First descriptor of what a Linux guest has in a VMM process, in the order of [`LinuxConfig`]'s fields.
pub const LINUX_FD: i32 = 7;

/// What executes the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VcpuKind {
    /// KVM vCPUs.
    Kvm,
    /// Host threads over the same guest memory, for machines without `/dev/kvm`.
    Hosted,
}

/// What is done about equal pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dedup {
    /// Nothing.
    #[default]
    Off,
    /// Pages that are all zero are dropped; nothing is hashed, published or shared.
    ZeroPagesOnly,
    /// Equal pages of a sharing domain are kept once.
    On,
}

/// Which levers a guest's VMM may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Levers {
    /// Share equal pages, or drop zero ones.
    pub dedup: Dedup,
    /// Offer a balloon device.
    pub balloon: bool,
    /// Evict (compress) pages.
    pub pager: bool,
}

/// Everything a VMM needs to build its guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestConfig {
    /// [`PROTOCOL_VERSION`] of the host.
    pub protocol_version: u32,
    /// Unique in the run; for logs.
    pub name: String,
    /// Number of the guest in its run, from 0.
    pub guest: u32,
    /// Guest RAM, bytes, a multiple of the page size.
    pub memory_bytes: u64,
    /// What tables for it are taken to cost, bytes, until that is measured.
    pub tables_bytes: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// KVM or host threads.
    pub vcpu: VcpuKind,
    /// A `wire::machine::Workload`, by number.
    pub workload: u32,
    /// Seed of the run.
    pub seed: u64,
    /// What is started instead of the bare guest.
    pub linux: Option<LinuxConfig>,
    /// Raw image that RAM starts from, and is compared with at the end.
    pub image: Option<std::path::PathBuf>,
    /// Which levers there are.
    pub levers: Levers,
    /// Frames in the store: the length of the store is this many pages.
    pub store_frames: u32,
    /// Secret of the sharing domain that keys the content hashes.
    pub hash_secret: u64,
    /// Most CPU the scanner may use while it makes progress or is told to hurry, as a share of one.
    pub scanner_cpu_share: f64,
    /// Most CPU the scanner may use otherwise, as a share of one.
    pub scanner_idle_cpu_share: f64,
    /// Allocation to start with, bytes.
    pub allocation_bytes: u64,
    /// Balloon to start with, bytes: what the guest is asked for before it runs.
    pub balloon_bytes: u64,
    /// What the guest keeps from the balloon, bytes.
    pub floor_bytes: u64,
    /// Thousandths of RAM that the workload uses, before and after it changes; none for its own default.
    pub active_permille: Option<[u16; 2]>,
    /// Address-space areas aliases may cost, half of which is one alias run.
    pub vma_budget: u32,
    /// Whether there is a swap file, as descriptor [`SWAP_FD`].
    pub swap: bool,
    /// Whether the working set comes back in bulk after a pause, or when much memory is given at once.
    pub prefetch: bool,
    /// Whether private pages may go out to the kernel's swap: there is a zram device for them, and a memory
    /// cgroup that bounds the process.
    pub kernel_tier: bool,
    /// What a page away there costs to start with; see [`ToVmm::Allocate`].
    pub kernel_page_price: u16,
}

/// A Linux guest. Its files are descriptors from [`LINUX_FD`] on: the kernel, then what is named here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinuxConfig {
    /// What the kernel is told.
    pub command_line: String,
    /// Whether there is an initial RAM disk. A source of random numbers follows.
    pub initrd: bool,
    /// Whether there is a socket for the console.
    pub console: bool,
    /// The disks, and which may only be read.
    pub read_only_disks: Vec<bool>,
    /// The taps, and the addresses that the guest has on them.
    pub macs: Vec<[u8; 6]>,
}

impl LinuxConfig {
    /// How many descriptors it has.
    pub fn files(&self) -> usize {
        2 + usize::from(self.initrd) + usize::from(self.console) + self.read_only_disks.len() + self.macs.len()
    }
}

/// Host to VMM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToVmm {
    /// Build the guest.
    Start(Box<GuestConfig>),
    /// Let the vCPUs run.
    Run,
    /// A new allocation and balloon request, bytes, and what a page in the kernel's swap is charged.
    Allocate {
        /// Host memory the guest may keep.
        allocation_bytes: u64,
        /// Memory the guest is asked to give up.
        balloon_bytes: u64,
        /// What a page away costs in zram, as measured over all of it, in parts of a page: 256 are one,
        /// [`WHOLE_PAGE_PRICE`].
        kernel_page_price: u16,
    },
    /// Stop the vCPUs where they are.
    Pause,
    /// Let them go on.
    Resume,
    /// Answers and orders of the frame store.
    Merge(MergeAnswer),
    /// The host is short of memory: look for equal pages at full speed.
    Hurry,
    /// Whether to evict pages before memory is short.
    Reclaim(Reclaim),
    /// Ask the guest for its statistics this often, ms, from now on; 0 for never.
    PollStatistics {
        /// The interval.
        interval_ms: u64,
    },
    /// Ask the guest to name all pages whose content it does not need, or end that.
    HintPages(Round),
    /// Take what the guest reports free no more often than this, ms; 0 for always, `u64::MAX` for never.
    TakeReports {
        /// From the beginning of what is taken to the beginning of what is taken next.
        delay_ms: u64,
        /// Pages that are taken at a time.
        pages_max: u32,
    },
    /// Hold the vCPUs back for so long, ms: the host is short of memory, and the guest above its allocation.
    Hold {
        /// How long.
        ms: u64,
    },
    /// What becomes from now on of a guest that finds no page for long; it begins with [`Starved::Ends`].
    Starved(Starved),
    /// Sample the guest's active memory with this period, ms, from now on; 0 for never.
    Sample {
        /// The period.
        period_ms: u64,
    },
    /// The host is there: who waits for memory may hope for some.
    Attend,
    /// Let the guest verify what it holds, then end.
    Stop,
}

/// What becomes of a guest that gets no page for 15 s, when nothing of it can be evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Starved {
    /// It ends as out of memory: it has what is due to it, and nobody has more to give.
    #[default]
    Ends,
    /// It waits: memory was taken from it, or others hold what is due to it.
    Waits,
}

/// When pages are to be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reclaim {
    /// When memory is short: what a VMM does from its start.
    WhenShort,
    /// Slowly, before it is.
    Proactively,
}

/// What is wished of free page hinting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Round {
    /// A round is to begin.
    Begin,
    /// The round under way is to end.
    End,
}

/// VMM to host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToHost {
    /// The guest is built.
    Ready,
    /// How the guest is.
    Status(Box<GuestStatus>),
    /// Questions and reports of the scanner.
    Merge(MergeRequest),
    /// The guest has ended; the last message.
    Finished {
        /// `Ok` when the guest verified all it held; otherwise why not, in one line.
        result: Result<(), String>,
        /// The last word on everything.
        status: Box<GuestStatus>,
    },
}
