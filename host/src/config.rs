//! What a run is asked to do. Values are as the user gave them; [`crate::request::preflight`] is what checks
//! them.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use control::{Dedup, Levers, VcpuKind};
use wire::machine::Workload;

use crate::request::disks::DiskRequest;
use crate::request::domain_range::DomainRange;
use crate::request::guest_settings::GuestSettings;
use crate::request::taps::TapRequest;
use crate::tier::TierChoice;

/// Divides a host's memory instead of [`policy::allocate`], from the same measurements: benchmarks put rules
/// of others in here. The milliseconds begin with the last tick and end with this one, by the run's clock.
pub type Rule = fn(&policy::Config, &policy::Host, &[policy::GuestInput], Range<u64>) -> Vec<policy::Decision>;

/// `ballast run`, as asked for.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// How many guests; without it [`GUESTS_DEFAULT`], or one per image.
    pub guests: Option<u32>,
    /// RAM of each guest, bytes; without it [`MEMORY_BYTES_DEFAULT`], or the size of its image.
    pub memory_bytes: Option<u64>,
    /// Host memory for everything the guests cost, bytes.
    pub budget_bytes: u64,
    /// Whether that may be more than what other runs of this machine have left.
    pub over_promise: bool,
    /// What is special about single guests.
    pub guest_settings: Vec<GuestSettings>,
    /// Who divides memory; without it, [`policy::allocate`].
    pub rule: Option<Rule>,
    /// What of its idle memory a guest is charged more for, per cent.
    pub idle_tax_percent: u8,
    /// How often each guest's active memory is sampled while the host has plenty; never without it.
    pub sample_period: Option<Duration>,
    /// What guests without an image do.
    pub workload: Workload,
    /// How long the guests run before they are told to verify all they hold and end.
    pub duration: Duration,
    /// How often a guest, one after the other, is ended and started anew; without it, never.
    pub restart_every: Option<Duration>,
    /// What is started instead of the bare guest.
    pub linux: Option<LinuxRequest>,
    /// Whether the run goes on until all guests have switched themselves off, however long that is.
    pub until_poweroff: bool,
    /// vCPUs of each guest.
    pub vcpus: u32,
    /// What executes the guests.
    pub vcpu: VcpuKind,
    /// Raw memory images; guest `i` starts from image `i` modulo their number.
    pub images: Vec<PathBuf>,
    /// Seed of everything random in the guests.
    pub seed: u64,
    /// Which levers the guests' memory may be reclaimed with.
    pub levers: Levers,
    /// Most CPU that all scanners together may use while there is nothing to gain and memory is not short, in
    /// CPUs.
    pub dedup_cpu_share: f64,
    /// Address-space areas that the aliases of each guest may cost; without it, one for each page.
    pub vma_budget: Option<u32>,
    /// Which guests may share with which, in the order of their numbers; those that are left share with
    /// themselves only. Without any, all guests are in [`DOMAIN_DEFAULT`].
    pub domains: Vec<DomainRange>,
    /// Where pages go that neither compress nor fit.
    pub swap: SwapChoice,
    /// Whether private pages may go out to the kernel's swap.
    pub kernel_tier: TierChoice,
    /// Pages are evicted before memory is short while more than this part of the budget is in use; without
    /// it, never.
    pub proactive_reclaim: Option<f64>,
    /// Whether working sets come back in bulk when guests are resumed, or given much memory at once.
    pub prefetch: bool,
    /// When pages that guests report free are taken.
    pub free_page_reporting: FreePageReporting,
    /// How often used memory is measured; without it, as often as is cheap.
    pub sample_every: Option<Duration>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub metrics: SocketAddr,
    /// Names by which that may be asked for, besides addresses and `localhost`.
    pub allow_hosts: Vec<String>,
    /// Where the JSON report goes.
    pub report: Option<PathBuf>,
    /// How the VMM processes are started.
    pub vmm: VmmCommand,
}

