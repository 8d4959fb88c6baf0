//! `ballast-bench`: measurements against peers, side by side in one run.
//!
//! Machines are shared and noisy, so what counts is the ratio of two sides measured one after the other in the same run. Each
//! target is one line on stdout, `target NAME MEASURED BOUND met|missed`, whatever the outcome; the exit code says only
//! whether everything could be measured. What is measured and how to read it: `docs/benchmarks.md`.

mod area_cost;
mod ballast;
mod balloon_bench;
mod balloon_fidelity;
mod balloon_floor;
mod balloon_guest;
mod balloon_speed;
mod books;
mod clocks;
mod contents;
mod dedup_bench;
mod error;
mod faults;
mod first_write;
mod floor;
mod idle;
mod ksm;
mod ksm_settings;
mod latency;
mod live;
mod merging;
mod metadata;
mod paced;
mod pager_bench;
mod paging;
mod patches;
mod policy_bench;
mod policy_density;
mod policy_noise;
mod policy_run;
mod pool_bench;
mod progress;
mod ram;
mod random;
mod resume_bench;
mod scenario;
mod settings;
mod sharer;
mod slowdown;
mod soak;
mod soak_sample;
mod still;
mod target;
mod trace;
mod turn;
mod victims;
mod victims_bench;
mod waits;
mod wake_all;
mod warm_up;
mod writers;
mod zram_pages;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{dedup_bench::Plan, error::Error, scenario::Name, sharer::Who};

/// Measurements against peers, side by side in one run.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Sharing equal pages, against ksmd. Needs root; KSM's settings are put back at the end.
    #[command(after_help = "\
Examples:
  ballast-bench dedup --json dedup.json                     all scenarios of made-up memory
  ballast-bench dedup --scenario S1-same-address --side ballast --side ksmd
  ballast-bench dedup --scenario S3-images-3 --image a.mem --image b.mem --image c.mem")]
    Dedup(Dedup),
    /// Self-checking guests at 4 times the budget under merge, break, evict and restarts, through every tier, watched for leaks. Drives `ballast run`, built beside this program.
    #[command(after_help = "\
Examples:
  cargo build --release && cargo run --release -p ballast-bench -- soak
  ballast-bench soak --minutes 60 --guests 32 --budget-mib 1024")]
    Soak(Soak),
    /// All guests idle and reclaimed, then all of them want everything at once; see `docs/benchmarks.md`.
    #[command(after_help = "\
Example:
  cargo build --release && cargo run --release -p ballast-bench -- wake-all --swap /var/tmp")]
    WakeAll(WakeAll),
    /// Inflating and deflating a guest's balloon, against QEMU's device and one `madvise`, and what being ballooned costs. Needs KVM.
    #[command(after_help = "\
Example:
  cargo run --release -p ballast-bench -- balloon --json balloon.json")]
    Balloon(Balloon),
    /// Who gets memory when it is short: shares, idle tax, demand that moves, sampling. Drives `ballast run`, built beside this program.
    #[command(after_help = "\
Examples:
  cargo build --release && cargo run --release -p ballast-bench -- policy --json policy.json
  ballast-bench policy --scenario P2-idle-tax")]
    Policy(Policy),
    /// What page faults cost by kind, against a handler that does nothing but copy. Needs the right to serve faults.
    #[command(after_help = "\
Example:
  cargo run --release -p ballast-bench -- pager --swap /var/tmp --json pager.json")]
    Pager(Pager),
    /// What the compressed pool makes of memory images, against zram. Needs root: it makes a zram device and removes it.
    #[command(after_help = "\
Example:
  cargo run --release -p ballast-bench -- pool --image a.mem --image b.mem --image c.mem")]
    Pool(PoolArguments),
    /// What going on costs a guest that was evicted while it was paused, with and without its working set prefetched. Needs KVM.
    #[command(after_help = "\
Example:
  cargo run --release -p ballast-bench -- resume --json resume.json")]
    Resume(Resume),
    /// Which page to evict: policies over recorded traces of the guests' workloads. Needs the right to serve faults.
    #[command(after_help = "\
Example:
  cargo run --release -p ballast-bench -- victims --json victims.json")]
    Victims(Victims),
    /// A guest of `pager`, in its process
    #[command(hide = true)]
    PagerGuest {
        /// What to do, as JSON
        spec: String,
    },
}

#[derive(Args)]
struct Balloon {
    /// Where to write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct Resume {
    /// Where to write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct Pager {
    /// Directory on a disk, for swap files; without it nothing is swapped
    #[arg(long, value_name = "DIR")]
    swap: Option<PathBuf>,
    /// Measure a part; repeatable: faults, metadata, sweep, touch, zipf, scan, gups, stream [default: all]
    #[arg(long = "only", value_name = "PART")]
    only: Vec<String>,
    /// Where to write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct PoolArguments {
    /// Raw memory image of a guest; repeatable
    #[arg(long = "image", value_name = "FILE", required = true)]
    images: Vec<PathBuf>,
    /// Where to write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct Victims {
    /// Page accesses to record of each workload
    #[arg(long, value_name = "N", default_value_t = 400_000, value_parser = clap::value_parser!(u32).range(1000..=100_000_000))]
    accesses: u32,
    /// Where to write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct Policy {
    /// What to measure; repeatable [default: everything]
    #[arg(long = "scenario", value_name = "NAME", value_enum)]
    scenarios: Vec<policy_bench::Scenario>,
    /// Directory on a disk, for swap files
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    swap: PathBuf,
    /// What P7's guests of 256 MiB are to fit into, MiB: less for a trial at a small scale
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(512..=1_048_576))]
    p7_budget_mib: u32,
    /// The `ballast` program [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    ballast: Option<PathBuf>,
    /// Where to write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Policy {
    fn plan(self) -> Result<policy_bench::Plan, Error> {
        let this = std::env::current_exe().map_err(Error::system("finding this program"))?;
        Ok(policy_bench::Plan {
            program: self.ballast.unwrap_or_else(|| this.with_file_name("ballast")),
            scenarios: self.scenarios,
            swap: self.swap,
            density_budget_mib: self.p7_budget_mib,
            json: self.json,
        })
    }
}

