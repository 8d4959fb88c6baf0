//! The summary at the end of a run, for somebody who has never seen one. What went wrong comes first.

use std::fmt::{self, Write};

use crate::bytes::ByteCount;
use crate::fleet::guest::View;
use crate::fleet::phase::Phase;
use crate::show::report::Outcome;
use crate::show::totals::{FaultSeconds, sum};

/// What each mechanism does, in its own words.
const MECHANISMS: [(&str, &str); 7] = [
    ("balloon", "guests gave it up when they were asked"),
    ("shared", "equal pages of different guests, kept once"),
    ("zero", "pages that had become all zero, kept nowhere"),
    ("compressed", "pages not used lately, kept compressed"),
    ("swapped", "pages kept on disk"),
    ("kernel", "pages in the kernel's swap, kept compressed"),
    ("clean", "pages kept nowhere, as the images have them that guests started from"),
];

/// The summary as text.
pub fn summary(outcome: &Outcome) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = write_summary(&mut text, outcome);
    text
}

fn write_summary(text: &mut String, outcome: &Outcome) -> fmt::Result {
    let verified: u64 = outcome.after.iter().map(View::pages_verified).sum();
    let corrupt = sum(&outcome.after, |status| status.workload.pages_corrupt_total);
    let failures = outcome.failures();
    for failure in &failures {
        writeln!(text, "FAILED: {failure}")?;
    }
    if failures.is_empty() {
        let did = if outcome.linux { "switched themselves off" } else { "verified everything they hold" };
        writeln!(text, "OK: all {} guests {did}", outcome.after.len())?;
    }
    if outcome.interrupted {
        writeln!(text, "The run was interrupted; this is what there was so far.")?;
    }
    writeln!(
        text,
        "\n{} of guest memory ran in {} of host memory ({:.2} times as much); at most {} were in use.",
        ByteCount(outcome.promised_bytes),
        ByteCount(outcome.budget_bytes),
        outcome.overcommit_ratio(),
        ByteCount::rounded(outcome.peak_used_bytes),
    )?;
    let restarts: u64 = outcome.after.iter().map(|view| view.past.restarts).sum();
    if restarts > 0 {
        writeln!(text, "Guests were started anew {restarts} times.")?;
    }
    if !outcome.linux {
        writeln!(text, "{verified} pages were read back and checked by the guests, {corrupt} of them wrong.")?;
    }

    writeln!(text, "\nMemory that was promised and not needed, at the end of the run:")?;
    for ((name, bytes), (_, meaning)) in outcome.reclaimed.by_mechanism().into_iter().zip(MECHANISMS) {
        writeln!(text, "  {name:<11} {:>10}   {meaning}", ByteCount::rounded(bytes))?;
    }

    let patched = sum(&outcome.after, |status| status.pager.pool_patched_total);
    if patched > 0 {
        writeln!(text, "Of compressed pages, {patched} were kept as what distinguishes them from a shared page.")?;
    }

    let faults = sum(&outcome.after, |status| {
        status.pager.faults_missing_total + status.pager.faults_minor_total + status.pager.faults_write_protect_total
    });
    let FaultSeconds { p50, p99, max } = FaultSeconds::of(&outcome.after);
    writeln!(
        text,
        "\n{faults} page faults were served: half within {}, 99 of 100 within {}, the longest in {}.",
        duration(p50),
        duration(p99),
        duration(max)
    )?;

    writeln!(text, "\n{:<9} {:>12} {:>12} {:>8} {:>9}  end", "guest", "operations", "verified", "corrupt", "stalled")?;
    for view in &outcome.after {
        let workload = &view.status.workload;
        let end = match &view.phase {
            Phase::Ended(end) => end.to_string(),
            phase => phase.to_string(),
        };
        writeln!(
            text,
            "{:<9} {:>12} {:>12} {:>8} {:>7.2} s  {end}",
            view.name,
            view.operations(),
            view.pages_verified(),
            workload.pages_corrupt_total,
            view.status.pager.stall_ns_total as f64 / 1e9,
        )?;
    }
    Ok(())
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.1} s"),
        s if s >= 1e-3 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.0} µs", s * 1e6),
    }
}
