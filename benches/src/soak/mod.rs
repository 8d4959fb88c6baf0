//! `soak`: many self-checking guests in a budget that is too small for them, ended and started anew all the
//! time, watched from outside.
//!
//! Drives the real `ballast run`, as an operator would: `--restart-every`, `--swap`, `/metrics`, the report,
//! the exit code. What must hold, each a target: no guest finds a wrong page, pages went through every tier,
//! no sample of used memory exceeds the budget, and neither descriptors nor memory nor frames grow from the
//! first third of the run to the last.

mod sample;
pub mod wake_all;

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use nix::unistd::Pid;
use serde::Serialize;
use serde_json::Value;

use self::sample::{Sample, TIERS};
use crate::kit::{
    error::Error,
    program::Program,
    report::Report,
    scrape::free_address,
    settings::{Step, Undo, heed_signals},
    target::Target,
};

/// How often the run is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often progress is said.
const TALK: Duration = Duration::from_secs(30);
/// Beyond its duration: guests verify all they hold.
const GRACE: Duration = Duration::from_secs(600);
/// Memory that the host may have more at the end, bytes: buffers that grow once.
const HOST_GROWTH_BYTES: f64 = 4.0 * 1024.0 * 1024.0;
/// Frames over the memory that shares them may be so much more at the end.
const FRAMES_GROWTH: f64 = 1.1;

/// Self-checking guests at 4 times the budget under merge, break, evict and restarts, through every tier,
/// watched for leaks. Drives `ballast run`, built beside this program.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo build --release && cargo run --release -p ballast-bench -- soak
  ballast-bench soak --minutes 60 --guests 32 --budget-mib 1024")]
pub struct Arguments {
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
    #[command(flatten)]
    program: Program,
}

/// What to do.
#[derive(Clone, Debug, Serialize)]
struct SoakSetup {
    program: PathBuf,
    minutes: u32,
    guests: u32,
    memory_mib: u32,
    budget_mib: u32,
    swap: PathBuf,
    restart_every_seconds: u32,
}

/// What a run left.
#[derive(Debug, Default)]
struct Found {
    samples: Vec<Sample>,
    report: Value,
    success: bool,
}

#[derive(Serialize)]
struct Figures<'a> {
    plan: &'a SoakSetup,
    report: &'a Value,
    targets: &'a [Target],
}

impl Arguments {
    fn setup(self) -> Result<SoakSetup, Error> {
        Ok(SoakSetup {
            program: self.program.path()?,
            minutes: self.minutes,
            guests: self.guests,
            memory_mib: self.memory_mib,
            budget_mib: self.budget_mib,
            swap: self.swap,
            restart_every_seconds: self.restart_every,
        })
    }
}

