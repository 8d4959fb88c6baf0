//! S1, S2, S3 side by side: rows and targets.

use serde::Serialize;

use crate::{
    dedup::{
        contents::{Contents, Count},
        merging::{self, Merged},
        plan::{Plan, ScenarioOutcome},
        progress::Cost,
        scenario::Name,
        sides::who::Who,
    },
    kit::{error::Error, target::Target},
};

/// Metadata may be so much of scanned memory.
const METADATA_RATIO_MAX: f64 = 0.005;

#[derive(Serialize)]
struct Figures {
    count: Count,
    limit_pages: u64,
    sides: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    side: Who,
    #[serde(flatten)]
    merged: Merged,
    merges_per_cpu_second: f64,
}

/// Measures one scenario on all sides.
pub fn run(scenario: Name, contents: &Contents, plan: &Plan) -> Result<ScenarioOutcome, Error> {
    let count = contents.count()?;
    let limit_pages = count.limit_pages();
    println!(
        "{}: {} guests of {} MiB; {limit_pages} pages can be saved ({} zero, {} duplicates)",
        scenario.text(),
        contents.guests(),
        contents.pages() / 256,
        count.zero_pages,
        count.duplicate_pages,
    );
    let mut sides = Vec::new();
    for &side in &plan.sides {
        let merged = merging::measure(side, contents, &count, plan);
        let Some(merged) = plan.measured(&scenario.text(), side, merged) else { continue };
        print(side, &merged, limit_pages);
        sides.push(Row { side, merges_per_cpu_second: merged.merges_per_cpu_second(), merged });
    }
    let targets = targets(scenario, plan, limit_pages, &sides);
    ScenarioOutcome::new(scenario, &Figures { count, limit_pages, sides }, targets)
}

fn print(side: Who, merged: &Merged, limit_pages: u64) {
    let percent = |pages: u64| pages as f64 * 100.0 / limit_pages as f64;
    let to_90 = merged.cost_of_90_percent.map_or("never".to_owned(), |Cost { cpu_seconds, wall_seconds }| {
        format!("after {cpu_seconds:.2} CPU-s, {wall_seconds:.2} s")
    });
    println!(
        "  {} saved {:>7} ({:>5.1} %), net {:>5.1} %; {:>7.0} merges/CPU-s, {:>6.2} CPU-s, {:>6.2} s; 90 % {to_90}; \
         metadata {:.2} % of scanned memory",
        side.name(),
        merged.pages_saved,
        percent(merged.pages_saved),
        percent(merged.net_pages_saved),
        merged.merges_per_cpu_second(),
        merged.cost.cpu_seconds,
        merged.cost.wall_seconds,
        merged.metadata_ratio * 100.0,
    );
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let parts = merged.metadata;
    println!(
        "               metadata {:.1} MiB: process {:.1}, address-space areas {:.1}, page tables {:.1}, KSM's items \
         {:.1}",
        mib(parts.bytes()),
        mib(parts.process_bytes),
        mib(parts.area_bytes),
        mib(parts.page_table_bytes),
        mib(parts.ksm_bytes),
    );
}

/// Of the sides that are asked for. What was not measured is no number.
fn targets(scenario: Name, plan: &Plan, limit_pages: u64, sides: &[Row]) -> Vec<Target> {
    if !plan.has(Who::Ballast) {
        return Vec::new();
    }
    let of = |who, figure: fn(&Row) -> f64| sides.iter().find(|row| row.side == who).map_or(f64::NAN, figure);
    let ours = |figure| of(Who::Ballast, figure);
    let over_ksmd = |figure| ours(figure) / of(Who::Ksmd, figure);
    let name = |figure: &str| format!("{}-{figure}", scenario.text());
    let metadata = ours(|row| row.merged.metadata_ratio);
    let mut targets = vec![Target::at_most(name("metadata-ratio"), metadata, METADATA_RATIO_MAX)];
    let is_images = scenario.images_needed() > 0;
    if is_images {
        let of_limit = ours(|row| row.merged.net_pages_saved as f64) / limit_pages.max(1) as f64;
        targets.push(Target::at_least(name("net-saving-of-limit"), of_limit, 0.99));
    }
    if !plan.has(Who::Ksmd) {
        return targets;
    }
    if is_images {
        let saving = ours(|row| row.merged.net_pages_saved as f64)
            / of(Who::Ksmd, |row| row.merged.net_pages_saved.max(1) as f64);
        targets.push(Target::at_least(name("net-saving-over-ksmd"), saving, 1.0));
        let cpu = over_ksmd(|row| row.merged.cost.cpu_seconds);
        targets.push(Target::at_most(name("cpu-over-ksmd"), cpu, 0.25));
    } else {
        let bound = match scenario {
            Name::SameAddress | Name::NearEqual => 10.0,
            Name::Extents => 3.0,
            _ => 1.0,
        };
        let ratio = over_ksmd(|row| row.merges_per_cpu_second);
        targets.push(Target::at_least(name("merges-per-cpu-second-over-ksmd"), ratio, bound));
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_that_failed_miss_their_targets_and_sides_that_were_not_asked_for_have_none() {
        let plan = |sides: &[Who]| Plan { sides: sides.to_vec(), ..Plan::default() };
        let both = targets(Name::SameAddress, &plan(&[Who::Ballast, Who::Ksmd]), 1, &[]);
        assert!(both.len() == 2 && both.iter().all(|target| !target.is_met()), "{both:?}");
        assert_eq!(targets(Name::Images3, &plan(&[Who::Ballast, Who::Ksmd]), 1, &[]).len(), 4);
        assert_eq!(targets(Name::Images3, &plan(&[Who::Ballast]), 1, &[]).len(), 2);
        assert!(targets(Name::Extents, &plan(&[Who::Ksmd]), 1, &[]).is_empty());
    }
}
