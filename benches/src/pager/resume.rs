//! `resume`: a guest is paused, all of its memory is evicted, and it goes on with enough of it.
//!
//! ```text
//!   zipf over 40 % of RAM, until steady --- pause --- squeezed to nothing --- memory given back
//!     --- resume ... N operations, measured
//! ```
//!
//! N is what the guest does in a second undisturbed, which touches nearly all that it uses. With and without
//! prefetching, guests take turns; what counts is the faults until then, and the time.

use std::{
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use pager::PAGE_BYTES;
use serde::Serialize;
use wire::machine::Workload;

use crate::{
    balloon::guest::{Guest, GuestSpec},
    kit::{
        error::Error,
        report::{Report, median},
        target::Target,
    },
};

const MEMORY_MIB: u64 = 256;
const ACTIVE_PERMILLE: u16 = 400;
/// Rounds of each side.
const ROUNDS: usize = 3;
/// How long is measured what the guest does undisturbed.
const UNDISTURBED: Duration = Duration::from_secs(1);
/// What a squeezed guest keeps.
const SQUEEZED_BYTES: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(1);

/// What going on costs a guest that was evicted while it was paused, with and without its working set
/// prefetched. Needs KVM.
#[derive(Args)]
#[command(after_help = "\
Example:
  cargo run --release -p ballast-bench -- resume --json resume.json")]
pub struct Arguments {}

/// One resumption.
#[derive(Clone, Copy, Debug, Serialize)]
struct Resumption {
    prefetch: bool,
    operations: u64,
    evicted_pages: u64,
    prefetched_pages: u64,
    faults: u64,
    stall_ms: f64,
    /// Until all operations were done.
    ms: f64,
    /// The first hundredth of them.
    first_ms: f64,
}

#[derive(Serialize)]
struct Figures<'a> {
    resumptions: &'a [Resumption],
    targets: &'a [Target],
}

/// Runs it; prints targets.
pub fn run(_: Arguments, report: &Report) -> Result<(), Error> {
    let mut resumptions = Vec::new();
    for round in 0..ROUNDS {
        // Each goes first in its turn.
        for prefetch in [round % 2 == 0, round % 2 == 1] {
            let Some(one) = report.measured("resume", resume(prefetch)) else { continue };
            one.say();
            resumptions.push(one);
        }
    }
    let targets = judge(&resumptions);
    report.conclude(&targets, &Figures { resumptions: &resumptions, targets: &targets })
}

fn judge(resumptions: &[Resumption]) -> Vec<Target> {
    let of = |prefetch: bool, figure: fn(&Resumption) -> f64| {
        median(resumptions.iter().filter(|one| one.prefetch == prefetch).map(figure).collect())
    };
    let ratio = |figure: fn(&Resumption) -> f64| of(true, figure) / of(false, figure);
    vec![
        Target::at_least("resume-faults-removed".into(), 1.0 - ratio(|one| one.faults as f64), 0.9),
        Target::at_most("resume-time-over-without".into(), ratio(|one| one.ms), 1.0),
        Target::at_most("resume-first-operations-over-without".into(), ratio(|one| one.first_ms), 1.0),
    ]
}

impl Resumption {
    fn say(&self) {
        println!(
            "resume: prefetch {:<3} {:>6} pages were away, {:>6} came back by themselves; {} operations took {:>6.0} \
             ms, \
             the first {} {:>5.1} ms; {:>6} faults, {:>6.0} ms stalled",
            if self.prefetch { "on" } else { "off" },
            self.evicted_pages,
            self.prefetched_pages,
            self.operations,
            self.ms,
            self.operations / 100,
            self.first_ms,
            self.faults,
            self.stall_ms
        );
    }
}

fn resume(prefetch: bool) -> Result<Resumption, Error> {
    let guest = Guest::start(GuestSpec {
        memory_mib: MEMORY_MIB,
        balloon_mib: None,
        workload: Workload::Zipf,
        active_permille: Some(ACTIVE_PERMILLE),
        filled: false,
        pager: true,
        prefetch,
    })?;
    let operations = || guest.machine().workload_status().operations_total;
    guest.resume();
    let filled = MEMORY_MIB * (1 << 20) / PAGE_BYTES as u64 * u64::from(ACTIVE_PERMILLE) / 1000;
    wait(&guest, "the guest to have its working set", || operations() > 4 * filled)?;
    let before = operations();
    thread::sleep(UNDISTURBED);
    let wanted = operations() - before;
    guest.pause()?;
    let status = || guest.machine().status().pager;
    let evictions = status().evictions_total;
    guest.machine().memory().set_allocation(SQUEEZED_BYTES);
    wait(&guest, "everything to go", || status().pages.private == 0)?;
    guest.machine().memory().set_allocation((2 * MEMORY_MIB) << 20);
    let away = status();
    let (done, begun) = (operations(), Instant::now());
    guest.resume();
    wait(&guest, "the first operations", || operations() >= done + wanted / 100)?;
    let first = begun.elapsed();
    wait(&guest, "the operations", || operations() >= done + wanted)?;
    let time = begun.elapsed();
    let back = status();
    guest.pause()?;
    guest.check()?;
    Ok(Resumption {
        prefetch,
        operations: wanted,
        evicted_pages: away.evictions_total - evictions,
        prefetched_pages: back.prefetched_total,
        faults: back.faults_missing_total + back.faults_minor_total
            - away.faults_missing_total
            - away.faults_minor_total,
        stall_ms: (back.stall_ns_total - away.stall_ns_total) as f64 / 1e6,
        ms: time.as_secs_f64() * 1e3,
        first_ms: first.as_secs_f64() * 1e3,
    })
}

fn wait(guest: &Guest, what: &str, condition: impl Fn() -> bool) -> Result<(), Error> {
    let begun = Instant::now();
    while !condition() {
        guest.check()?;
        if begun.elapsed() > LIMIT {
            return Err(Error::Guest(format!("still waiting for {what} after {LIMIT:?}")));
        }
        guest.machine().tick();
        thread::sleep(LOOK);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_resumption_every_target_is_missed() {
        let targets = judge(&[]);
        assert!(targets.len() == 3 && targets.iter().all(|target| !target.is_met()), "{targets:?}");
    }
}
