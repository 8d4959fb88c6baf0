//! What the guests really cost, measured from outside: by the kernel's books, not by ours.
//!
//! Used memory is the sum of `RssAnon` over the VMM processes (`/proc/PID/status`: private guest pages,
//! pools, tables, heap) plus the blocks that the frame store has allocated (`fstat`),
//! plus what pages of theirs take in the zram device of the kernel tier. The processes are not
//! read at the same instant; so memory stands still for a sample ([`Movement`]): between its first and its
//! last process none is granted from one guest to another, and none is counted twice.
//!
//! `RssAnon` is exact since Linux 6.16 (commit 82241a83cd15, "mm: fix the inaccurate memory statistics issue
//! for users"). Before, it leaves out what each CPU has not added yet, and what counts is `Pss_Anon` of
//! `smaps_rollup`: the kernel walks the page tables for it, 1 to 10 ms a VMM, and waits for whoever changes
//! that VMM's areas, on a busy host for as long as that thread waits for a CPU.
//!
//! The page-state tables' own sum is taken beside it (`RUST_LOG=host=trace`): the two must agree, which a
//! whole-system test checks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io};

use tokio::sync::{Mutex, MutexGuard};

use crate::clock::thread_cpu_time;
use crate::fleet::budget::Budget;
use crate::fleet::lives::Fleet;

/// Shortest time between two samples.
const INTERVAL_MIN: Duration = Duration::from_millis(250);
/// Sampling may take at most this part of one CPU's time: 5 %.
const CPU_DIVISOR: u32 = 20;
/// Between two samples memory may move for this many times as long as it stood still for one, however slow
/// the machine is.
const REST_FACTOR: u32 = 3;

/// Used memory, now and at most.
#[derive(Debug)]
pub struct Meter {
    /// What use is judged by.
    pub budget: Budget,
    used_bytes: AtomicU64,
    peak_used_bytes: AtomicU64,
    /// Who may grant memory, and when.
    pub movement: Movement,
}

/// Memory moves from guest to guest, or all of it is measured: never both at once.
#[derive(Debug, Default)]
pub struct Movement(Mutex<()>);

/// As long as it lives, nobody else moves memory or measures it.
#[derive(Debug)]
#[must_use]
pub struct Leave<'a>(#[expect(dead_code, reason = "held, not read")] MutexGuard<'a, ()>);

impl Movement {
    /// Leave to move memory, unless it is being measured.
    pub fn begin(&self) -> Option<Leave<'_>> {
        self.0.try_lock().ok().map(Leave)
    }

    /// Stops it, to measure.
    async fn stop(&self) -> Leave<'_> {
        Leave(self.0.lock().await)
    }
}

impl Meter {
    /// A meter of a run with this budget, that has measured nothing.
    pub fn new(budget_bytes: u64) -> Meter {
        Meter {
            budget: Budget::new(budget_bytes),
            used_bytes: AtomicU64::new(0),
            peak_used_bytes: AtomicU64::new(0),
            movement: Movement::default(),
        }
    }

    /// At the last sample, bytes.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// At the highest sample, bytes.
    pub fn peak_used_bytes(&self) -> u64 {
        self.peak_used_bytes.load(Ordering::Relaxed)
    }

    /// Measures now; returns how long to wait before the next time.
    pub async fn sample(self: &Arc<Self>, fleet: &Arc<Fleet>) -> Duration {
        let still = self.movement.stop().await;
        let reading = Arc::clone(fleet);
        let measured = tokio::task::spawn_blocking(move || {
            let (begun, cpu_begun) = (Instant::now(), thread_cpu_time());
            (used_bytes(&reading), begun.elapsed(), thread_cpu_time().saturating_sub(cpu_begun))
        });
        // A reader that panicked leaves the last sample standing, and so does one that could not read.
        let Ok((used_bytes, took, cpu)) = measured.await else { return INTERVAL_MIN };
        drop(still);
        let used_bytes = match used_bytes {
            Ok(used_bytes) => used_bytes,
            Err(error) => {
                tracing::warn!(%error, "used memory cannot be measured; the last figure stands");
                return INTERVAL_MIN;
            }
        };
        self.used_bytes.store(used_bytes, Ordering::Relaxed);
        self.peak_used_bytes.fetch_max(used_bytes, Ordering::Relaxed);
        self.budget.judge(used_bytes, fleet.clock.now());
        let living = fleet.views().into_iter().filter(|view| !view.has_ended());
        let table_bytes = living.map(|view| view.status.pager.resident_bytes).sum::<u64>() + fleet.frames_bytes();
        tracing::trace!(used_bytes, table_bytes, ?took, ?cpu, "used memory");
        INTERVAL_MIN.max(cpu * CPU_DIVISOR).max(took * REST_FACTOR)
    }

