//! What a guest is at: [`Machine::measure`] brings the accounts up to date, the others only read them.

use std::sync::atomic::{AtomicU64, Ordering};

use control::status::{BalloonStatus, GuestStatus, WorkloadStatus};
use pager::PAGE_BYTES;

use super::{Around, Machine};
use crate::{sync::lock, sys, vcpus::Vcpus};

impl Machine {
    /// Brings the account of memory up to date with the kernel's, and says what went wrong with the swap file
    /// meanwhile. To be called regularly, and before a status is to be exact.
    pub fn measure(&self) {
        if let Some(trouble) = self.memory.take_trouble() {
            tracing::warn!("{trouble}");
        }
        if let Err(failure) = self.memory.measure(sys::anonymous_bytes()) {
            self.failures.report(failure.to_string());
        }
    }

    /// Everything about the guest, as it was last measured. Changes nothing.
    pub fn status(&self) -> GuestStatus {
        let mut dedup = self.scanner.as_ref().map(|scanner| scanner.handle().status()).unwrap_or_default();
        dedup.vmas = u64::from(self.memory.pages().vmas());
        dedup.vma_budget = u64::from(self.config.vma_budget);
        let (runs, held_ns_total) = {
            let hold = lock(&self.hold);
            (hold.runs(), hold.ns_total())
        };
        GuestStatus {
            memory_bytes: self.config.memory_bytes,
            pager: self.memory.report(),
            dedup,
            balloon: self.balloon_status(),
            disks: self.devices.disks_status(),
            networks: self.devices.networks_status(),
            workload: self.workload_status(),
            held_ns_total,
            paused: !runs && self.vcpus.as_ref().is_some_and(Vcpus::are_held),
        }
    }

    /// The balloon, now; nothing of one if there is none.
    pub fn balloon_status(&self) -> BalloonStatus {
        let Some(attached) = &self.devices.balloon else { return BalloonStatus::default() };
        let (transport, device) = (attached.transport(), attached.device());
        let status = device.balloon().status();
        let [inflate_cpu_ns, report_cpu_ns] = device.cpu_ns();
        BalloonStatus {
            requested_bytes: u64::from(status.requested_pages) * PAGE_BYTES as u64,
            actual_bytes: u64::from(status.actual_pages) * PAGE_BYTES as u64,
            inflated_pages_total: status.counts.inflated_pages,
            deflated_pages_total: status.counts.deflated_pages,
            reported_pages_total: status.counts.reported_pages,
            hinted_pages_total: status.counts.hinted_pages,
            hint_dropped_pages_total: status.counts.hint_dropped_pages,
            hint_rounds_total: status.counts.hint_rounds,
            report_delay_ms: self.reports.delay_ms(),
            reports_left_pages_total: self.reports.left_pages(),
            inflate_cpu_ns,
            report_cpu_ns,
            rejected_total: status.counts.rejected + transport.refused_total(),
            driver_ok: status.driver_ok,
            statistics_total: status.counts.statistics,
            statistics: status.statistics,
        }
    }

    /// What a bare guest counts.
    pub fn workload_status(&self) -> WorkloadStatus {
        let mut status = WorkloadStatus {
            pages_verified_total: self.pages_compared.load(Ordering::Relaxed),
            timed: self.devices.meter.status(),
            ..WorkloadStatus::default()
        };
        let Around::Bare(board) = &self.around else { return status };
        for report in board.firmware.reports() {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            status.operations_total += read(&report.operations);
            status.pages_verified_total += read(&report.pages_verified);
            status.allocation_failures_total += read(&report.allocation_failures);
            if status.pages_corrupt_total == 0 {
                status.first_corrupt_gpa = read(&report.first_corrupt_gpa);
            }
            status.pages_corrupt_total += read(&report.pages_corrupt);
        }
        status.phase = board.firmware.report(0).phase.load(Ordering::Relaxed) as u32;
        status
    }
}
