//! `balloon`: how fast memory moves into and out of a guest's balloon, what that costs, and what being
//! ballooned costs the guest.

mod fidelity;
mod floor;
pub mod guest;
mod speed;

use clap::Args;
use serde::Serialize;

use self::{
    fidelity::Fidelity,
    floor::Floor,
    speed::{MOVED_BYTES, Move, Side},
};
use crate::kit::{error::Error, report::Report, target::Target};

const RATE_OVER_QEMU: f64 = 2.0;
const RATE_OVER_FLOOR: f64 = 0.8;
/// Of ESX's balloon: 1.4 to 4.4 % (Waldspurger 2002, 3.2).
const FIDELITY_LOSS_MAX: f64 = 0.014;

/// Inflating and deflating a guest's balloon, against QEMU's device and one `madvise`, and what being
/// ballooned costs. Needs KVM.
#[derive(Args)]
#[command(after_help = "\
Example:
  cargo run --release -p ballast-bench -- balloon --json balloon.json")]
pub struct Arguments {}

#[derive(Debug, Serialize)]
struct Found {
    moved_bytes: u64,
    ballast: Option<Side>,
    qemu: Option<Side>,
    floor: Option<Floor>,
    fidelity: Option<Fidelity>,
}

#[derive(Debug, Serialize)]
struct Figures<'a> {
    #[serde(flatten)]
    found: &'a Found,
    targets: &'a [Target],
}

/// Runs all of it; prints targets.
pub fn run(_: Arguments, report: &Report) -> Result<(), Error> {
    let speed = report.measured("balloon: moving memory", speed::measure());
    let (ballast, qemu) = speed.map_or((None, None), |(ballast, qemu)| (Some(ballast), qemu));
    for (name, side) in [("ballast", ballast), ("qemu", qemu)] {
        let Some(side) = side else { continue };
        print(name, "inflate", &side.inflate);
        print(name, "deflate", &side.deflate);
    }
    let floor = report.measured("balloon: the floor", floor::measure());
    if let Some(floor) = &floor {
        println!(
            "floor: the pager gives 128 MiB of contiguous memory up in {:.2} ms of CPU, one madvise in {:.2} ms",
            floor.pager_cpu_seconds * 1e3,
            floor.madvise_cpu_seconds * 1e3
        );
    }
    let fidelity = report.measured("balloon: fidelity", fidelity::measure());
    if let Some(fidelity) = &fidelity {
        println!(
            "fidelity: zipf makes {:.0} operations per CPU-second in 256 MiB ballooned to 128 MiB, {:.0} in a guest \
             born \
             with 128 MiB; half of the pairs lost {:.1} to {:.1} %",
            fidelity.ballooned,
            fidelity.born_small,
            fidelity.loss_ratio_quartiles[0] * 100.0,
            fidelity.loss_ratio_quartiles[1] * 100.0,
        );
    }
    let found = Found { moved_bytes: MOVED_BYTES, ballast, qemu, floor, fidelity };
    let targets = found.targets();
    report.conclude(&targets, &Figures { found: &found, targets: &targets })
}

fn print(side: &str, what: &str, took: &Move) {
    let (gib, pages) = (MOVED_BYTES as f64 / f64::from(1 << 30), MOVED_BYTES as f64 / 4096.0);
    let lower = if took.resident_seconds.is_nan() {
        String::new()
    } else {
        format!("; resident bytes lower after {:.0} ms", took.resident_seconds * 1e3)
    };
    println!(
        "{side} {what}: {:.2} GiB/s; CPU a page: {:.2} us on the device's side, {:.2} us of the vCPU's{lower}",
        gib / took.wall_seconds,
        took.device_cpu_seconds / pages * 1e6,
        took.vcpu_cpu_seconds / pages * 1e6,
    );
}

impl Found {
    /// What was not measured is not met.
    fn targets(&self) -> Vec<Target> {
        let over_qemu = |of: fn(&Side) -> Move| {
            let cpu = |side: &Option<Side>| side.as_ref().map_or(f64::NAN, |side| of(side).device_cpu_seconds);
            cpu(&self.qemu) / cpu(&self.ballast)
        };
        let inflate = over_qemu(|side| side.inflate);
        let deflate = over_qemu(|side| side.deflate);
        let floor = self.floor.map_or(f64::NAN, |floor| floor.rate_ratio);
        let fidelity = self.fidelity.map_or(f64::NAN, |fidelity| fidelity.loss_ratio);
        vec![
            Target::at_least("balloon-inflate-per-cpu-second-over-qemu".into(), inflate, RATE_OVER_QEMU),
            Target::at_least("balloon-deflate-per-cpu-second-over-qemu".into(), deflate, RATE_OVER_QEMU),
            Target::at_least("balloon-contiguous-rate-over-madvise".into(), floor, RATE_OVER_FLOOR),
            Target::at_most("balloon-fidelity-loss".into(), fidelity, FIDELITY_LOSS_MAX),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(cpu: f64) -> Side {
        let one = Move { device_cpu_seconds: cpu, ..Move::default() };
        Side { inflate: one, deflate: one }
    }

    #[test]
    fn twice_the_peers_cpu_is_twice_our_rate_and_what_was_not_measured_is_no_target_met() {
        let floor = Floor { pager_cpu_seconds: 1.0, madvise_cpu_seconds: 0.7, rate_ratio: 0.7 };
        let fidelity =
            Fidelity { ballooned: 99.0, born_small: 100.0, loss_ratio: 0.01, loss_ratio_quartiles: [0.0, 0.02] };
        let met = |found: Found| found.targets().iter().map(Target::is_met).collect::<Vec<_>>();
        let with = |qemu| Found {
            moved_bytes: MOVED_BYTES,
            ballast: Some(side(1.0)),
            qemu,
            floor: Some(floor),
            fidelity: Some(fidelity),
        };
        assert_eq!(met(with(Some(side(2.0)))), [true, true, false, true]);
        assert_eq!(met(with(Some(side(1.9)))), [false, false, false, true]);
        assert_eq!(met(with(None)), [false, false, false, true]);
        assert_eq!(met(Found { ballast: None, floor: None, fidelity: None, ..with(None) }), [false; 4]);
    }
}
