//! What single faults of a guest cost it, by kind, timed by the guest itself, against the floor on the same
//! kind of vCPU.

use std::{path::Path, time::Duration};

use serde::Serialize;

use crate::kit::{
    error::Error,
    latency::{Latencies, LatencyNs},
    target::Target,
};
use crate::pager::paging::{
    matrix::{self, PROBES, ROUNDS, Side},
    peer,
    spec::Cpu,
};

const P50_OVER_FLOOR_MAX: f64 = 1.25;
const P99_OVER_P50_MAX: f64 = 3.0;

/// Whose touches of fresh and of evicted pages are called what.
const SIDES: [(Side, Option<&str>, &str); 3] = [
    (Side::Floor, Some("floor-fresh"), "floor-return"),
    (Side::Ballast, Some("fresh"), "compressed"),
    (Side::BallastFile, None, "swapped"),
];

/// Touches of one kind.
#[derive(Debug, Serialize)]
pub struct Probed {
    cpu: Cpu,
    kind: &'static str,
    latency: LatencyNs,
}

/// Measures on this kind of vCPU; sides take turns.
pub fn run(cpu: Cpu, swap: Option<&Path>) -> Result<Vec<Probed>, Error> {
    let sides = SIDES.into_iter().filter(|(side, ..)| swap.is_some() || *side != Side::BallastFile);
    let mut sides: Vec<_> = sides.map(|side| (side, Latencies::default(), Latencies::default())).collect();
    for _ in 0..ROUNDS {
        for ((side, ..), fresh, returned) in &mut sides {
            let touches = peer::alone(&matrix::probe(*side, cpu, swap))?.touches;
            touches.fresh_ns.into_iter().for_each(|ns| fresh.note(Duration::from_nanos(ns)));
            // The guest goes on until it is stopped; later touches are of pages that it has touched before.
            touches
                .returned_ns
                .into_iter()
                .take(PROBES as usize)
                .for_each(|ns| returned.note(Duration::from_nanos(ns)));
        }
    }
    let kinds = sides.iter().flat_map(|((_, name, other), fresh, returned)| {
        name.map(|name| (name, fresh)).into_iter().chain([(*other, returned)])
    });
    let probed: Vec<_> = kinds.map(|(kind, latencies)| Probed { cpu, kind, latency: latencies.summary() }).collect();
    for Probed { cpu, kind, latency } in &probed {
        println!(
            "pager: touch {cpu:?} {kind}: {} times, p50 {} ns, p99 {} ns, p99.9 {} ns, longest {} ns",
            latency.count, latency.p50_ns, latency.p99_ns, latency.p999_ns, latency.max_ns
        );
    }
    Ok(probed)
}

/// What became of the targets, which KVM's vCPUs have. What comes from a disk takes as long as the disk does.
pub fn targets(probed: &[Probed]) -> Vec<Target> {
    let of = |kind: &str| {
        let wanted = |probed: &&Probed| probed.cpu == Cpu::Kvm && probed.kind == kind;
        let latency = probed.iter().find(wanted).map(|probed| (probed.latency.p50_ns, probed.latency.p99_ns));
        latency.map_or((f64::NAN, f64::NAN), |(p50, p99)| (p50 as f64, p99 as f64))
    };
    let mut targets = Vec::new();
    for (kind, floor) in [("fresh", "floor-fresh"), ("compressed", "floor-return")] {
        let (p50, p99) = of(kind);
        targets.push(Target::at_most(
            format!("pager-kvm-{kind}-p50-over-floor"),
            p50 / of(floor).0,
            P50_OVER_FLOOR_MAX,
        ));
        targets.push(Target::at_most(format!("pager-kvm-{kind}-p99-over-p50"), p99 / p50, P99_OVER_P50_MAX));
    }
    targets
}
