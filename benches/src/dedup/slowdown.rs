//! What guests feel of the first scan of their memory (S1, S2): as many threads as there are CPUs read and
//! write guest memory as fast as they can, while each side shares it at the pace it has by default.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    dedup::{
        contents::{Contents, Placement},
        plan::{Plan, ScenarioOutcome},
        scenario::Name,
        sides::who::Who,
    },
    kit::{error::Error, ram::GuestRam, random::Random},
};

/// How long is measured, from the first moment of scanning.
const WINDOW: Duration = Duration::from_secs(10);
/// One operation in so many writes; it writes to pages that no other guest has, so that no sharing ends by
/// it.
const WRITE_ONE_IN: u64 = 8;
/// Operations between two looks at the clock.
const BATCH: u64 = 256;

#[derive(Debug, Serialize)]
struct Row {
    placement: &'static str,
    side: Who,
    operations_per_second: f64,
    /// Operations that scanning cost, over those without it.
    slowdown_ratio: f64,
    pages_saved: u64,
    wrong_reads: u64,
}

/// Measures all sides, and memory that nobody scans.
pub fn run(plan: &Plan) -> Result<ScenarioOutcome, Error> {
    let mut rows: Vec<Row> = Vec::new();
    let placements = [
        ("S1-same-address", Placement::SameAddress),
        ("S2-extents", Placement::Extents),
        ("S2-single-pages", Placement::SinglePages),
    ];
    for (name, placement) in placements {
        let contents = Contents::made_up(placement, plan.guests, plan.pages);
        let limit_pages = contents.count()?.limit_pages();
        println!("slowdown: {name}, the first {} s of scanning", WINDOW.as_secs());
        let mut undisturbed = f64::NAN;
        for side in [Who::Nobody].into_iter().chain(plan.sides.iter().copied()) {
            let row = one(name, side, &contents, plan);
            let Some(mut row) = plan.measured(&format!("slowdown: {name}"), side, row) else { continue };
            if side == Who::Nobody {
                undisturbed = row.operations_per_second;
            }
            row.slowdown_ratio = 1.0 - row.operations_per_second / undisturbed;
            println!(
                "  {} {:>5.2} M operations/s, {:>5.1} % less; {:>5.1} % of the limit saved by then; {} wrong reads",
                side.name(),
                row.operations_per_second / 1e6,
                row.slowdown_ratio * 100.0,
                row.pages_saved as f64 * 100.0 / limit_pages as f64,
                row.wrong_reads,
            );
            rows.push(row);
        }
    }
    ScenarioOutcome::new(Name::Slowdown, &rows, Vec::new())
}

fn one(placement: &'static str, side: Who, contents: &Contents, plan: &Plan) -> Result<Row, Error> {
    let mut sharer = side.load(contents, plan.area_bytes)?;
    let rams = sharer.rams();
    let Contents::Numbers(numbers) = contents else { return Err(Error::Guest("made-up memory only".to_owned())) };
    let (stop, operations, wrong) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let workers = thread::available_parallelism().map_or(1, usize::from) as u64;
    let seconds = thread::scope(|scope| {
        for worker in 0..workers {
            let (rams, stop, operations, wrong) = (&rams, &stop, &operations, &wrong);
            scope.spawn(move || {
                let mut random = Random::new(worker + 1);
                // Relaxed: figures, and a flag that carries nothing but itself.
                while !stop.load(Ordering::Relaxed) {
                    let bad = (0..BATCH).filter(|_| !operate(rams, numbers, &mut random)).count();
                    wrong.fetch_add(bad as u64, Ordering::Relaxed);
                    operations.fetch_add(BATCH, Ordering::Relaxed);
                }
            });
        }
        let begun = Instant::now();
        let result = sharer.begin();
        thread::sleep(WINDOW);
        stop.store(true, Ordering::Relaxed);
        result.map(|()| begun.elapsed().as_secs_f64())
    })?;
    let pages_saved = sharer.saved_pages()?;
    Ok(Row {
        placement,
        side,
        operations_per_second: operations.into_inner() as f64 / seconds,
        slowdown_ratio: 0.0,
        pages_saved,
        wrong_reads: wrong.into_inner(),
    })
}

/// Reads a page, or writes to one of a guest's own what it holds anyway; false if it held anything else.
fn operate(rams: &[GuestRam], numbers: &[Vec<u64>], random: &mut Random) -> bool {
    let guest = random.below(rams.len() as u64) as usize;
    let (ram, numbers) = (rams[guest], &numbers[guest]);
    let page = random.below(u64::from(ram.pages())) as u32;
    let number = numbers[page as usize];
    let is_right = ram.number(page) == number;
    // Common contents have small numbers.
    if number >= numbers.len() as u64 && random.below(WRITE_ONE_IN) == 0 {
        ram.set_number(page, number);
    }
    is_right
}
