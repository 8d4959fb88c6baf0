//! `wake-all`: nobody has touched anything for a while, and then everybody wants everything.
//!
//! ```text
//!   0 s      16 guests fill 40 % of their memory: more than the budget, so it is compressed and swapped
//!   20 s     all give it up and run `hog` at once: every page there is, unique, incompressible, rewritten
//!   the end  each guest verifies all it holds
//! ```
//!
//! Drives the real `ballast run`, without balloon and dedup: the pager alone stands between the guests and
//! the OOM killer. Used memory is measured from outside every 50 ms.

use std::{fs, path::PathBuf, process::Command};

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::kit::{error::Error, program::Program, report::Report, target::Target};

/// Beyond this, a guest was kept waiting for the others.
const FAIRNESS_MAX: f64 = 2.0;
/// When guests wake, seconds: `wake` in the guest's own words.
const ASLEEP_SECONDS: u32 = 20;

/// All guests idle and reclaimed, then all of them want everything at once; see `docs/benchmarks.md`.
#[derive(Args)]
#[command(after_help = "\
Example:
  cargo build --release && cargo run --release -p ballast-bench -- wake-all --swap /var/tmp")]
pub struct Arguments {
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
    #[command(flatten)]
    program: Program,
}

/// What to do.
#[derive(Clone, Debug, Serialize)]
struct WakeSetup {
    program: PathBuf,
    swap: PathBuf,
    guests: u32,
    memory_mib: u32,
    budget_mib: u32,
    seconds: u32,
}

/// What a run left.
#[derive(Debug, Serialize)]
struct Found {
    exit_ok: bool,
    oom_kills: u64,
    report: Value,
}

#[derive(Debug, Serialize)]
struct Figures<'a> {
    plan: &'a WakeSetup,
    #[serde(flatten)]
    found: Option<&'a Found>,
    targets: &'a [Target],
}

impl Arguments {
    fn setup(self) -> Result<WakeSetup, Error> {
        let Arguments { swap, guests, memory_mib, budget_mib, seconds, program } = self;
        Ok(WakeSetup { program: program.path()?, swap, guests, memory_mib, budget_mib, seconds })
    }
}

/// Runs it; prints targets.
pub fn run(arguments: Arguments, report: &Report) -> Result<(), Error> {
    let setup = arguments.setup()?;
    let found = report.measured("wake-all", measure(&setup));
    let targets = judge(&setup, found.as_ref());
    report.conclude(&targets, &Figures { plan: &setup, found: found.as_ref(), targets: &targets })
}

fn measure(setup: &WakeSetup) -> Result<Found, Error> {
    let report_path = std::env::temp_dir().join(format!("ballast-wake-all-{}.json", std::process::id()));
    let kills_before = oom_kills()?;
    let mut command = Command::new(&setup.program);
    command.args(["run", "--workload", "wake", "--balloon", "off", "--dedup", "off", "--sample-every", "50ms"]);
    command.args(["--guests", &setup.guests.to_string(), "--memory", &format!("{}MiB", setup.memory_mib)]);
    command.args(["--budget", &format!("{}MiB", setup.budget_mib)]);
    command.args(["--duration", &format!("{}s", ASLEEP_SECONDS + setup.seconds)]);
    command.args(["--metrics", "127.0.0.1:0", "--swap"]).arg(&setup.swap).arg("--report").arg(&report_path);
    println!("wake-all: {command:?}");
    let exit = command.status().map_err(|source| Error::File { path: setup.program.clone(), source })?;
    let report = fs::read(&report_path).unwrap_or_default();
    // Nobody else knows of it.
    let _ = fs::remove_file(&report_path);
    let report = serde_json::from_slice(&report).unwrap_or(Value::Null);
    Ok(Found { exit_ok: exit.success(), oom_kills: oom_kills()? - kills_before, report })
}

