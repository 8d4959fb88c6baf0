//! What people see while guests run: a table redrawn in place on a terminal, a line now and then elsewhere.
//! All of it is talk and goes to standard error; the summary at the end is data (see
//! [`crate::show::summary`]).
//!
//! Log lines share the terminal with the table: [`LogWriter`] wipes the table, writes, and the next drawing
//! comes below.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use terminal_size::{Height, Width, terminal_size_of};

use crate::bytes::ByteCount;
use crate::config::RunConfig;
use crate::fleet::accounting::Meter;
use crate::fleet::guest::View;
use crate::fleet::lives::Fleet;
use crate::show::table::{HostRow, Row, draw};
use crate::show::totals::{Reclaimed, sum};
use crate::sync::lock;

/// How often the table is drawn: as fast as one can read.
const REDRAW_INTERVAL: Duration = Duration::from_millis(500);
/// How often a line is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(2);
/// Size assumed of a terminal that does not tell.
const SIZE_DEFAULT: (Width, Height) = (Width(100), Height(25));

/// Lines of the table that stand above the cursor.
static DRAWN: Mutex<usize> = Mutex::new(0);

/// Shows a run while it goes on.
#[derive(Debug)]
pub struct Display {
    fleet: Arc<Fleet>,
    meter: Arc<Meter>,
    promised_bytes: u64,
    vcpus: u32,
    begun: Instant,
}

impl Display {
    /// A display that has shown nothing yet.
    pub fn new(config: &RunConfig, fleet: Arc<Fleet>, meter: Arc<Meter>) -> Display {
        let promised_bytes = fleet.guests.iter().map(|guest| guest.plan.memory_bytes).sum();
        Display { fleet, meter, promised_bytes, vcpus: config.vcpus, begun: Instant::now() }
    }

    /// Shows for ever.
    pub async fn keep_showing(self) {
        let terminal = io::stderr().is_terminal();
        let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let mut ticks = tokio::time::interval(if terminal { REDRAW_INTERVAL } else { LINE_INTERVAL });
        ticks.tick().await;
        let mut before = (Instant::now(), self.fleet.views());
        loop {
            ticks.tick().await;
            let now = (Instant::now(), self.fleet.views());
            if terminal {
                let (Width(width), Height(height)) = terminal_size_of(io::stderr()).unwrap_or(SIZE_DEFAULT);
                let rows = self.rows(&before.1, &now.1, now.0 - before.0);
                redraw(&draw(&rows, &self.host_row(&now.1), width.into(), height.into(), color));
            } else {
                // Nobody reads any more: no reason to stop the guests.
                let _ = writeln!(io::stderr(), "{}", self.line(&now.1));
            }
            before = now;
        }
    }

    fn rows(&self, before: &[View], now: &[View], elapsed: Duration) -> Vec<Row> {
        let seconds = elapsed.as_secs_f64().max(f64::EPSILON);
        let row = |(before, now): (&View, &View)| {
            let (pager, pages) = (&now.status.pager, &now.status.pager.pages);
            let grown = |figure: fn(&View) -> u64| figure(now).saturating_sub(figure(before)) as f64 / seconds;
            let page_bytes = wire::PAGE_BYTES as u64;
            Row {
                name: now.name.clone(),
                phase: now.phase.clone(),
                state: now.state(),
                resident_bytes: pager.resident_bytes,
                shared_bytes: pages.shared * page_bytes,
                compressed_bytes: (pages.compressed + pager.kernel_pages) * page_bytes,
                balloon_bytes: now.status.balloon.actual_bytes,
                operations_per_second: grown(View::operations),
                stall_ratio: grown(|view| view.status.pager.stall_ns_total) / 1e9 / f64::from(self.vcpus),
                allocation_bytes: now.grant.allocation_bytes,
            }
        };
        before.iter().zip(now).map(row).collect()
    }

    fn host_row(&self, views: &[View]) -> HostRow {
        HostRow {
            seconds: self.begun.elapsed().as_secs_f64(),
            budget_bytes: self.meter.budget.bytes(),
            promised_bytes: self.promised_bytes,
            used_bytes: self.meter.used_bytes(),
            peak_used_bytes: self.meter.peak_used_bytes(),
            reclaimed: Reclaimed::of(views, self.fleet.frames_bytes()),
            pages_verified: views.iter().map(View::pages_verified).sum(),
            pages_corrupt: sum(views, |status| status.workload.pages_corrupt_total),
        }
    }

    fn line(&self, views: &[View]) -> String {
        let host = self.host_row(views);
        let living = views.iter().filter(|view| !view.has_ended()).count();
        let reclaimed =
            host.reclaimed.by_mechanism().map(|(name, bytes)| format!("{name} {}", ByteCount::rounded(bytes)));
        format!(
            "{:5.1} s  {living} of {} guests, {} of {} used; reclaimed: {}; {} pages verified, {} corrupt",
            host.seconds,
            views.len(),
            ByteCount::rounded(host.used_bytes),
            ByteCount(host.budget_bytes),
            reclaimed.join(", "),
            host.pages_verified,
            host.pages_corrupt,
        )
    }
}

/// Wipes the table, for what comes after it.
pub fn erase() {
    redraw(&[]);
}

/// Replaces the table.
fn redraw(lines: &[String]) {
    let mut drawn = lock(&DRAWN);
    let mut text = wipe(*drawn);
    text.extend(lines.iter().flat_map(|line| [line, "\n"]));
    // As above.
    let _ = io::stderr().write_all(text.as_bytes());
    *drawn = lines.len();
}

/// Cursor up, and clear from there.
fn wipe(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\x1b[J") }
}

/// Standard error for log lines, above the table.
#[derive(Debug, Default)]
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut drawn = lock(&DRAWN);
        let mut stderr = io::stderr();
        stderr.write_all(wipe(std::mem::take(&mut *drawn)).as_bytes())?;
        stderr.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
