//! `--explain`: why pages are not merged, what each domain gained, and what a larger budget of address-space
//! areas would bring.

use std::fmt::{self, Write};

use control::explain::REASONS;
use wire::PAGE_BYTES;

use crate::bytes::ByteCount;
use crate::fleet::guest::View;
use crate::request::prerequisite::VMA_RESERVE;
use crate::show::gain::{areas_wanted, unmerged_pages};
use crate::show::report::Outcome;

/// The tables as text, as of the end of the run, before the guests verified.
pub fn explain(outcome: &Outcome) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = write_unmerged(&mut text, &outcome.before);
    let _ = write_domains(&mut text, outcome);
    let _ = write_areas(&mut text, &outcome.before);
    text
}

fn mib(pages: u64) -> String {
    ByteCount::rounded(pages * PAGE_BYTES as u64)
}

fn write_unmerged(text: &mut String, views: &[View]) -> fmt::Result {
    let guests: Vec<_> = views.iter().map(unmerged_pages).collect();
    let total = |at: usize| guests.iter().map(|reasons| reasons[at].1).sum::<u64>();
    let shown: Vec<usize> = (0..REASONS.len()).filter(|&at| total(at) > 0).collect();
    writeln!(text, "\nMemory that is not merged, at the end of the run, and why:")?;
    write!(text, "  {:<9} {:>10}", "guest", "unmerged")?;
    for &at in &shown {
        write!(text, " {:>12}", REASONS[at].0)?;
    }
    writeln!(text)?;
    for (view, reasons) in views.iter().zip(&guests) {
        let unmerged = reasons.iter().map(|(_, pages)| pages).sum();
        write!(text, "  {:<9} {:>10}", view.name, mib(unmerged))?;
        for &at in &shown {
            write!(text, " {:>12}", mib(reasons[at].1))?;
        }
        writeln!(text)?;
    }
    for &at in &shown {
        writeln!(text, "  {:<12} {}", REASONS[at].0, REASONS[at].1)?;
    }
    Ok(())
}

fn write_domains(text: &mut String, outcome: &Outcome) -> fmt::Result {
    writeln!(text, "\nWhat sharing saved, by domain, net of the frames that are held:")?;
    writeln!(
        text,
        "  {:<16} {:>6} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "domain", "guests", "zero", "within", "across", "idle", "if broken", "expected"
    )?;
    for domain in &outcome.domains {
        let gain = &domain.gain_bytes;
        let figures = [gain.zero, gain.within_guest, gain.across_guests, domain.idle_frames_bytes];
        let cow = [domain.cow_full_bytes, domain.cow_expected_bytes];
        write!(text, "  {:<16} {:>6}", domain.name, domain.guests)?;
        for bytes in figures.into_iter().chain(cow) {
            write!(text, " {:>10}", ByteCount::rounded(bytes))?;
        }
        writeln!(text)?;
    }
    let meanings = [
        ("within", "by equal pages of one guest: what it would save alone"),
        ("across", "by equal pages of different guests"),
        ("idle", "frames that nobody holds (yet, or any more), a cost"),
        ("if broken", "needed if every shared page were written to at once"),
        ("expected", "needed by the breaks of two seconds, at the highest rate of the last minute"),
    ];
    meanings.iter().try_for_each(|(name, meaning)| writeln!(text, "  {name:<10} {meaning}"))
}

fn write_areas(text: &mut String, views: &[View]) -> fmt::Result {
    let unmerged: u64 = views.iter().map(|view| view.status.dedup.unmerged.vma_budget).sum();
    if unmerged == 0 {
        return Ok(());
    }
    let areas = views.iter().map(areas_wanted).max().unwrap_or(0);
    writeln!(
        text,
        "\n{} were not shared for want of address-space areas. `--vma-budget {areas}` would take them; it needs `sysctl -w \
         vm.max_map_count={}` or more.",
        mib(unmerged),
        areas + u64::from(VMA_RESERVE)
    )
}
