//! The command line's grammar. What a value *means* is checked by `host`, before any guest starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use control::{Dedup, Levers, VcpuKind};
use host::{
    ByteCount, DomainRange, FreePageReporting, GuestSettings, PromiseChange, RunConfig, SwapChoice, SwapConfig,
    VmmCommand,
};
use wire::machine::Workload;

/// Runs KVM guests that were promised more memory than there is, and keeps the promise.
#[derive(Debug, Parser)]
#[command(name = "ballast", version, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run guests within a budget until the time is over, and check that nothing was lost.
    #[command(after_help = EXAMPLES)]
    Run(Box<Run>),
    /// Say what this machine offers and what is missing.
    Doctor {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Look at this directory for swap files too
        #[arg(long, value_name = "DIR[:SIZE]")]
        swap: Option<SwapConfig>,
    },
    /// Ask a running host why guests have the memory they have.
    #[command(subcommand)]
    Policy(Policy),
    /// List the guests of a running host, promise them something else, hold them, let them go on.
    #[command(subcommand, after_help = GUEST_EXAMPLES)]
    Guest(Guest),
    /// Look at the host of a run, and give it more memory, or less.
    #[command(subcommand)]
    Host(Host),
    /// Be the balloon device of another VMM's guest, over vhost-user.
    #[command(after_help = VHOST_USER_EXAMPLES)]
    VhostUserBalloon(VhostUserBalloon),
    /// One guest's process; started by the host with its descriptors open.
    #[command(hide = true)]
    Vmm,
}

const EXAMPLES: &str = "\
Examples:
  ballast run                                        8 guests of 256 MiB in 768 MiB, for 20 s
  ballast run --guests 32 --budget 2GiB --duration 60s
  ballast run --image a.mem --image b.mem            guests whose RAM starts from these files
  ballast run --domain web=4,db=4                    two tenants: nothing is shared between them
  ballast run --guest 0:shares=2000,reservation=128MiB --guest 1:limit=96MiB,workload=idle
  ballast run --swap /var/tmp --guest 0:dedup=off,swap=off --guest 1:balloon=off
  ballast run --workload zipf --dedup off --report run.json";

const VHOST_USER_EXAMPLES: &str = "\
Examples:
  ballast vhost-user-balloon --socket /run/balloon.sock --api /run/balloon-api.sock
  linux.uml mem=256M virtio_uml.device=/run/balloon.sock:5 ...
  curl --unix-socket /run/balloon-api.sock http://balloon/v1/balloon
  curl --unix-socket /run/balloon-api.sock -X PATCH -H 'Content-Type: application/json' \\
    -d '{\"requested_bytes\": 67108864}' http://balloon/v1/balloon";