/// A Linux kernel, and what it finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinuxRequest {
    /// Its file: bzImage (`vmlinuz`) or ELF (`vmlinux`).
    pub kernel: PathBuf,
    /// An initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// What it is told; without what it has to be told.
    pub command_line: String,
    /// Disks of every guest.
    pub disks: Vec<DiskRequest>,
    /// Taps of every guest.
    pub taps: Vec<TapRequest>,
    /// Whether standard input and output are the first guest's console.
    pub console: bool,
}

/// When pages that guests report free are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FreePageReporting {
    /// By how short the host is, and how many of them come back.
    #[default]
    Adaptive,
    /// Always.
    Eager,
    /// Never.
    Off,
}

impl RunConfig {
    /// Whether standard input and output are the first guest's console.
    pub fn has_console(&self) -> bool {
        self.linux.as_ref().is_some_and(|linux| linux.console)
    }

    /// A second of idle guests of which nobody asked anything special, on any free address: what others are
    /// put together from.
    pub fn plain(budget_bytes: u64, vmm: VmmCommand) -> RunConfig {
        RunConfig {
            guests: None,
            memory_bytes: None,
            budget_bytes,
            over_promise: false,
            workload: Workload::Idle,
            duration: Duration::from_secs(1),
            restart_every: None,
            linux: None,
            until_poweroff: false,
            vcpus: 1,
            vcpu: VcpuKind::Hosted,
            images: Vec::new(),
            seed: 0,
            levers: Levers { dedup: Dedup::On, balloon: true, pager: true },
            dedup_cpu_share: 0.05,
            vma_budget: None,
            guest_settings: Vec::new(),
            rule: None,
            idle_tax_percent: policy::IDLE_TAX_PERCENT_DEFAULT,
            sample_period: None,
            domains: Vec::new(),
            swap: SwapChoice::Off,
            kernel_tier: TierChoice::Off,
            proactive_reclaim: None,
            prefetch: true,
            free_page_reporting: FreePageReporting::Adaptive,
            sample_every: None,
            metrics: ([127, 0, 0, 1], 0).into(),
            allow_hosts: Vec::new(),
            report: None,
            vmm,
        }
    }

    /// The same with these levers, and no VMM.
    #[cfg(test)]
    pub(crate) fn idle(budget_bytes: u64, levers: Levers) -> RunConfig {
        let vmm = VmmCommand { program: "none".into(), arguments: Vec::new() };
        RunConfig { levers, ..RunConfig::plain(budget_bytes, vmm) }
    }
}

/// Whether guests have swap files.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SwapChoice {
    /// Where that does no harm: in [`SWAP_DIRECTORY`], if direct I/O works there and there is room.
    #[default]
    Auto,
    /// None.
    Off,
    /// Here, or nothing starts.
    In(SwapConfig),
}

impl SwapChoice {
    /// Where they are, once that is settled.
    pub(crate) fn files(&self) -> Option<&SwapConfig> {
        match self {
            SwapChoice::In(config) => Some(config),
            SwapChoice::Auto | SwapChoice::Off => None,
        }
    }
}

/// Where the guests' swap files are.
#[derive(Clone, Debug, PartialEq)]
pub struct SwapConfig {
    /// Their directory. They have no names in it.
    pub directory: PathBuf,
    /// Their lengths together, bytes; without it, as much as the guests' RAM.
    pub bytes: Option<u64>,
}

/// A program and its arguments that make a VMM of a process with the control socket and the frame store open.
#[derive(Clone, Debug)]
pub struct VmmCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// Sharing domain of guests that were given none: those of one run are one user's.
pub const DOMAIN_DEFAULT: &str = "default";
/// Where swap files are unless somebody says otherwise: what is there is on a disk, and may be large.
pub const SWAP_DIRECTORY: &str = "/var/tmp";
/// Guests when neither a number nor an image nor a kernel is given.
pub const GUESTS_DEFAULT: u32 = 8;
/// Most guests of one run: 64 times the vCPUs of a small host; each costs a process, some descriptors and a
/// metrics series set.
pub const GUESTS_MAX: u32 = 256;
/// RAM of a guest when neither a size nor an image is given, bytes.
pub const MEMORY_BYTES_DEFAULT: u64 = 256 << 20;