#[derive(Args)]
struct WakeAll {
    /// Directory on a disk, for the guests' swap files
    #[arg(long, value_name = "DIR")]
    swap: PathBuf,
    /// How many guests
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=256))]
    guests: u32,
    /// Memory of each, MiB
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=65536))]
    memory_mib: u32,
    /// Host memory for all of them, MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..))]
    budget_mib: u32,
    /// How long guests are awake
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=36_000))]
    seconds: u32,
    /// The `ballast` program [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    ballast: Option<PathBuf>,
    /// Where to write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl WakeAll {
    fn plan(self) -> Result<wake_all::Plan, Error> {
        let this = std::env::current_exe().map_err(Error::system("finding this program"))?;
        Ok(wake_all::Plan {
            program: self.ballast.unwrap_or_else(|| this.with_file_name("ballast")),
            swap: self.swap,
            guests: self.guests,
            memory_mib: self.memory_mib,
            budget_mib: self.budget_mib,
            seconds: self.seconds,
            json: self.json,
        })
    }
}

#[derive(Args)]
struct Dedup {
    /// What to measure; repeatable [default: all that there are images for]
    #[arg(long = "scenario", value_name = "NAME", value_enum)]
    scenarios: Vec<Name>,
    /// Who is measured; repeatable
    #[arg(long = "side", value_name = "NAME", value_enum, default_values = ["ballast", "ksmd", "ksmd-advisor"])]
    sides: Vec<Who>,
    /// Raw memory image of a guest, all of one size; repeatable
    #[arg(long = "image", value_name = "FILE")]
    images: Vec<PathBuf>,
    /// Guests of made-up memory
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=64))]
    guests: u32,
    /// Memory of each, MiB
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=4096))]
    memory_mib: u32,
    /// How long ksmd with its advisor may take to merge what holds still, seconds
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=36_000))]
    advisor_seconds: u32,
    /// Where to write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct Soak {
    /// How long guests run
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    minutes: u32,
    /// How many at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=256))]
    guests: u32,
    /// Memory of each, MiB
    #[arg(long, value_name = "MIB", default_value_t = 128, value_parser = clap::value_parser!(u32).range(16..=65536))]
    memory_mib: u32,
    /// Host memory for all of them, MiB
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(64..))]
    budget_mib: u32,
    /// Directory on a disk, for the guests' swap files
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    swap: PathBuf,
    /// A guest is ended and started anew so often, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    restart_every: u32,
    /// The `ballast` program [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    ballast: Option<PathBuf>,
}

impl Soak {
    fn plan(self) -> Result<soak::Plan, Error> {
        let this = std::env::current_exe().map_err(Error::system("finding this program"))?;
        Ok(soak::Plan {
            program: self.ballast.unwrap_or_else(|| this.with_file_name("ballast")),
            minutes: self.minutes,
            guests: self.guests,
            memory_mib: self.memory_mib,
            budget_mib: self.budget_mib,
            swap: self.swap,
            restart_every_seconds: self.restart_every,
        })
    }
}

impl Dedup {
    fn plan(self) -> Plan {
        Plan {
            guests: self.guests,
            pages: self.memory_mib * 256,
            scenarios: self.scenarios,
            sides: self.sides,
            images: self.images,
            advisor_limit: Duration::from_secs(self.advisor_seconds.into()),
            json: self.json,
            area_bytes: 0.0,
        }
    }
}

fn main() -> ExitCode {
    match measure(Arguments::parse().bench) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ballast-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(bench: Bench) -> Result<(), Error> {
    if !matches!(bench, Bench::PagerGuest { .. }) {
        settings::put_back_on_signals()?;
    }
    match bench {
        Bench::Dedup(arguments) => dedup_bench::run(arguments.plan()),
        Bench::Balloon(Balloon { json }) => balloon_bench::run(json.as_deref()),
        Bench::Resume(Resume { json }) => resume_bench::run(json.as_deref()),
        Bench::Soak(arguments) => soak::run(&arguments.plan()?),
        Bench::Policy(arguments) => policy_bench::run(&arguments.plan()?),
        Bench::WakeAll(arguments) => wake_all::run(&arguments.plan()?),
        Bench::Pool(PoolArguments { images, json }) => pool_bench::run(&pool_bench::Plan { images, json }),
        Bench::Victims(Victims { accesses, json }) => victims_bench::run(&victims_bench::Plan { accesses, json }),
        Bench::Pager(Pager { swap, only, json }) => pager_bench::run(&pager_bench::Plan { swap, only, json }),
        Bench::PagerGuest { spec } => paging::guest(&spec),
    }
}