#[derive(Debug, Subcommand)]
pub enum Policy {
    /// What was decided, from when to when and how often, from what and by which rule, and what would change
    /// it.
    #[command(after_help = POLICY_EXAMPLES)]
    Explain {
        /// A guest, for its decisions; without one, the last decision about each
        #[arg(value_name = "GUEST")]
        guest: Option<String>,
        /// More than a screen: all decisions that are remembered, or all about each guest's last one
        #[arg(long)]
        all: bool,
        /// Where the host serves /metrics
        #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
        metrics: SocketAddr,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Guest {
    /// What guests there are, and what they have.
    List {
        /// Where the host serves /metrics
        #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
        metrics: SocketAddr,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// What one guest is, has, and was promised.
    Show {
        /// The guest
        #[arg(value_name = "GUEST")]
        guest: String,
        /// Where the host serves /metrics
        #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
        metrics: SocketAddr,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Promise a guest something else, checked as at the start and in force at once.
    #[command(after_help = SET_EXAMPLES)]
    Set {
        /// The guest
        #[arg(value_name = "GUEST")]
        guest: String,
        /// shares=2000 (weight when memory is short), reservation=64MiB (never less), limit=128MiB (never
        /// more)
        #[arg(value_name = "KEY=VALUE", required = true)]
        promises: Vec<PromiseChange>,
        /// Where the host serves /metrics
        #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
        metrics: SocketAddr,
    },
    /// Take memory from a guest now, by the cheapest levers; it gets it back when the time is over, or when
    /// it waits for memory.
    #[command(after_help = RECLAIM_EXAMPLES)]
    Reclaim {
        /// The guest
        #[arg(value_name = "GUEST")]
        guest: String,
        /// How much
        #[arg(value_name = "SIZE", required_unless_present = "hold")]
        bytes: Option<ByteCount>,
        /// How long it is kept from the guest once it is there, 1s to 24h; 0 to end that now [default: 60s]
        #[arg(long, value_name = "TIME", value_parser = hold)]
        hold: Option<Duration>,
        /// Where the host serves /metrics
        #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
        metrics: SocketAddr,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Hold guests' vCPUs; what others need of their memory goes, down to their reservations.
    Pause {
        /// The guests
        #[arg(value_name = "GUEST", required = true)]
        guests: Vec<String>,
        /// Where the host serves /metrics
        #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
        metrics: SocketAddr,
    },
    /// Let guests go on.
    Resume {
        /// The guests
        #[arg(value_name = "GUEST", required = true)]
        guests: Vec<String>,
        /// Where the host serves /metrics
        #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
        metrics: SocketAddr,
    },
}

const GUEST_EXAMPLES: &str = "\
Examples:
  ballast guest list
  ballast guest list --json | jq -r '.guests[] | select(.state == \"paused\").name'
  ballast guest show guest1
  ballast guest set guest1 shares=2000 limit=128MiB
  ballast guest reclaim guest1 64MiB --hold 60s
  ballast guest pause guest1 guest2
  ballast guest resume guest1 guest2";

const RECLAIM_EXAMPLES: &str = "\
Examples:
  ballast guest reclaim guest1 64MiB              exit code 1 if it was not all
  ballast guest reclaim guest1 64MiB --hold 10m
  ballast guest reclaim guest1 --hold 0           give it back";

const SET_EXAMPLES: &str = "\
Examples:
  ballast guest set guest1 shares=2000
  ballast guest set guest1 reservation=64MiB limit=128MiB";

const METRICS_DEFAULT: &str = "127.0.0.1:9464";

const POLICY_EXAMPLES: &str = "\
Examples:
  ballast policy explain                  the last decision about each guest
  ballast policy explain guest3           each distinct decision once, and what would change the last one
  ballast policy explain guest3 --all
  ballast policy explain guest3 --json | jq '.decisions[0].inputs'";

#[derive(Debug, Subcommand)]
pub enum Host {
    /// What it may use, what it does use, and how short it is.
    Show {
        /// Where the host serves /metrics
        #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
        metrics: SocketAddr,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Change what the run may use. Less than is in use is taken from the guests, as far as they can be
    /// squeezed.
    Set {
        /// Host memory that all guests together may cost from now on
        #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
        budget: ByteCount,
        /// How long to wait until it is reached; exit code 1 if it is not
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
        wait: Duration,
        /// Do not wait
        #[arg(long, conflicts_with = "wait")]
        no_wait: bool,
        /// Where the host serves /metrics
        #[arg(long, value_name = "ADDRESS", default_value = METRICS_DEFAULT)]
        metrics: SocketAddr,
    },
}

#[derive(Debug, Args)]
pub struct VhostUserBalloon {
    /// Where the front end (the VMM) connects
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Where the balloon is watched and set: HTTP on a unix socket
    #[arg(long, value_name = "PATH")]
    api: Option<PathBuf>,
    /// Memory to ask the guest for from the start
    #[arg(long, value_name = "SIZE", default_value = "0", allow_hyphen_values = true)]
    balloon: ByteCount,
    /// How often to ask the guest for statistics; 0s for never
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    statistics_interval: Duration,
}

impl VhostUserBalloon {
    /// The device that was asked for.
    pub fn into_config(self) -> vhost_user_balloon::Config {
        vhost_user_balloon::Config {
            socket: self.socket,
            api: self.api,
            requested_bytes: self.balloon.0,
            statistics_interval: self.statistics_interval,
        }
    }
}

#[derive(Debug, Args)]
pub struct Run {
    /// How many guests [default: 8, or one per image]
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
    /// balloon=on|off, swap=on|off (less than the run has); repeatable
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
    pub fn into_config(self) -> Result<RunConfig, host::Error> {
        let program = std::env::current_exe()
            .map_err(|source| host::Error::System { doing: "finding this program's file", source })?;
        let on = |switch| switch == Switch::On;
        let dedup = match self.dedup {
            DedupSwitch::On => Dedup::On,
            DedupSwitch::ZeroPagesOnly => Dedup::ZeroPagesOnly,
            DedupSwitch::Off => Dedup::Off,
        };
        Ok(RunConfig {
            guests: self.guests,
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

fn workload(name: &str) -> Result<Workload, String> {
    let found = Workload::NAMES.iter().find(|(known, _)| *known == name);
    found.map(|&(_, workload)| workload).ok_or_else(|| {
        let names = Workload::NAMES.map(|(known, _)| known);
        format!("there are {}", names.join(", "))
    })
}

/// A share: `5%` and `5` are a twentieth.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok().filter(|number| number.is_finite());
    number.map(|percent| percent / 100.0).ok_or_else(|| "give per cent of one CPU: 5%, 0.5%".into())
}

/// `75%` and `75` are 75.
fn whole_percent(text: &str) -> Result<u8, String> {
    text.strip_suffix('%').unwrap_or(text).parse().map_err(|_| "give whole per cent: 75%".into())
}

fn part_of_budget(text: &str) -> Result<f64, String> {
    let number =
        text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok().filter(|number| (0.0..=100.0).contains(number));
    number.map(|percent| percent / 100.0).ok_or_else(|| "give per cent of the budget, 0% to 100%: 50%".into())
}

/// A duration; nothing of it needs no unit.
fn hold(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { duration(text) }
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms)).filter(|_| unit_ms > 0);
    ms.map(Duration::from_millis).ok_or_else(|| "give a whole number with its unit: 20s, 5m, 1h".into())
}

/// A name as it stands in a URL, without a port.
fn host_name(text: &str) -> Result<String, String> {
    let sound = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if text.len() <= 253 && text.split('.').all(sound) {
        return Ok(text.to_owned());
    }
    Err("give a name without scheme and port: ballast.example".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn rules_of_others_are_no_option_of_the_product() {
        assert!(Arguments::try_parse_from(["ballast", "run", "--policy", "mom"]).is_err());
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "20", "s", "1.5s", "-1s", "99999999999999999h", "1d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_given_in_per_cent() {
        assert_eq!((percent("5%"), percent("50"), percent("0.5%")), (Ok(0.05), Ok(0.5), Ok(0.005)));
        for text in ["", "%", "five", "NaN", "inf%", "5 %"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_host_name_has_neither_scheme_nor_port() {
        assert_eq!(host_name("vm-host1.example"), Ok("vm-host1.example".into()));
        for text in ["", "*", "http://a", "a:9464", "a..b", "a/b", "a b"] {
            assert!(host_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_workload_is_answered_with_the_known_ones() {
        let refusal = workload("nope").unwrap_err();
        assert!(Workload::NAMES.iter().all(|(name, _)| refusal.contains(name)), "{refusal}");
    }
}
