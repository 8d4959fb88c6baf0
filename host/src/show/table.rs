//! The live table as lines of text: pure, so that what is drawn can be tested.
//!
//! ```text
//! GUEST     STATE      RESIDENT    SHARED  COMPRESSED   BALLOON    OPS/S  STALL  ALLOCATION
//! guest0    running      83 MiB    60 MiB      12 MiB    80 MiB    10412    3 %  ###########..... 96 MiB
//! ...
//! host      ###############. 745 MiB of 768 MiB used (peak 750 MiB), 2 GiB promised; 12 s
//!           reclaimed: balloon 640 MiB, shared 310 MiB, zero 12 MiB, compressed 240 MiB, swapped 0 MiB
//!           1250345 pages verified, 0 corrupt
//! ```

use crate::bytes::ByteCount;
use crate::fleet::phase::{End, Phase};
use crate::show::totals::Reclaimed;

/// Characters of a full bar.
const BAR_WIDTH: usize = 16;
/// Lines that are not guests: heading, the host's three, and one that says what was left out.
const OTHER_LINES: usize = 5;

/// A guest's line.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub phase: Phase,
    /// The same in a word, unless its VMM says nothing.
    pub state: &'static str,
    /// Host memory it has, bytes.
    pub resident_bytes: u64,
    /// Guest memory on shared frames, bytes.
    pub shared_bytes: u64,
    /// Guest memory that is compressed, by us or by the kernel, bytes.
    pub compressed_bytes: u64,
    /// Guest memory in the balloon, bytes.
    pub balloon_bytes: u64,
    /// What the workload gets done.
    pub operations_per_second: f64,
    /// Share of its time that it waits for memory.
    pub stall_ratio: f64,
    /// Host memory it may keep, bytes.
    pub allocation_bytes: u64,
}

/// The host's lines.
#[derive(Clone, Debug)]
pub struct HostRow {
    /// Since the start.
    pub seconds: f64,
    /// What everything is to fit into, bytes.
    pub budget_bytes: u64,
    /// RAM of all guests, bytes.
    pub promised_bytes: u64,
    /// At the last sample, bytes.
    pub used_bytes: u64,
    /// At the highest, bytes.
    pub peak_used_bytes: u64,
    /// By mechanism.
    pub reclaimed: Reclaimed,
    /// By the guests themselves.
    pub pages_verified: u64,
    /// As above.
    pub pages_corrupt: u64,
}

/// The table for a terminal of this size. No line is longer than it is wide, so that none wraps and each can
/// be redrawn.
pub fn draw(rows: &[Row], host: &HostRow, width: usize, height: usize, color: bool) -> Vec<String> {
    let fitting = height.saturating_sub(OTHER_LINES + 1).max(1);
    let mut lines = vec![Line::plain(format!(
        "{:<9} {:<12} {:>10} {:>10} {:>10} {:>10} {:>9} {:>6}  ALLOCATION",
        "GUEST", "STATE", "RESIDENT", "SHARED", "COMPRESSED", "BALLOON", "OPS/S", "STALL"
    ))];
    lines.extend(rows.iter().take(fitting).map(guest_line));
    if rows.len() > fitting {
        lines.push(Line::plain(format!("... and {} more guests", rows.len() - fitting)));
    }
    lines.extend(host_lines(host));
    lines.into_iter().map(|line| line.render(width, color)).collect()
}

/// Text that has one colour.
struct Line {
    text: String,
    color: Option<&'static str>,
}

impl Line {
    fn plain(text: String) -> Line {
        Line { text, color: None }
    }

    fn render(self, width: usize, color: bool) -> String {
        let text: String = self.text.chars().take(width).collect();
        match self.color {
            Some(code) if color => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text,
        }
    }
}