    /// Measures for ever: this often, or as often as is cheap.
    pub async fn keep_sampling(self: Arc<Self>, fleet: Arc<Fleet>, every: Option<Duration>) {
        loop {
            let begun = Instant::now();
            let pause = self.sample(&fleet).await;
            tokio::time::sleep(every.map_or(pause, |every| every.saturating_sub(begun.elapsed()))).await;
        }
    }
}

fn used_bytes(fleet: &Fleet) -> io::Result<u64> {
    let file = ProcFile::of_this_kernel();
    let living = fleet.guests.iter().filter(|guest| !guest.has_ended());
    let anonymous: u64 = living.map(|guest| file.anonymous_bytes(guest.pid())).sum::<io::Result<u64>>()?;
    let compressed = fleet.tier.as_ref().map_or(0, |tier| tier.view().guests_bytes);
    Ok(anonymous + fleet.frames_bytes() + compressed)
}

/// Where the kernel says how much anonymous memory a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProcFile {
    /// A counter.
    Status,
    /// The page tables.
    SmapsRollup,
}

impl ProcFile {
    fn of_this_kernel() -> ProcFile {
        let release = nix::sys::utsname::uname().ok();
        ProcFile::of(release.as_ref().and_then(|names| names.release().to_str()).unwrap_or_default())
    }

    /// The cheapest that are exact in the kernel of this release, `major.minor...`.
    fn of(release: &str) -> ProcFile {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(major), Some(minor)) if (major, minor) >= (6, 16) => ProcFile::Status,
            _ => ProcFile::SmapsRollup,
        }
    }

    /// Anonymous memory of a process, bytes; 0 once it is gone. An error is not that: this process may be
    /// short of descriptors, say.
    fn anonymous_bytes(self, pid: u32) -> io::Result<u64> {
        let (file, field) = match self {
            ProcFile::Status => ("status", "RssAnon:"),
            ProcFile::SmapsRollup => ("smaps_rollup", "Pss_Anon:"),
        };
        let text = match fs::read_to_string(format!("/proc/{pid}/{file}")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_gone(&error) => return Ok(0),
            Err(error) => return Err(error),
        };
        // One that is over but not reaped has no such line.
        let kib = text.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix("kB"));
        Ok(kib.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) << 10)
    }
}

/// Whether the process went while its file was read.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_memory_is_seen() {
        for file in [ProcFile::Status, ProcFile::SmapsRollup] {
            let before = file.anonymous_bytes(std::process::id()).unwrap();
            let touched = vec![1u8; 32 << 20];
            let grown = file.anonymous_bytes(std::process::id()).unwrap() - before;
            assert!(std::hint::black_box(&touched).len() == 32 << 20 && grown >= 31 << 20, "{grown}");
        }
    }

    #[test]
    fn a_kernel_whose_counter_may_be_off_is_asked_to_walk_the_page_tables() {
        for release in ["6.16.0", "6.18.44-generic", "7.0-rc1"] {
            assert_eq!(ProcFile::of(release), ProcFile::Status, "{release}");
        }
        for release in ["6.15.9-arch1", "5.15.0-91-generic", "4.18", "", "unknown"] {
            assert_eq!(ProcFile::of(release), ProcFile::SmapsRollup, "{release}");
        }
    }

    #[test]
    fn a_process_that_is_gone_costs_nothing() {
        assert_eq!(ProcFile::Status.anonymous_bytes(u32::MAX).unwrap(), 0);
        assert_eq!(ProcFile::SmapsRollup.anonymous_bytes(u32::MAX).unwrap(), 0);
    }
}
