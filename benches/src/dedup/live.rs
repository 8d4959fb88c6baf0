//! S4: guests that keep changing 5 % of their pages a second, each side at the pace it has by default.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use pager::PAGE_BYTES;
use serde::Serialize;

use crate::{
    dedup::{
        plan::{Plan, ScenarioOutcome},
        scenario::Name,
        sides::who::Who,
        warm_up,
        writers::{CHANGED_PER_SECOND, Pattern, World},
    },
    kit::{clocks, error::Error, latency::LatencyNs, target::Target},
};

/// Writing goes on for so long before it is measured: a change of state passes.
const SETTLE: Duration = Duration::from_secs(10);
/// How long is measured.
const WINDOW: Duration = Duration::from_secs(30);
/// How often savings are looked at: it takes the kernel tens of milliseconds.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
struct Row {
    side: Who,
    /// Pages saved, net of everything, mean over time.
    net_pages_saved: f64,
    /// Pages that could be saved, mean over time.
    limit_pages: f64,
    /// CPU of all who share, over the window.
    cpu_seconds: f64,
    wall_seconds: f64,
    writes_per_second: f64,
    write: LatencyNs,
    corrupt_pages: u64,
    /// CPU of this process's threads by name, as parts of one core.
    threads: BTreeMap<String, f64>,
}

/// Measures all sides with one pattern of writes.
pub fn run(scenario: Name, pattern: Pattern, plan: &Plan) -> Result<ScenarioOutcome, Error> {
    println!(
        "{}: {} guests of {} MiB change {:.0} % of their pages a second, for {} s",
        scenario.text(),
        plan.guests,
        plan.pages / 256,
        CHANGED_PER_SECOND * 100.0,
        WINDOW.as_secs()
    );
    let mut rows = Vec::new();
    for side in [Who::Nobody].into_iter().chain(plan.sides.iter().copied()) {
        let Some(row) = plan.measured(&scenario.text(), side, one(side, pattern, plan)) else { continue };
        print(&row);
        rows.push(row);
    }
    let targets = targets(scenario, plan, &rows);
    ScenarioOutcome::new(scenario, &rows, targets)
}

fn one(side: Who, pattern: Pattern, plan: &Plan) -> Result<Row, Error> {
    let mut world = World::new(plan.guests, plan.pages);
    let bytes = u64::from(plan.guests) * u64::from(plan.pages) * PAGE_BYTES as u64;
    let contents = world.contents();
    let mut sharer = side.load(&contents, plan.area_bytes)?;
    if side != Who::Nobody {
        sharer.begin()?;
        warm_up::until_saved(&*sharer, world.limit_pages())?;
    }
    let (mut saved, mut limit, mut looks) = (0.0, 0.0, 0.0);
    let (mut cpu, mut wall, mut threads) = (Duration::ZERO, Duration::ZERO, BTreeMap::new());
    let rams = sharer.rams();
    let written = world.write(&rams, pattern, |world| {
        thread::sleep(SETTLE);
        let (begun, cpu_before, threads_before) = (Instant::now(), sharer.cpu()?, clocks::threads()?);
        world.measuring.store(true, Ordering::Relaxed);
        while begun.elapsed() < WINDOW {
            thread::sleep(LOOK);
            saved += bytes as f64 - sharer.cost_bytes()? as f64;
            limit += world.limit_pages() as f64;
            looks += 1.0;
        }
        world.measuring.store(false, Ordering::Relaxed);
        (cpu, wall) = (sharer.cpu()? - cpu_before, begun.elapsed());
        threads = clocks::shares_since(&threads_before, wall)?;
        Ok(())
    })?;
    sharer.halt()?;
    let write = written.latencies.summary();
    Ok(Row {
        side,
        net_pages_saved: saved / looks / PAGE_BYTES as f64,
        limit_pages: limit / looks,
        cpu_seconds: cpu.as_secs_f64(),
        wall_seconds: wall.as_secs_f64(),
        writes_per_second: write.count as f64 / wall.as_secs_f64(),
        write,
        corrupt_pages: written.corrupt_pages + world.corrupt_pages(&rams),
        threads,
    })
}

fn print(row: &Row) {
    println!(
        "  {} net saving {:>6.0} of {:.0} pages ({:>5.1} %), {:>5.1} % of a CPU; {:.0} writes/s: mean {:.0} ns, p50 \
         {} ns, \
         p99 {} ns; {} corrupt",
        row.side.name(),
        row.net_pages_saved,
        row.limit_pages,
        row.net_pages_saved * 100.0 / row.limit_pages,
        row.cpu_seconds * 100.0 / row.wall_seconds,
        row.writes_per_second,
        row.write.mean_ns,
        row.write.p50_ns,
        row.write.p99_ns,
        row.corrupt_pages,
    );
    println!("               threads: {}", clocks::shares_text(&row.threads));
}

/// Of the sides that are asked for. What was not measured is no number.
fn targets(scenario: Name, plan: &Plan, rows: &[Row]) -> Vec<Target> {
    if !plan.has(Who::Ballast) {
        return Vec::new();
    }
    let of = |who, figure: fn(&Row) -> f64| rows.iter().find(|row| row.side == who).map_or(f64::NAN, figure);
    let name = |figure: &str| format!("{}-{figure}", scenario.text());
    let corrupt = of(Who::Ballast, |row| row.corrupt_pages as f64);
    let mut targets = vec![Target::at_most(name("corrupt-pages"), corrupt, 0.0)];
    if !plan.has(Who::Ksmd) {
        return targets;
    }
    let saving = of(Who::Ballast, |row| row.net_pages_saved) / of(Who::Ksmd, |row| row.net_pages_saved.max(1.0));
    targets.push(Target::at_least(name("saving-over-ksmd"), saving, 1.0));
    let cpu = of(Who::Ballast, |row| row.cpu_seconds) / of(Who::Ksmd, |row| row.cpu_seconds);
    targets.push(Target::at_most(name("cpu-over-ksmd"), cpu, 0.2));
    let slowdown = |who| of(who, |row| row.write.mean_ns) / of(Who::Nobody, |row| row.write.mean_ns);
    let over_ksmd = slowdown(Who::Ballast) / slowdown(Who::Ksmd);
    targets.push(Target::at_most(name("slowdown-over-ksmd"), over_ksmd, 1.0));
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_figures_every_target_is_missed() {
        let plan = Plan { sides: vec![Who::Ballast, Who::Ksmd], ..Plan::default() };
        let targets = targets(Name::LiveHot, &plan, &[]);
        assert!(targets.len() == 4 && targets.iter().all(|target| !target.is_met()), "{targets:?}");
    }
}