fn guest_line(row: &Row) -> Line {
    let text = format!(
        "{:<9} {:<12} {:>10} {:>10} {:>10} {:>10} {:>9.0} {:>4.0} %  {} {}",
        row.name,
        row.state,
        ByteCount::rounded(row.resident_bytes),
        ByteCount::rounded(row.shared_bytes),
        ByteCount::rounded(row.compressed_bytes),
        ByteCount::rounded(row.balloon_bytes),
        row.operations_per_second,
        row.stall_ratio * 100.0,
        bar(row.resident_bytes, row.allocation_bytes),
        ByteCount::rounded(row.allocation_bytes),
    );
    let color = match row.phase {
        Phase::Ended(End::Verified) => Some("32"),
        Phase::Ended(_) => Some("31"),
        _ => None,
    };
    Line { text, color }
}

fn host_lines(host: &HostRow) -> [Line; 3] {
    let reclaimed = host.reclaimed.by_mechanism().map(|(name, bytes)| format!("{name} {}", ByteCount::rounded(bytes)));
    let over = host.used_bytes > host.budget_bytes;
    let corrupt = host.pages_corrupt > 0;
    let memory = format!(
        "{:<9} {} {} of {} used (peak {}), {} promised; {:.0} s",
        "host",
        bar(host.used_bytes, host.budget_bytes),
        ByteCount::rounded(host.used_bytes),
        ByteCount(host.budget_bytes),
        ByteCount::rounded(host.peak_used_bytes),
        ByteCount(host.promised_bytes),
        host.seconds,
    );
    let reclaimed = format!("{:<9} reclaimed: {}", "", reclaimed.join(", "));
    let pages = format!("{:<9} {} pages verified, {} corrupt", "", host.pages_verified, host.pages_corrupt);
    [
        Line { text: memory, color: over.then_some("31") },
        Line::plain(reclaimed),
        Line { text: pages, color: corrupt.then_some("31") },
    ]
}

fn bar(part: u64, whole: u64) -> String {
    let filled = (u128::from(part) * BAR_WIDTH as u128 / u128::from(whole.max(1))).min(BAR_WIDTH as u128) as usize;
    format!("{}{}", "#".repeat(filled), ".".repeat(BAR_WIDTH - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(phase: Phase) -> Row {
        Row {
            name: "guest0".into(),
            state: phase.name(),
            phase,
            resident_bytes: 48 << 20,
            shared_bytes: 60 << 20,
            compressed_bytes: 0,
            balloon_bytes: 80 << 20,
            operations_per_second: 1234.5,
            stall_ratio: 0.031,
            allocation_bytes: 96 << 20,
        }
    }

    fn host() -> HostRow {
        HostRow {
            seconds: 3.0,
            budget_bytes: 768 << 20,
            promised_bytes: 2 << 30,
            used_bytes: 384 << 20,
            peak_used_bytes: 400 << 20,
            reclaimed: Reclaimed::default(),
            pages_verified: 1_000_000,
            pages_corrupt: 0,
        }
    }

    #[test]
    fn no_line_wraps_and_no_row_scrolls_away() {
        let rows = vec![row(Phase::Running); 40];
        for (width, height) in [(20, 7), (80, 24), (200, 100)] {
            let lines = draw(&rows, &host(), width, height, false);
            assert!(lines.iter().all(|line| line.chars().count() <= width));
            assert!(lines.len() < height, "{} lines on {height}", lines.len());
        }
    }

    #[test]
    fn rows_that_do_not_fit_are_counted() {
        let lines = draw(&vec![row(Phase::Running); 40], &host(), 100, 25, false);
        assert!(lines.iter().any(|line| line == "... and 21 more guests"), "{lines:?}");
    }

    #[test]
    fn colour_is_left_out_when_it_is_not_wanted() {
        let rows = [row(Phase::Ended(End::Lost("killed".into())))];
        let escapes = |color| draw(&rows, &host(), 100, 25, color).concat().contains('\x1b');
        assert!(escapes(true) && !escapes(false));
    }

    #[test]
    fn a_bar_is_full_at_the_allocation_and_never_longer() {
        assert_eq!(bar(1, 2), "########........");
        assert_eq!(bar(3, 2), "#".repeat(BAR_WIDTH));
        assert_eq!(bar(0, 0), ".".repeat(BAR_WIDTH));
    }
}
