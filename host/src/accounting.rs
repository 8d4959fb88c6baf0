//! What the guests really cost, measured from outside: by the kernel's books, not by ours.
//!
//! Used memory is the sum of `Pss_Anon` over the VMM processes (`smaps_rollup`: private guest pages, pools, tables, heap) plus the
//! blocks that the frame store has allocated (`fstat`). Walking the page tables of one VMM takes the kernel 1 to 10 ms,
//! so the processes are not read at the same instant; a sample therefore holds the ledger: between its first and its last
//! process no memory is granted from one guest to another, and none is counted twice.
//!
//! The page-state tables' own sum is taken beside it (`RUST_LOG=host=trace`): the two must agree, which a whole-system test checks.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use tokio::sync::Mutex;

use crate::budget::Budget;
use crate::fleet::Fleet;

/// Shortest time between two samples.
const INTERVAL_MIN: Duration = Duration::from_millis(250);
/// Sampling may take at most this part of one CPU's time: 5 %.
const CPU_DIVISOR: u32 = 20;
/// Between two samples the ledger is free for this many times as long as a sample held it, however slow the machine is.
const REST_FACTOR: u32 = 3;

/// Used memory, now and at most.
#[derive(Debug)]
pub struct Meter {
    /// What use is judged by.
    pub budget: Budget,
    used_bytes: AtomicU64,
    peak_used_bytes: AtomicU64,
    /// Held while processes are read, and while memory is granted.
    pub ledger: Mutex<()>,
}

impl Meter {
    /// A meter of a run with this budget, that has measured nothing.
    pub fn new(budget_bytes: u64) -> Meter {
        Meter {
            budget: Budget::new(budget_bytes),
            used_bytes: AtomicU64::new(0),
            peak_used_bytes: AtomicU64::new(0),
            ledger: Mutex::new(()),
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
        let held = self.ledger.lock().await;
        let reading = Arc::clone(fleet);
        let measured = tokio::task::spawn_blocking(move || {
            let (begun, cpu_begun) = (Instant::now(), thread_cpu_time());
            (used_bytes(&reading), begun.elapsed(), thread_cpu_time().saturating_sub(cpu_begun))
        });
        // A reader that panicked leaves the last sample standing.
        let Ok((used_bytes, took, cpu)) = measured.await else { return INTERVAL_MIN };
        drop(held);
        self.used_bytes.store(used_bytes, Ordering::Relaxed);
        self.peak_used_bytes.fetch_max(used_bytes, Ordering::Relaxed);
        self.budget.judge(used_bytes, Instant::now());
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

fn used_bytes(fleet: &Fleet) -> u64 {
    let living = fleet.guests.iter().filter(|guest| !guest.has_ended());
    let anonymous: u64 = living.map(|guest| anonymous_bytes(guest.pid()).unwrap_or(0)).sum();
    anonymous + fleet.frames_bytes()
}

/// Anonymous memory of a process, shared pages by their share; `None` once it is gone.
fn anonymous_bytes(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:"))?;
    Some(kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// CPU time of the calling thread: unlike the clock on the wall, it does not grow while others have the CPU.
pub(crate) fn thread_cpu_time() -> Duration {
    // The clock exists on every Linux; without it samples would only come as often as they may.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_memory_is_seen() {
        let before = anonymous_bytes(std::process::id()).unwrap();
        let touched = vec![1u8; 32 << 20];
        let grown = anonymous_bytes(std::process::id()).unwrap() - before;
        assert!(std::hint::black_box(&touched).len() == 32 << 20 && grown >= 31 << 20, "{grown}");
    }

    #[test]
    fn a_process_that_is_gone_costs_nothing() {
        assert_eq!(anonymous_bytes(u32::MAX), None);
    }
}
