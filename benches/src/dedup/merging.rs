//! S1, S2, S3: memory that holds still, until all that can be shared is. Ballast's scanners are driven one
//! after the other without a pause, and ksmd runs; what is compared is what it takes in all, not how fast a
//! pace was chosen.

use std::{
    thread,
    time::{Duration, Instant},
};

use pager::PAGE_BYTES;
use serde::Serialize;

use crate::{
    dedup::{
        contents::{Contents, Count},
        plan::Plan,
        progress::{Cost, Progress},
        sides::{
            ballast::Ballast,
            ksm::{Ksm, Mode},
            sharer::{Metadata, Sharer},
            who::Who,
        },
    },
    kit::{clocks, error::Error},
};

/// After so many passes of every scanner, or whole scans of ksmd, without a gain, nothing more comes:
/// contents are told, or merged, on the second visit.
const BARREN_PASSES: u32 = 3;
const BARREN_SCANS: u64 = 3;
/// How often ksmd's progress is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// The longest that ksmd may take without its advisor.
const LIMIT: Duration = Duration::from_secs(300);

/// What one side did with memory that holds still.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Merged {
    /// Pages less than without sharing, before what it costs.
    pub pages_saved: u64,
    /// The same, less the metadata; from the kernel's books.
    pub net_pages_saved: u64,
    /// Pages that were made to share.
    pub merges: u64,
    /// What it took to come to 99.9 % of the pages saved: the last few may come scans later.
    pub cost: Cost,
    /// What it took to come to 90 % of the limit; nothing, if that was never reached.
    pub cost_of_90_percent: Option<Cost>,
    /// Memory for maintenance.
    pub metadata: Metadata,
    /// Metadata over scanned bytes.
    pub metadata_ratio: f64,
}

impl Merged {
    /// Pages made to share for a second of CPU.
    pub fn merges_per_cpu_second(&self) -> f64 {
        self.merges as f64 / self.cost.cpu_seconds.max(1e-3)
    }
}

/// Has one side share `contents`.
pub fn measure(who: Who, contents: &Contents, count: &Count, plan: &Plan) -> Result<Merged, Error> {
    match who {
        Who::Ballast => ballast(contents, count, plan.area_bytes),
        Who::Ksmd => ksmd(contents, count, Mode::Unthrottled, LIMIT),
        Who::KsmdAdvisor => ksmd(contents, count, Mode::Advisor, plan.advisor_limit),
        Who::Nobody => ksmd(contents, count, Mode::Off, Duration::ZERO),
    }
}

fn ballast(contents: &Contents, count: &Count, area_bytes: f64) -> Result<Merged, Error> {
    let mut side = Ballast::load(contents, area_bytes)?;
    let (start, cpu_before) = (Instant::now(), clocks::process()?);
    let mut progress = Progress::default();
    let mut barren = 0;
    while barren < BARREN_PASSES && progress.saved() < count.limit_pages() {
        barren += 1;
        for guest in 0..side.guests() {
            side.pass(guest)?;
            let cpu = clocks::process()? - cpu_before;
            if progress.note(side.saved_pages()?, cpu, start.elapsed()) {
                barren = 0;
            }
        }
    }
    let merges = side.merges();
    // What maintenance costs is measured when scanners have found nothing for a pass, as they soon do in a
    // VMM: they let go of what served comparing.
    (0..side.guests()).try_for_each(|guest| side.pass(guest))?;
    summary(&side, contents, count, &progress, merges)
}

fn ksmd(contents: &Contents, count: &Count, mode: Mode, limit: Duration) -> Result<Merged, Error> {
    let mut side = Ksm::load(contents, mode)?;
    let (start, cpu_before) = (Instant::now(), side.cpu()?);
    side.begin()?;
    let mut progress = Progress::default();
    let mut gained_scan = Ksm::full_scans()?;
    while start.elapsed() < limit
        && progress.saved() < count.limit_pages()
        && Ksm::full_scans()? < gained_scan + BARREN_SCANS
    {
        thread::sleep(LOOK);
        let scan = Ksm::full_scans()?;
        if progress.note(side.saved_pages()?, side.cpu()? - cpu_before, start.elapsed()) {
            gained_scan = scan;
        }
    }
    side.halt()?;
    let merges = side.merges()?;
    summary(&side, contents, count, &progress, merges)
}

fn summary(
    side: &dyn Sharer,
    contents: &Contents,
    count: &Count,
    progress: &Progress,
    merges: u64,
) -> Result<Merged, Error> {
    let metadata = side.metadata()?;
    let net_bytes = contents.bytes().saturating_sub(side.cost_bytes()?);
    Ok(Merged {
        pages_saved: progress.saved(),
        net_pages_saved: net_bytes / PAGE_BYTES as u64,
        merges,
        cost: progress.cost_of(progress.saved() as f64 * 0.999).unwrap_or_default(),
        cost_of_90_percent: progress.cost_of(count.limit_pages() as f64 * 0.9),
        metadata,
        metadata_ratio: metadata.bytes() as f64 / contents.bytes() as f64,
    })
}
