//! `ballast run`: what a run is to be.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use control::{Dedup, Levers, VcpuKind};
use host::{ByteCount, DomainRange, FreePageReporting, GuestSettings, RunConfig, SwapChoice, TierChoice, VmmCommand};
use wire::machine::Workload;

use super::linux::Linux;
use super::values::{METRICS_DEFAULT, duration, host_name, part_of_budget, percent, whole_percent, workload};

pub(super) const EXAMPLES: &str = "\
Examples:
  ballast run                                        8 guests of 256 MiB in 768 MiB, for 20 s
  ballast run --guests 32 --budget 2GiB --duration 60s
  ballast run --image a.mem --image b.mem            guests whose RAM starts from these files
  ballast run --domain web=4,db=4                    two tenants: nothing is shared between them
  ballast run --guest 0:shares=2000,reservation=128MiB --guest 1:limit=96MiB,workload=idle
  ballast run --linux                                4 Linux guests, of an image that is made the first time
  ballast run --guests 2 --kernel vmlinuz --initrd initrd.img --until-poweroff
  ballast run --swap /var/tmp --guest 0:dedup=off,swap=off --guest 1:balloon=off
  ballast run --workload zipf --dedup off --report run.json";

#[derive(Debug, Args)]
pub struct Run {
    /// How many guests [default: 8, one per image, one with a kernel, or 4 with --linux]
    #[arg(long, value_name = "N")]
    guests: Option<u32>,
    /// RAM of each guest [default: 256MiB, or the size of its image]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<ByteCount>,
    /// Host memory that all guests together may cost
    #[arg(long, value_name = "SIZE", default_value = "768MiB", allow_hyphen_values = true)]
    budget: ByteCount,
    /// Take the budget even if other runs of this machine have promised that memory already
    #[arg(long)]
    over_promise: bool,
    /// What the guests do: idle, identical, zipf, churn, stream, gups, hog, mixed, wake, scan, tide, probe,
    /// clock, serve
    #[arg(long, value_name = "NAME", default_value = "mixed", value_parser = workload)]
    workload: Workload,
    /// What is special about one guest, by number: shares=1000, reservation=64MiB, limit=256MiB,
    /// workload=NAME, active=30% (of its RAM, for tide and zipf), dedup=on|zero-pages-only|off,
    /// balloon=on|off, swap=on|off (less than the run has), disk=FILE[:ro], tap=NAME; repeatable
    #[arg(long = "guest", value_name = "NUMBER:KEY=VALUE,...")]
    guest_settings: Vec<GuestSettings>,
    /// How much dearer idle memory is than memory in use, when guests are short of it: at 75 %, four times
    #[arg(long, value_name = "PERCENT", default_value = "75%", value_parser = whole_percent)]
    idle_tax: u8,
    /// How often a guest's active memory is sampled, a fifth of that while memory is short; 0s for never
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    sample_period: Duration,
    /// How long they do it: 20s, 5m, 1h
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration)]
    duration: Duration,
    /// End a guest and start it anew so often, one after the other: 5s, 1m [default: never]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    restart_every: Option<Duration>,
    /// vCPUs of each guest
    #[arg(long, value_name = "N", default_value_t = 1)]
    vcpus: u32,
    /// What executes them: KVM, or host threads where there is no /dev/kvm
    #[arg(long, value_enum, default_value = "kvm")]
    vcpu: Vcpu,
    /// Raw memory image that a guest's RAM starts from and is compared with at the end; repeatable
    #[arg(long = "image", value_name = "FILE")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    linux: Linux,
    /// Seed of everything random in the guests
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Share equal pages; zero-pages-only: drop pages that are all zero, share nothing
    #[arg(long, value_enum, default_value = "on")]
    dedup: DedupSwitch,
    /// CPU that looking for equal pages may take while there is nothing to gain, in per cent of one; up to a
    /// whole one while there is, and when memory is short
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent)]
    dedup_cpu: f64,
    /// Guests that may share with each other, by number: the first COUNT, the next COUNT, ... Each guest of
    /// `none`, or left over, shares with itself only. NAME:zero-pages-only shares nothing [default: all
    /// guests in `default`]
    #[arg(long = "domain", value_name = "NAME[=COUNT]", value_delimiter = ',')]
    domains: Vec<DomainRange>,
    /// Address-space areas that pages shared at another address may cost each guest [default: one for each
    /// page]
    #[arg(long, value_name = "AREAS")]
    vma_budget: Option<u32>,
    /// Ask guests for memory
    #[arg(long, value_enum, default_value = "on")]
    balloon: Switch,
    /// Take pages that guests report free: as the host is short and as few come back, always, or never
    #[arg(long, value_enum, default_value = "adaptive")]
    free_page_reporting: Taking,
    /// Compress pages that are not in use
    #[arg(long, value_enum, default_value = "on")]
    pager: Switch,
    /// Where pages go that neither compress nor fit: a directory on a disk, and how much of it [default: the
    /// guests' RAM]; `off` for nowhere; `auto` for /var/tmp, if direct I/O works there and there is room
    #[arg(long, value_name = "DIR[:SIZE]|auto|off", default_value = "auto")]
    swap: SwapChoice,
    /// Let private pages go out to the kernel's swap: `auto` for a zram device made for this run, if that can
    /// be, or a zram device that nobody uses
    #[arg(long, value_name = "auto|off|DEVICE", default_value = "off")]
    kernel_tier: TierChoice,
    /// Evict pages that guests do not seem to need before memory is short, slowly, while more than this part
    /// of the budget is in use [default: never]
    #[arg(long, value_name = "PERCENT", value_parser = part_of_budget)]
    proactive_reclaim: Option<f64>,
    /// Bring a guest's working set back in bulk when it is resumed, or given much memory at once
    #[arg(long, value_enum, default_value = "on")]
    prefetch: Switch,
    /// Measure used memory this often, whatever that costs [default: as often as is cheap]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    sample_every: Option<Duration>,
    /// Where /metrics is served
    #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
    metrics: SocketAddr,
    /// Name by which that may be asked for, besides addresses and localhost; repeatable
    #[arg(long = "allow-host", value_name = "NAME", value_parser = host_name)]
    allow_hosts: Vec<String>,
    /// Say at the end why pages were not merged, what each domain gained, and what is reserved for breaks
    #[arg(long)]
    pub explain: bool,
    /// Write the figures of the run to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Vcpu {
    Kvm,
    Hosted,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Taking {
    Adaptive,
    Eager,
    Off,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DedupSwitch {
    On,
    ZeroPagesOnly,
    Off,
}

impl Run {
    /// The run that was asked for; its VMMs are processes of this same program.
    pub fn into_config(mut self) -> Result<RunConfig, host::Error> {
        self.linux.prepare()?;
        let program = std::env::current_exe()
            .map_err(|source| host::Error::System { doing: "finding this program's file", source })?;
        let on = |switch| switch == Switch::On;
        let dedup = match self.dedup {
            DedupSwitch::On => Dedup::On,
            DedupSwitch::ZeroPagesOnly => Dedup::ZeroPagesOnly,
            DedupSwitch::Off => Dedup::Off,
        };
        Ok(RunConfig {
            guests: self.guests.or(self.linux.guests()),
            memory_bytes: self.memory.map(|ByteCount(bytes)| bytes),
            budget_bytes: self.budget.0,
            over_promise: self.over_promise,
            guest_settings: self.guest_settings,
            rule: None,
            idle_tax_percent: self.idle_tax,
            sample_period: (!self.sample_period.is_zero()).then_some(self.sample_period),
            workload: self.workload,
            duration: self.duration,
            restart_every: self.restart_every,
            until_poweroff: self.linux.until_poweroff(),
            linux: self.linux.into_request(),
            vcpus: self.vcpus,
            vcpu: match self.vcpu {
                Vcpu::Kvm => VcpuKind::Kvm,
                Vcpu::Hosted => VcpuKind::Hosted,
            },
            images: self.images,
            seed: self.seed,
            levers: Levers { dedup, balloon: on(self.balloon), pager: on(self.pager) },
            dedup_cpu_share: self.dedup_cpu,
            vma_budget: self.vma_budget,
            domains: self.domains,
            swap: self.swap,
            kernel_tier: self.kernel_tier,
            proactive_reclaim: self.proactive_reclaim,
            prefetch: on(self.prefetch),
            free_page_reporting: match self.free_page_reporting {
                Taking::Adaptive => FreePageReporting::Adaptive,
                Taking::Eager => FreePageReporting::Eager,
                Taking::Off => FreePageReporting::Off,
            },
            sample_every: self.sample_every,
            metrics: self.metrics,
            allow_hosts: self.allow_hosts,
            report: self.report,
            vmm: VmmCommand { program, arguments: vec!["vmm".into()] },
        })
    }
}
