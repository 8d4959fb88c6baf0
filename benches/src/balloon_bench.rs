//! `balloon`: how fast memory moves into and out of a guest's balloon, what that costs, and what being ballooned costs the guest.

use std::{fs, path::Path};

use serde::Serialize;

use crate::{
    balloon_fidelity::{self, Fidelity},
    balloon_floor::{self, Floor},
    balloon_speed::{self, MOVED_BYTES, Move, Side},
    error::Error,
    target::Target,
};

const RATE_OVER_QEMU: f64 = 2.0;
const RATE_OVER_FLOOR: f64 = 0.8;
/// Of ESX's balloon: 1.4 to 4.4 % (Waldspurger 2002, 3.2).
const FIDELITY_LOSS_MAX: f64 = 0.014;

#[derive(Debug, Serialize)]
struct Found {
    moved_bytes: u64,
    ballast: Side,
    qemu: Option<Side>,
    floor: Floor,
    fidelity: Fidelity,
    targets: Vec<Target>,
}

/// Runs all of it; prints targets.
pub fn run(json: Option<&Path>) -> Result<(), Error> {
    let (ballast, qemu) = balloon_speed::measure()?;
    for (name, side) in [("ballast", Some(ballast)), ("qemu", qemu)] {
        let Some(side) = side else { continue };
        print(name, "inflate", &side.inflate);
        print(name, "deflate", &side.deflate);
    }
    let floor = balloon_floor::measure()?;
    println!(
        "floor: the pager gives 128 MiB of contiguous memory up in {:.2} ms of CPU, one madvise in {:.2} ms",
        floor.pager_cpu_seconds * 1e3,
        floor.madvise_cpu_seconds * 1e3
    );
    let fidelity = balloon_fidelity::measure()?;
    println!(
        "fidelity: zipf makes {:.0} operations per CPU-second in 256 MiB ballooned to 128 MiB, {:.0} in a guest born with 128 MiB; half of \
         the pairs lost {:.1} to {:.1} %",
        fidelity.ballooned,
        fidelity.born_small,
        fidelity.loss_ratio_quartiles[0] * 100.0,
        fidelity.loss_ratio_quartiles[1] * 100.0,
    );
    let targets = judge(&ballast, qemu.as_ref(), &floor, &fidelity);
    targets.iter().for_each(|target| println!("{target}"));
    println!("summary: {} of {} targets met", targets.iter().filter(|target| target.is_met()).count(), targets.len());
    let found = Found { moved_bytes: MOVED_BYTES, ballast, qemu, floor, fidelity, targets };
    let Some(path) = json else { return Ok(()) };
    let text = serde_json::to_vec_pretty(&found).map_err(std::io::Error::from);
    text.and_then(|text| fs::write(path, text)).map_err(|source| Error::File { path: path.to_owned(), source })
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

fn judge(ballast: &Side, qemu: Option<&Side>, floor: &Floor, fidelity: &Fidelity) -> Vec<Target> {
    // What was not measured is not met.
    let over_qemu = |of: fn(&Side) -> Move| {
        qemu.map_or(f64::NAN, |qemu| of(qemu).device_cpu_seconds / of(ballast).device_cpu_seconds)
    };
    let inflate = over_qemu(|side| side.inflate);
    let deflate = over_qemu(|side| side.deflate);
    vec![
        Target::at_least("balloon-inflate-per-cpu-second-over-qemu".into(), inflate, RATE_OVER_QEMU),
        Target::at_least("balloon-deflate-per-cpu-second-over-qemu".into(), deflate, RATE_OVER_QEMU),
        Target::at_least("balloon-contiguous-rate-over-madvise".into(), floor.rate_ratio, RATE_OVER_FLOOR),
        Target::at_most("balloon-fidelity-loss".into(), fidelity.loss_ratio, FIDELITY_LOSS_MAX),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(cpu: f64) -> Side {
        let one = Move { device_cpu_seconds: cpu, ..Move::default() };
        Side { inflate: one, deflate: one }
    }

    #[test]
    fn twice_the_peers_cpu_is_twice_our_rate_and_no_peer_is_no_target_met() {
        let floor = Floor { pager_cpu_seconds: 1.0, madvise_cpu_seconds: 0.7, rate_ratio: 0.7 };
        let fidelity =
            Fidelity { ballooned: 99.0, born_small: 100.0, loss_ratio: 0.01, loss_ratio_quartiles: [0.0, 0.02] };
        let met = |qemu: Option<&Side>| {
            judge(&side(1.0), qemu, &floor, &fidelity).iter().map(Target::is_met).collect::<Vec<_>>()
        };
        assert_eq!(met(Some(&side(2.0))), [true, true, false, true]);
        assert_eq!(met(Some(&side(1.9))), [false, false, false, true]);
        assert_eq!(met(None), [false, false, false, true]);
    }
}
