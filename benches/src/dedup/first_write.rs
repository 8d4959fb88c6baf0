//! The first write to a shared page, when a guest gets a copy of its own: by one thread of this process on
//! both sides, with nobody scanning meanwhile. (A vCPU's fault costs more than a thread's, on both sides: it
//! leaves the guest first.)

use std::time::Instant;

use serde::Serialize;

use crate::{
    dedup::{
        contents::{Contents, Placement, common_pages, own_number},
        plan::{Plan, ScenarioOutcome},
        scenario::Name,
        sides::who::Who,
        warm_up,
    },
    kit::{
        error::Error,
        latency::{Latencies, LatencyNs},
        random::Random,
        target::Target,
    },
};

/// Guests of a scenario that is not about their number.
const GUESTS: u32 = 4;
/// Pages of each: 64 MiB.
const PAGES: u32 = 16 << 10;
/// Times that each side is measured, in turns; the one with the median p99 counts, as a busy moment of the
/// machine shows there first.
const ROUNDS: usize = 3;
/// First writes may take so many times as long as with KSM.
const RATIO_MAX: f64 = 1.2;

#[derive(Serialize)]
struct Row {
    placement: &'static str,
    side: Who,
    latency: LatencyNs,
}

/// Measures both placements: pages shared at their own addresses, and elsewhere.
pub fn run(plan: &Plan) -> Result<ScenarioOutcome, Error> {
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    for (name, placement) in [("same-address", Placement::SameAddress), ("alias", Placement::Extents)] {
        println!("first-write: pages shared at {name}, {GUESTS} guests of {} MiB", PAGES / 256);
        let contents = Contents::made_up(placement, GUESTS, PAGES);
        // The advisor decides when pages are merged, not what a write to them costs.
        let sides: Vec<Who> = plan.sides.iter().copied().filter(|side| *side != Who::KsmdAdvisor).collect();
        let mut rounds = vec![Vec::new(); sides.len()];
        for _ in 0..ROUNDS {
            for (side, rounds) in sides.iter().zip(&mut rounds) {
                rounds.extend(plan.measured(&format!("first-write: {name}"), *side, one(*side, &contents, plan)));
            }
        }
        for (side, mut rounds) in sides.into_iter().zip(rounds) {
            rounds.sort_by_key(|latency| latency.p99_ns);
            let Some(&latency) = rounds.get(rounds.len() / 2) else { continue };
            let LatencyNs { count, mean_ns, p50_ns, p99_ns, max_ns, .. } = latency;
            println!(
                "  {} {count} writes: mean {mean_ns:.0} ns, p50 {p50_ns} ns, p99 {p99_ns} ns, longest {max_ns} ns",
                side.name()
            );
            rows.push(Row { placement: name, side, latency });
        }
        let of = |who, figure: fn(&LatencyNs) -> u64| {
            let row = rows.iter().find(|row: &&Row| row.side == who && row.placement == name);
            row.map_or(f64::NAN, |row| figure(&row.latency) as f64)
        };
        let target = |quantile: &str, figure| {
            let name = format!("first-write-{name}-{quantile}-over-ksmd");
            Target::at_most(name, of(Who::Ballast, figure) / of(Who::Ksmd, figure), RATIO_MAX)
        };
        if plan.has(Who::Ballast) && plan.has(Who::Ksmd) {
            targets.push(target("p50", |latency| latency.p50_ns));
            targets.push(target("p99", |latency| latency.p99_ns));
        }
    }
    ScenarioOutcome::new(Name::FirstWrite, &rows, targets)
}

fn one(side: Who, contents: &Contents, plan: &Plan) -> Result<LatencyNs, Error> {
    let mut sharer = side.load(contents, plan.area_bytes)?;
    let limit = contents.count()?.limit_pages();
    sharer.begin()?;
    warm_up::until_saved(&*sharer, limit)?;
    sharer.halt()?;
    let (mut latencies, mut random) = (Latencies::default(), Random::new(1));
    let common = common_pages(PAGES);
    for (guest, ram) in (0..).zip(sharer.rams()) {
        let mut pages: Vec<u32> = (0..ram.pages()).filter(|&page| ram.number(page) < common).collect();
        random.shuffle(&mut pages);
        for page in pages {
            let number = own_number(guest, u64::from(page));
            let begun = Instant::now();
            ram.set_number(page, number);
            latencies.note(begun.elapsed());
            if ram.number(page) != number {
                return Err(Error::Guest(format!("page {page} of guest {guest} lost what was written to it")));
            }
        }
    }
    Ok(latencies.summary())
}