/// What is missing is not a number, and so meets nothing.
fn judge(setup: &WakeSetup, found: Option<&Found>) -> Vec<Target> {
    let report = found.map_or(&Value::Null, |found| &found.report);
    let exit_0 = found.map_or(f64::NAN, |found| f64::from(u8::from(found.exit_ok)));
    let oom_kills = found.map_or(f64::NAN, |found| found.oom_kills as f64);
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let guests = report["guests"].as_array().map_or(&[][..], Vec::as_slice);
    let of_guests =
        |field: &str| guests.iter().map(|guest| guest[field].as_f64().unwrap_or(f64::NAN)).collect::<Vec<_>>();
    let operations = of_guests("operations_total");
    let (least, most) = operations.iter().fold((f64::MAX, 0.0f64), |(least, most), &n| (least.min(n), most.max(n)));
    println!(
        "wake-all: {} guests, {:.0} operations, {:.0} MiB on disk at the end; faults: p50 {:.0} us, p99 {:.0} us; \
         longest single stall {:.1} ms",
        guests.len(),
        operations.iter().sum::<f64>(),
        number("/reclaimed_bytes/swapped") / f64::from(1 << 20),
        number("/pager/fault_seconds/p50") * 1e6,
        number("/pager/fault_seconds/p99") * 1e6,
        number("/pager/fault_seconds/max") * 1e3,
    );
    let budget = f64::from(setup.budget_mib) * f64::from(1 << 20);
    let corrupt = if guests.is_empty() { f64::NAN } else { of_guests("pages_corrupt_total").iter().sum() };
    // No guest at all is no fairness.
    let fairness = if guests.is_empty() { f64::NAN } else { most / least };
    vec![
        Target::at_least("wake-all-exit-0".into(), exit_0, 1.0),
        Target::at_most("wake-all-peak-over-budget".into(), number("/host/peak_used_bytes") / budget, 1.0),
        Target::at_most("wake-all-oom-kills".into(), oom_kills, 0.0),
        Target::at_most("wake-all-corrupt-pages".into(), corrupt, 0.0),
        Target::at_most("wake-all-most-over-least-operations".into(), fairness, FAIRNESS_MAX),
    ]
}

/// OOM kills on this machine since it started.
fn oom_kills() -> Result<u64, Error> {
    let path = PathBuf::from("/proc/vmstat");
    let text = fs::read_to_string(&path).map_err(|source| Error::File { path, source })?;
    Ok(text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> WakeSetup {
        WakeSetup {
            program: "ballast".into(),
            swap: "/tmp".into(),
            guests: 2,
            memory_mib: 256,
            budget_mib: 1,
            seconds: 1,
        }
    }

    fn found(report: Value, exit_ok: bool) -> Found {
        Found { exit_ok, oom_kills: 0, report }
    }

    #[test]
    fn a_run_that_could_not_be_started_misses_everything() {
        assert!(judge(&setup(), None).iter().all(|target| !target.is_met()));
    }

    #[test]
    fn a_run_that_left_no_report_meets_nothing_but_what_the_kernel_counted() {
        let targets = judge(&setup(), Some(&found(Value::Null, false)));
        let met: Vec<_> = targets.iter().filter(|target| target.is_met()).map(ToString::to_string).collect();
        assert!(met.len() == 1 && met[0].contains("oom-kills"), "{met:?}");
    }

    #[test]
    fn a_guest_with_less_than_half_of_anothers_operations_misses_the_target() {
        let report = serde_json::json!({
            "host": {"peak_used_bytes": 1 << 20},
            "pager": {"fault_seconds": {"p50": 1e-6, "p99": 1e-6, "max": 0.1}},
            "guests": [
                {"operations_total": 100, "pages_corrupt_total": 0}, {"operations_total": 201, "pages_corrupt_total": 1},
            ],
        });
        let missed: Vec<_> = judge(&setup(), Some(&found(report, true)))
            .iter()
            .filter(|target| !target.is_met())
            .map(ToString::to_string)
            .collect();
        assert_eq!(missed.len(), 2, "{missed:?}");
        assert!(missed[0].contains("corrupt") && missed[1].contains("most-over-least"), "{missed:?}");
    }
}
