//! S5: 4 GiB of guests in which nothing changes, after all that can be shared is: what watching them costs.

use std::{collections::BTreeMap, thread, time::Duration};

use serde::Serialize;

use crate::{
    dedup::{
        contents::{Contents, Placement},
        plan::{Plan, ScenarioOutcome},
        scenario::Name,
        sides::who::Who,
        warm_up,
    },
    kit::{clocks, error::Error, target::Target},
};

/// Guest memory, pages: 4 GiB.
const PAGES: u32 = 1 << 20;
/// Nothing changes for so long before it is measured: scanners slow down.
const SETTLE: Duration = Duration::from_secs(20);
/// How long is measured.
const WINDOW: Duration = Duration::from_secs(60);
/// Of one core.
const CPU_RATIO_MAX: f64 = 0.002;

#[derive(Debug, Serialize)]
struct Row {
    side: Who,
    pages_saved: u64,
    limit_pages: u64,
    /// CPU of all who share, as a part of one core.
    cpu_ratio: f64,
    /// CPU of this process's threads by name, as parts of one core.
    threads: BTreeMap<String, f64>,
}

/// Measures all sides.
pub fn run(plan: &Plan) -> Result<ScenarioOutcome, Error> {
    let guests = (PAGES / plan.pages).max(2);
    println!("S5-idle: {guests} guests of {} MiB, nothing changes for {} s", plan.pages / 256, WINDOW.as_secs());
    let contents = Contents::made_up(Placement::SameAddress, guests, plan.pages);
    let limit_pages = contents.count()?.limit_pages();
    let mut rows = Vec::new();
    for &side in &plan.sides {
        let row = one(side, &contents, limit_pages, plan);
        let Some(row) = plan.measured("S5-idle", side, row) else { continue };
        let percent = |ratio: &f64| ratio * 100.0;
        println!(
            "  {} {:.3} % of one core, with {} of {limit_pages} pages saved",
            side.name(),
            percent(&row.cpu_ratio),
            row.pages_saved
        );
        println!("               threads: {}", clocks::shares_text(&row.threads));
        rows.push(row);
    }
    let of_4_gib = f64::from(PAGES) / f64::from(guests * plan.pages);
    let ballast = rows.iter().find(|row| row.side == Who::Ballast).map_or(f64::NAN, |row| row.cpu_ratio);
    let target = Target::at_most("S5-idle-cpu-of-one-core".into(), ballast * of_4_gib, CPU_RATIO_MAX);
    let targets = plan.has(Who::Ballast).then_some(target).into_iter().collect();
    ScenarioOutcome::new(Name::Idle, &rows, targets)
}

fn one(side: Who, contents: &Contents, limit_pages: u64, plan: &Plan) -> Result<Row, Error> {
    let mut sharer = side.load(contents, plan.area_bytes)?;
    sharer.begin()?;
    warm_up::until_saved(&*sharer, limit_pages)?;
    thread::sleep(SETTLE);
    let (cpu, threads) = (sharer.cpu()?, clocks::threads()?);
    thread::sleep(WINDOW);
    Ok(Row {
        side,
        pages_saved: sharer.saved_pages()?,
        limit_pages,
        cpu_ratio: (sharer.cpu()? - cpu).as_secs_f64() / WINDOW.as_secs_f64(),
        threads: clocks::shares_since(&threads, WINDOW)?,
    })
}