/// Runs it; prints targets.
pub fn run(arguments: Arguments, report: &Report) -> Result<(), Error> {
    let setup = arguments.setup()?;
    let folder = std::env::temp_dir().join(format!("ballast-soak-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|source| Error::File { path: folder.clone(), source })?;
    let found = report.measured("soak", measure(&setup, &folder.join("report.json"))).unwrap_or_default();
    // A folder in the way of nobody.
    let _ = fs::remove_dir_all(&folder);
    let targets = judge(&setup, &found);
    report.conclude(&targets, &Figures { plan: &setup, report: &found.report, targets: &targets })
}

fn measure(setup: &SoakSetup, report_path: &Path) -> Result<Found, Error> {
    let address = free_address()?;
    let mut host = start(setup, address, report_path)?;
    let pid = Pid::from_raw(host.id() as i32);
    let undo = Undo::register(vec![Step::Terminate(pid)]);
    let watched = watch(setup, &mut host, address);
    drop(undo);
    let exit = host.wait().map_err(Error::system("waiting for ballast"))?;
    let samples = watched?;
    let report = fs::read(report_path).unwrap_or_default();
    let report = serde_json::from_slice(&report).unwrap_or(Value::Null);
    Ok(Found { samples, report, success: exit.success() })
}

fn start(setup: &SoakSetup, address: SocketAddr, report: &Path) -> Result<Child, Error> {
    let mut command = Command::new(&setup.program);
    command.args(["run", "--workload", "mixed"]);
    command.args(["--guests", &setup.guests.to_string(), "--memory", &format!("{}MiB", setup.memory_mib)]);
    command.args(["--budget", &format!("{}MiB", setup.budget_mib), "--duration", &format!("{}m", setup.minutes)]);
    command.args(["--restart-every", &format!("{}s", setup.restart_every_seconds)]);
    command.arg("--swap").arg(&setup.swap);
    command.args(["--metrics", &address.to_string(), "--report"]).arg(report);
    println!("soak: {command:?}");
    heed_signals(&mut command).spawn().map_err(|source| Error::File { path: setup.program.clone(), source })
}

/// Looks at the run until it is over.
fn watch(setup: &SoakSetup, host: &mut Child, address: SocketAddr) -> Result<Vec<Sample>, Error> {
    let pid = Pid::from_raw(host.id() as i32);
    let (begun, mut talked) = (Instant::now(), Instant::now());
    let longest = Duration::from_secs(u64::from(setup.minutes) * 60) + GRACE;
    let mut samples: Vec<Sample> = Vec::new();
    while host.try_wait().map_err(Error::system("waiting for ballast"))?.is_none() {
        if begun.elapsed() > longest {
            return Err(Error::Guest(format!("ballast has not ended {} s after its time", GRACE.as_secs())));
        }
        thread::sleep(LOOK);
        samples.extend(Sample::take(pid, address)?);
        if let (true, Some(last)) = (talked.elapsed() >= TALK, samples.last()) {
            talked = Instant::now();
            eprintln!(
                "soak: {} s: {} of {} guests run, {} started so far; {:.0} of {:.0} MiB used; {} corrupt pages",
                begun.elapsed().as_secs(),
                last.running,
                setup.guests,
                started(&samples),
                last.used_bytes / f64::from(1 << 20),
                last.budget_bytes / f64::from(1 << 20),
                last.corrupt_pages,
            );
        }
    }
    Ok(samples)
}

/// VMM processes that were seen.
fn started(samples: &[Sample]) -> usize {
    samples.iter().flat_map(|sample| &sample.vmms).collect::<BTreeSet<_>>().len()
}

fn judge(setup: &SoakSetup, found: &Found) -> Vec<Target> {
    let Found { samples, report, success } = found;
    let name = |figure: &str| format!("soak-{figure}");
    let most = |figure: fn(&Sample) -> f64| samples.iter().map(figure).fold(f64::NAN, f64::max);
    let guests = report["guests"].as_array().map_or(&[][..], Vec::as_slice);
    // What is missing is not a number, and so meets nothing.
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let sum = |field: &str| guests.iter().map(|guest| number(&guest[field])).sum::<f64>();
    let total = |field: &str| if guests.is_empty() { f64::NAN } else { sum(field) };
    let peak = number(&report["host"]["peak_used_bytes"]);
    let budget = f64::from(setup.budget_mib) * f64::from(1 << 20);
    let restarts = started(samples).saturating_sub(setup.guests as usize) as f64;
    let expected = f64::from(setup.minutes * 60) / f64::from(setup.restart_every_seconds);
    println!(
        "soak: {:.0} pages verified, {restarts} restarts; at most {:.0} merges, {:.0} breaks, {:.0} evictions of \
         living guests",
        total("pages_verified_total"),
        most(|sample| sample.merges),
        most(|sample| sample.breaks),
        most(|sample| sample.evictions),
    );
    let mut targets = vec![
        Target::at_least(name("exit-0"), f64::from(u8::from(*success)), 1.0),
        Target::at_most(name("corrupt-pages"), total("pages_corrupt_total") + most(|sample| sample.corrupt_pages), 0.0),
        Target::at_most(name("peak-over-budget"), peak / budget, 1.0),
        Target::at_most(name("sampled-over-budget"), most(|sample| sample.used_bytes) / budget, 1.0),
        // A guest verifies all it holds before it ends; half as many restarts as were asked for are plenty.
        Target::at_least(name("restarts-over-asked"), restarts / expected, 0.5),
        Target::at_least(name("merges"), most(|sample| sample.merges), 1.0),
        Target::at_least(name("breaks"), most(|sample| sample.breaks), 1.0),
        Target::at_least(name("evictions"), most(|sample| sample.evictions), 1.0),
    ];
    for (number, tier) in TIERS.iter().enumerate() {
        let bytes = samples.iter().map(|sample| sample.tiers[number]).fold(f64::NAN, f64::max);
        targets.push(Target::at_least(name(&format!("{tier}-pages")), bytes / 4096.0, 1.0));
    }
    let growth = |figure: fn(&Sample) -> f64| growth(setup, samples, figure);
    let (descriptors, bytes) = (growth(|sample| sample.host_descriptors), growth(|sample| sample.host_bytes));
    targets.push(Target::at_most(name("descriptors-grown"), descriptors.map_or(f64::NAN, |(from, to)| to - from), 0.0));
    targets.push(Target::at_most(
        name("host-bytes-grown"),
        bytes.map_or(f64::NAN, |(from, to)| to - from),
        HOST_GROWTH_BYTES,
    ));
    let frames = growth(|sample| sample.frames_bytes / sample.shared_bytes.max(1.0));
    targets.push(Target::at_most(name("frames-grown"), frames.map_or(f64::NAN, |(from, to)| to / from), FRAMES_GROWTH));
    targets
}

/// The most in the first third of the run and the least in the last, of samples with at least half of the
/// guests running: what goes up and down has not grown, what leaks has.
fn growth(setup: &SoakSetup, samples: &[Sample], figure: fn(&Sample) -> f64) -> Option<(f64, f64)> {
    let full: Vec<&Sample> = samples.iter().filter(|sample| sample.running * 2.0 >= f64::from(setup.guests)).collect();
    let third = full.len() / 3;
    let early = full[..third].iter().map(|sample| figure(sample)).reduce(f64::max)?;
    let late = full[full.len() - third..].iter().map(|sample| figure(sample)).reduce(f64::min)?;
    Some((early, late))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> SoakSetup {
        SoakSetup {
            program: "ballast".into(),
            minutes: 1,
            guests: 2,
            memory_mib: 64,
            budget_mib: 64,
            swap: "/var/tmp".into(),
            restart_every_seconds: 5,
        }
    }

    #[test]
    fn what_goes_up_and_down_is_no_leak_and_what_only_goes_up_is() {
        let sample = |n: u32| Sample {
            running: 2.0,
            host_descriptors: f64::from(30 + n % 3),
            host_bytes: f64::from(n) * 1e6,
            ..Sample::default()
        };
        let samples: Vec<_> = (0..90).map(sample).collect();
        assert!(growth(&setup(), &samples, |sample| sample.host_descriptors).is_some_and(|(from, to)| to <= from));
        assert!(growth(&setup(), &samples, |sample| sample.host_bytes).is_some_and(|(from, to)| to > from + 20e6));
        assert_eq!(growth(&setup(), &[], |sample| sample.host_bytes), None);
    }

    #[test]
    fn a_run_that_left_nothing_meets_nothing() {
        let targets = judge(&setup(), &Found::default());
        assert!(targets.len() == 16 && targets.iter().all(|target| !target.is_met()), "{targets:?}");
    }
}
